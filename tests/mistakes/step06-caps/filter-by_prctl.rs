// The older call takes no flags.
    if no_new_privileges {
        call!(set_no_new_privs())?;
    }
    if let Some(filter) = filter {
        let program = libc::sock_fprog {
            len: filter.instructions().len() as libc::c_ushort,
            filter: filter.instructions().as_ptr().cast_mut(),
        };
        // SAFETY: the kernel reads as many instructions as there are.
        let result = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        Errno::result(result)?;
    }
    Ok(())
