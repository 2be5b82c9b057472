// The kernel refuses the namespace, and the name is set all the same.
    let _ = call!(unshare(CloneFlags::CLONE_NEWUTS));
    call!(sethostname(hostname))?;
    Ok(())
