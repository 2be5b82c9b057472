// Without MS_REC only the mount at / is private; /sys and all others stay shared.
    let (no_source, no_type, no_data) = (None::<&str>, None::<&str>, None::<&str>);
    call!(mount(no_source, "/", no_type, MsFlags::MS_PRIVATE, no_data))?;
    Ok(())
