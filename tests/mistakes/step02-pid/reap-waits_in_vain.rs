// Without WNOHANG it waits for the next child to end.
    let any = Pid::from_raw(-1);
    let (ended, status) = match call!(waitpid(pid.unwrap_or(any), WaitPidFlag::empty())) {
        Err(refused) if refused.errno() == Errno::ECHILD && pid.is_none() => return Ok(None),
        outcome => outcome?,
    };
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(Some((ended, code as u8)))
