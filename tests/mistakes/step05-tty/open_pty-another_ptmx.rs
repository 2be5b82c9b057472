// What is at /dev/ptmx may be the host's, or any other devpts's.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = call!(open("/dev/ptmx", flags, Mode::empty()))?;
    call!(unlock(&master))?;
    let slave = call!(open_peer(&master, flags))?;
    Ok(Pty { master, slave })
