// A process with that number is taken for the container's: kill(pid, 0) finds zombies, and strangers.
    let Some(process) = process else {
        return Ok(Status::Creating);
    };
    // The process is looked at last: what the others said of one that has ended meanwhile doesn't count.
    let (progress, frozen) = (progress_of(progress)?, groups.is_frozen().unwrap_or(false));
    Ok(match (nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), None).is_ok(), frozen, progress) {
        (false, ..) => Status::Stopped,
        (true, true, _) => Status::Paused,
        (true, false, Progress::MadeReady) => Status::Creating,
        (true, false, Progress::Waits) => Status::Created,
        (true, false, Progress::Gone) => Status::Running,
    })
