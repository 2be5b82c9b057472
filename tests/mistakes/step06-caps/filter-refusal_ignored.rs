// Who isn't given a filter runs without one, and doesn't know.
    if no_new_privileges {
        call!(set_no_new_privs())?;
    }
    if let Some(filter) = filter {
        let _ = call!(seccomp(libc::SECCOMP_SET_MODE_FILTER, filter));
    }
    Ok(())
