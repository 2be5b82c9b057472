// The new root is laid over the old one.
    call!(chdir(new_root))?;
    let none = None::<&str>;
    call!(mount(Some("."), "/", none, MsFlags::MS_MOVE, none))?;
    use nix::unistd::chroot;
    call!(chroot("."))?;
    call!(chdir("/"))?;
    mounts()?;
    Ok(())
