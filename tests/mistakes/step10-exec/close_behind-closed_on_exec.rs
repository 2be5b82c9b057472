// The doors are open until the execve, and workdir leads through them before.
    for descriptor in open_descriptors()? {
        if descriptor > libc::STDERR_FILENO && is_directory(descriptor)? {
            // SAFETY: takes integers.
            let marked = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
            nix::errno::Errno::result(marked)?;
        }
    }
    enter_workdir(workdir)
