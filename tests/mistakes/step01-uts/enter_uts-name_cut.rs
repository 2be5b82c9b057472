// A name that is too long is made shorter.
    call!(unshare(CloneFlags::CLONE_NEWUTS))?;
    let hostname = &hostname[..hostname.len().min(64)];
    call!(sethostname(hostname))?;
    Ok(())
