// The child itself enters, and stays in the PID namespace in which it was born.
    let news = ErrorPipe::new()?;
    signals::hold()?;
    match call!(clone3(CloneFlags::empty()))? {
        Some(child) => news.outcome_or_end(&child).map(|()| child),
        None => news.report(|| {
            hide()?;
            forget_environment()?;
            call!(setns(pidfd, namespaces))?;
            body()
        }),
    }
