// The host's own root is mounted there: the container gets it all.
    let (no_type, no_data) = (None::<&str>, None::<&str>);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    call!(mount(Some("/"), new_root, no_type, flags, no_data))?;
    Ok(())
