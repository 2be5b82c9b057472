// The exit status of a process that a signal killed is 0.
    let any = Pid::from_raw(-1);
    let (ended, status) = match call!(waitpid(pid.unwrap_or(any), WaitPidFlag::WNOHANG)) {
        Ok((ended, _)) if ended.as_raw() == 0 => return Ok(None),
        Err(refused) if refused.errno() == Errno::ECHILD && pid.is_none() => return Ok(None),
        outcome => outcome?,
    };
    Ok(Some((ended, libc::WEXITSTATUS(status) as u8)))
