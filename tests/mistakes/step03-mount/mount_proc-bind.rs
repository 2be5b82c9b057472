// A bind mount shows the same procfs again: the host's.
    let (no_type, no_data) = (None::<&str>, None::<&str>);
    call!(mount(Some("/proc"), "/proc", no_type, MsFlags::MS_BIND, no_data))?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | NOTHING_TO_RUN;
    call!(mount(Some("/proc"), "/proc", no_type, flags, no_data))?;
    Ok(())
