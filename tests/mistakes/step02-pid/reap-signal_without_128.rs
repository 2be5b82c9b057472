// 137 is 128 and 9; 9 alone could be an exit status.
    let any = Pid::from_raw(-1);
    let (ended, status) = match call!(waitpid(pid.unwrap_or(any), WaitPidFlag::WNOHANG)) {
        Ok((ended, _)) if ended.as_raw() == 0 => return Ok(None),
        Err(refused) if refused.errno() == Errno::ECHILD && pid.is_none() => return Ok(None),
        outcome => outcome?,
    };
    let code = if libc::WIFSIGNALED(status) {
        libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(Some((ended, code as u8)))
