// Nothing is closed before an execve that may never come.
    call!(setsid())?;
    call!(chdir("/"))?;
    for descriptor in open_descriptors()? {
        if descriptor > libc::STDERR_FILENO && !keep.contains(&descriptor) {
            // SAFETY: takes integers.
            Errno::result(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        }
    }
    let null = call!(open("/dev/null", OFlag::O_RDWR, Mode::empty()))?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
