// The pipe by which the child reports is closed, too.
    for descriptor in open_descriptors()? {
        if descriptor > libc::STDERR_FILENO {
            call!(close(descriptor))?;
        }
    }
    enter_workdir(workdir)
