// The command is a child of the process between: when that has ended, the caller can't wait for the command.
    let (news, birth) = (ErrorPipe::new()?, Birth::new()?);
    signals::hold()?;
    let Some(between) = call!(clone3(CloneFlags::empty()))? else {
        news.report(|| {
            hide()?;
            forget_environment()?;
            call!(setns(pidfd, namespaces))?;
            match call!(clone3(CloneFlags::empty()))? {
                Some(child) => birth.announce(&child),
                None => body(),
            }
        })
    };
    wait_for_end(&between.pidfd, None)?;
    reap(Some(between.pid))?;
    match birth.child()? {
        Some(child) => news.outcome_or_end(&child).map(|()| child),
        None => news.outcome().and_then(|()| bail!("it was killed on the way in")),
    }
