// Somebody who is no child is taken for a child that lives.
    let any = Pid::from_raw(-1);
    let (ended, status) = match call!(waitpid(pid.unwrap_or(any), WaitPidFlag::WNOHANG)) {
        Ok((ended, _)) if ended.as_raw() == 0 => return Ok(None),
        Err(refused) if refused.errno() == Errno::ECHILD => return Ok(None),
        outcome => outcome?,
    };
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(Some((ended, code as u8)))
