// It takes the exit code of whoever has ended, and another child of the caller's may have.
    let (news, birth) = (ErrorPipe::new()?, Birth::new()?);
    signals::hold()?;
    let Some(between) = call!(clone3(CloneFlags::empty()))? else {
        news.report(|| {
            hide()?;
            forget_environment()?;
            call!(setns(pidfd, namespaces))?;
            match call!(clone3(CloneFlags::CLONE_PARENT))? {
                Some(child) => birth.announce(&child),
                None => body(),
            }
        })
    };
    wait_for_end(&between.pidfd, None)?;
    while reap(None)?.is_some() {}
    match birth.child()? {
        Some(child) => news.outcome_or_end(&child).map(|()| child),
        None => news.outcome().and_then(|()| bail!("it was killed on the way in")),
    }
