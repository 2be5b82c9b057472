// What mounts() says is thrown away.
    call!(chdir(new_root))?;
    call!(pivot_root(".", "."))?;
    let _ = mounts();
    call!(umount2(".", MntFlags::MNT_DETACH))?;
    Ok(())
