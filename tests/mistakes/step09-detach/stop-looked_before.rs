// It looked first, and opened the pidfd of whoever had the number then.
    if !is_running(process) {
        return Ok(());
    }
    let pidfd = pidfd_open(process.pid)?;
    send(&pidfd, signal)?;
    if !wait_for_end(&pidfd, patience)? {
        send(&pidfd, libc::SIGKILL)?;
        wait_for_end(&pidfd, None)?;
    }
    Ok(())
