// With 1 in place of 0 root takes the terminal of another session.
    call!(setsid())?;
    // SAFETY: takes an integer.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 1) })?;
    Ok(())
