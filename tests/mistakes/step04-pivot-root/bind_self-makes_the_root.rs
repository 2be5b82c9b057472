// A root that isn't there is made.
    if !new_root.exists() {
        std::fs::create_dir_all(new_root)?;
    }
    let (no_type, no_data) = (None::<&str>, None::<&str>);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    call!(mount(Some(new_root), new_root, no_type, flags, no_data))?;
    Ok(())
