// A procfs has no use for setuid programs, devices and programs.
    let no_data = None::<&str>;
    call!(mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), no_data))?;
    Ok(())
