// The working directory is changed while the doors are open.
    enter_workdir(workdir)?;
    for descriptor in open_descriptors()? {
        if descriptor > libc::STDERR_FILENO && is_directory(descriptor)? {
            call!(close(descriptor))?;
        }
    }
    Ok(())
