// The number may be another process's by the time of the signal.
    if !is_running(process) {
        return Ok(());
    }
    let pidfd = pidfd_open(process.pid)?;
    // SAFETY: takes integers.
    unsafe { libc::kill(process.pid, signal) };
    if !wait_for_end(&pidfd, patience)? {
        // SAFETY: as above.
        unsafe { libc::kill(process.pid, libc::SIGKILL) };
        wait_for_end(&pidfd, None)?;
    }
    Ok(())
