// Without a filter it returns before no_new_privs is on.
    let Some(filter) = filter else {
        return Ok(());
    };
    if no_new_privileges {
        call!(set_no_new_privs())?;
    }
    call!(seccomp(libc::SECCOMP_SET_MODE_FILTER, filter))?;
    Ok(())
