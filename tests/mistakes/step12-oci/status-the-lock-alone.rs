// Who has no lock runs, whoever that is: a process that was killed has none, either.
    let Some(process) = process else {
        return Ok(Status::Creating);
    };
    // The process is looked at last: what the others said of one that has ended meanwhile doesn't count.
    let (progress, frozen) = (progress_of(progress)?, groups.is_frozen().unwrap_or(false));
    Ok(match (true, frozen, progress) {
        (false, ..) => Status::Stopped,
        (true, true, _) => Status::Paused,
        (true, false, Progress::MadeReady) => Status::Creating,
        (true, false, Progress::Waits) => Status::Created,
        (true, false, Progress::Gone) => Status::Running,
    })
