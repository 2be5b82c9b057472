// Whether there is a new session isn't looked at.
    let _ = setsid();
    call!(chdir("/"))?;
    for descriptor in open_descriptors()? {
        if descriptor > libc::STDERR_FILENO && !keep.contains(&descriptor) {
            call!(close(descriptor))?;
        }
    }
    let null = call!(open("/dev/null", OFlag::O_RDWR, Mode::empty()))?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
