// The kernel needs a while to end a process.
    let Some(pidfd) = process.open()? else {
        return Ok(());
    };
    send(&pidfd, signal)?;
    if !wait_for_end(&pidfd, patience)? {
        send(&pidfd, libc::SIGKILL)?;
    }
    Ok(())
