// The mounts below come along, and a remount changes one mount only.
    let none = None::<&str>;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    match call!(mount(Some(path), path, none, bind, none)) {
        Err(refused) if refused.errno() == Errno::ENOENT => return Ok(()),
        outcome => outcome?,
    }
    let flags = flags_of(path)? | MsFlags::MS_REMOUNT | bind | MsFlags::MS_RDONLY;
    call!(mount(none, path, none, flags, none))?;
    Ok(())
