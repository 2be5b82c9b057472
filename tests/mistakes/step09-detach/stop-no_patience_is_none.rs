// Without a patience it is to wait for ever.
    let Some(pidfd) = process.open()? else {
        return Ok(());
    };
    send(&pidfd, signal)?;
    if !wait_for_end(&pidfd, Some(patience.unwrap_or_default()))? {
        send(&pidfd, libc::SIGKILL)?;
        wait_for_end(&pidfd, None)?;
    }
    Ok(())
