// unshare without a flag makes nothing new.
    call!(unshare(CloneFlags::empty()))?;
    call!(sethostname(hostname))?;
    Ok(())
