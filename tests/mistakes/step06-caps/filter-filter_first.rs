// The filter holds for what its installer does next.
    if let Some(filter) = filter {
        call!(seccomp(libc::SECCOMP_SET_MODE_FILTER, filter))?;
    }
    if no_new_privileges {
        call!(set_no_new_privs())?;
    }
    Ok(())
