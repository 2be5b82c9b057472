// A slave still hears of each mount that the host makes.
    let (no_source, no_type, no_data) = (None::<&str>, None::<&str>, None::<&str>);
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    call!(mount(no_source, "/", no_type, flags, no_data))?;
    Ok(())
