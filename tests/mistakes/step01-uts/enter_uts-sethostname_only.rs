// The host is renamed: no namespace was made.
    call!(sethostname(hostname))?;
    Ok(())
