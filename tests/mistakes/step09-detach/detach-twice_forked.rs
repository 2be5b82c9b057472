// As daemons did it: the process that was called ends, and its child goes on in its place.
    if step02_pid::fork()?.is_some() {
        step02_pid::leave(0);
    }
    call!(setsid())?;
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
