// Without MS_BIND the remount is of the whole filesystem.
    let none = None::<&str>;
    match call!(mount(Some(path), path, none, MsFlags::MS_BIND, none)) {
        Err(refused) if refused.errno() == Errno::ENOENT => return Ok(()),
        outcome => outcome?,
    }
    let flags = flags_of(path)? | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    call!(mount(none, path, none, flags, none))?;
    Ok(())
