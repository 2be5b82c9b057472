// A container may want to be asked by another signal.
    let _ = signal;
    let Some(pidfd) = process.open()? else {
        return Ok(());
    };
    send(&pidfd, libc::SIGTERM)?;
    if !wait_for_end(&pidfd, patience)? {
        send(&pidfd, libc::SIGKILL)?;
        wait_for_end(&pidfd, None)?;
    }
    Ok(())
