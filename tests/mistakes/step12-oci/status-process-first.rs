// The process is looked at, and then its lock: what has ended in between has let go of it, as a command does.
    let Some(process) = process else {
        return Ok(Status::Creating);
    };
    let lives = is_running(process);
    let (progress, frozen) = (progress_of(progress)?, groups.is_frozen().unwrap_or(false));
    Ok(match (lives, frozen, progress) {
        (false, ..) => Status::Stopped,
        (true, true, _) => Status::Paused,
        (true, false, Progress::MadeReady) => Status::Creating,
        (true, false, Progress::Waits) => Status::Created,
        (true, false, Progress::Gone) => Status::Running,
    })
