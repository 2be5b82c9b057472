// Not every kernel has every path.
    let none = None::<&str>;
    call!(mount(Some(path), path, none, MsFlags::MS_BIND, none))?;
    let flags = flags_of(path)? | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    call!(mount(none, path, none, flags, none))?;
    Ok(())
