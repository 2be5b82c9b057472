// The mounts come when the old root has gone.
    call!(chdir(new_root))?;
    call!(pivot_root(".", "."))?;
    call!(umount2(".", MntFlags::MNT_DETACH))?;
    mounts()?;
    Ok(())
