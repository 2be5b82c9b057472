// Any error is taken for a missing path.
    let none = None::<&str>;
    if call!(mount(Some(path), path, none, MsFlags::MS_BIND, none)).is_err() {
        return Ok(());
    }
    let flags = flags_of(path)? | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    call!(mount(none, path, none, flags, none))?;
    Ok(())
