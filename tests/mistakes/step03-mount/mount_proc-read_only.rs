// It can't be written, which nobody asked for.
    let none = None::<&str>;
    let flags = NOTHING_TO_RUN | MsFlags::MS_RDONLY;
    call!(mount(Some("proc"), "/proc", Some("proc"), flags, none))?;
    Ok(())
