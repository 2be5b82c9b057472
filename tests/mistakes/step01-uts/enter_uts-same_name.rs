// The host has the name already, and nothing seems left to do.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    if host.trim() != hostname {
        call!(unshare(CloneFlags::CLONE_NEWUTS))?;
        call!(sethostname(hostname))?;
    }
    Ok(())
