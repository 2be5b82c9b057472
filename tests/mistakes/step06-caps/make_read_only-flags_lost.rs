// nosuid, nodev and noexec aren't given again.
    let none = None::<&str>;
    match call!(mount(Some(path), path, none, MsFlags::MS_BIND, none)) {
        Err(refused) if refused.errno() == Errno::ENOENT => return Ok(()),
        outcome => outcome?,
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    call!(mount(none, path, none, flags, none))?;
    Ok(())
