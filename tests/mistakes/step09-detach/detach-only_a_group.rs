// A process group of its own, in the session of the caller's terminal.
    nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
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
