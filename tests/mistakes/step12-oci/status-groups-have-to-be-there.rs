// A container whose groups are gone can't be looked at any more.
    let Some(process) = process else {
        return Ok(Status::Creating);
    };
    // The process is looked at last: what the others said of one that has ended meanwhile doesn't count.
    let (progress, frozen) = (progress_of(progress)?, groups.is_frozen()?);
    Ok(match (is_running(process), frozen, progress) {
        (false, ..) => Status::Stopped,
        (true, true, _) => Status::Paused,
        (true, false, Progress::MadeReady) => Status::Creating,
        (true, false, Progress::Waits) => Status::Created,
        (true, false, Progress::Gone) => Status::Running,
    })
