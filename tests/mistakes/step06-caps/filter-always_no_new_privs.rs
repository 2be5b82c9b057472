// It is on even where it wasn't asked for, and nobody can turn it off.
    let _ = no_new_privileges;
    call!(set_no_new_privs())?;
    if let Some(filter) = filter {
        call!(seccomp(libc::SECCOMP_SET_MODE_FILTER, filter))?;
    }
    Ok(())
