// Whoever goes in still has the host's environment in its memory.
    let (news, birth) = (ErrorPipe::new()?, Birth::new()?);
    signals::hold()?;
    let Some(between) = call!(clone3(CloneFlags::empty()))? else {
        news.report(|| {
            call!(setns(pidfd, namespaces))?;
            match call!(clone3(CloneFlags::CLONE_PARENT))? {
                Some(child) => birth.announce(&child),
                None => {
                    hide()?;
                    forget_environment()?;
                    body()
                }
            }
        })
    };
    wait_for_end(&between.pidfd, None)?;
    reap(Some(between.pid))?;
    match birth.child()? {
        Some(child) => news.outcome_or_end(&child).map(|()| child),
        None => news.outcome().and_then(|()| bail!("it was killed on the way in")),
    }
