// The host's own mounts are changed, and then copied.
    let original = OwnedFd::from(fs::File::open(source)?);
    call!(mount_setattr(&original, attributes))?;
    Ok(call!(open_tree(source))?)
