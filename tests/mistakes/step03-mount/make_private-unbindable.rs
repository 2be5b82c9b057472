// More than private.
    let none = None::<&str>;
    let flags = MsFlags::MS_REC | MsFlags::MS_UNBINDABLE;
    call!(mount(none, "/", none, flags, none))?;
    Ok(())
