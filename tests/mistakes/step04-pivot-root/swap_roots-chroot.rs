// chroot changes where a path begins, and leaves every mount where it is.
    nix::unistd::chroot(new_root)?;
    call!(chdir("/"))?;
    mounts()
