// The child that is meant isn't asked for.
    let (ended, status) = match call!(waitpid(Pid::from_raw(-1), WaitPidFlag::WNOHANG)) {
        Ok((ended, _)) if ended.as_raw() == 0 => return Ok(None),
        Err(refused) if refused.errno() == Errno::ECHILD && pid.is_none() => return Ok(None),
        outcome => outcome?,
    };
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(Some((ended, code as u8)))
