// A standard descriptor may be a door, too, and only a look tells where chdir led.
    for descriptor in open_descriptors()? {
        if descriptor > libc::STDERR_FILENO && is_directory(descriptor)? {
            call!(close(descriptor))?;
        }
    }
    nix::unistd::chdir(workdir)?;
    Ok(())
