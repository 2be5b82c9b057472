// Neither O_NOCTTY nor O_CLOEXEC.
    let master = call!(open("/dev/pts/ptmx", OFlag::O_RDWR, Mode::empty()))?;
    call!(unlock(&master))?;
    let slave = call!(open_peer(&master, OFlag::O_RDWR))?;
    Ok(Pty { master, slave })
