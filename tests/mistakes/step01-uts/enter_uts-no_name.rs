// A namespace that begins with the host's name, and keeps it.
    let _ = hostname;
    call!(unshare(CloneFlags::CLONE_NEWUTS))?;
    Ok(())
