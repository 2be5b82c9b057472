// A new slave is locked.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = call!(open("/dev/pts/ptmx", flags, Mode::empty()))?;
    let slave = call!(open_peer(&master, flags))?;
    Ok(Pty { master, slave })
