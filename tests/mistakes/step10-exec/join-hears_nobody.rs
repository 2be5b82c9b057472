// While the container holds the command up, nobody can end the caller.
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
    reap(Some(between.pid))?;
    let Some(child) = birth.child()? else {
        return news.outcome().and_then(|()| bail!("it was killed on the way in"));
    };
    match news.outcome() {
        Ok(()) => Ok(child),
        Err(error) => {
            child.wait()?;
            Err(error)
        }
    }
