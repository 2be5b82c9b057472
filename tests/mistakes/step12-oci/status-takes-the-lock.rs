// The lock is taken to see whether it is free: whoever looks at the same moment sees a process that isn't there.
    let Some(process) = process else {
        return Ok(Status::Creating);
    };
    // The process is looked at last: what the others said of one that has ended meanwhile doesn't count.
    let file = std::fs::File::options().read(true).write(true).open(progress)?;
    let takes = |kind| {
        use nix::fcntl::{FcntlArg, fcntl};
        fcntl(&file, FcntlArg::F_OFD_SETLK(&door::lock(kind, (0, 0)))).is_ok()
    };
    let progress = match (takes(libc::F_RDLCK), takes(libc::F_WRLCK)) {
        (false, _) => Progress::Waits,
        (true, false) => Progress::MadeReady,
        (true, true) => Progress::Gone,
    };
    let frozen = groups.is_frozen().unwrap_or(false);
    Ok(match (is_running(process), frozen, progress) {
        (false, ..) => Status::Stopped,
        (true, true, _) => Status::Paused,
        (true, false, Progress::MadeReady) => Status::Creating,
        (true, false, Progress::Waits) => Status::Created,
        (true, false, Progress::Gone) => Status::Running,
    })
