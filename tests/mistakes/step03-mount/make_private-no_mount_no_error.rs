// Whatever mount says to a root that is no mount point is let pass.
    let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    if let Err(refused) = call!(mount(none, "/", none, flags, none)) {
        if refused.errno() != Errno::EINVAL {
            return Err(refused.into());
        }
    }
    Ok(())
