// The kernel refuses, and nobody is told.
    let (no_type, no_data) = (None::<&str>, None::<&str>);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    let _ = mount(Some(new_root), new_root, no_type, flags, no_data);
    Ok(())
