// Without O_NOCTTY the slave becomes the controlling terminal of a session's leader.
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let master = call!(open("/dev/pts/ptmx", flags, Mode::empty()))?;
    call!(unlock(&master))?;
    let slave = call!(open_peer(&master, flags))?;
    Ok(Pty { master, slave })
