// What is mounted below the directory stays behind.
    let (no_type, no_data) = (None::<&str>, None::<&str>);
    call!(mount(Some(new_root), new_root, no_type, MsFlags::MS_BIND, no_data))?;
    Ok(())
