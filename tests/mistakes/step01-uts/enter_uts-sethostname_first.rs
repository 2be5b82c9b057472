// The host is renamed, and then copied.
    call!(sethostname(hostname))?;
    call!(unshare(CloneFlags::CLONE_NEWUTS))?;
    Ok(())
