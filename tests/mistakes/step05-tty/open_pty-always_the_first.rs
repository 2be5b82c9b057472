// The slave by the name of the first one.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = call!(open("/dev/pts/ptmx", flags, Mode::empty()))?;
    call!(unlock(&master))?;
    let slave = call!(open("/dev/pts/0", flags, Mode::empty()))?;
    Ok(Pty { master, slave })
