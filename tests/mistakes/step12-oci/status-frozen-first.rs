// Frozen groups are taken for a paused container: an empty group can be frozen, too.
    let Some(process) = process else {
        return Ok(Status::Creating);
    };
    // The process is looked at last: what the others said of one that has ended meanwhile doesn't count.
    let (progress, frozen) = (progress_of(progress)?, groups.is_frozen().unwrap_or(false));
    Ok(match (is_running(process), frozen, progress) {
        (_, true, _) => Status::Paused,
        (false, ..) => Status::Stopped,
        (true, false, Progress::MadeReady) => Status::Creating,
        (true, false, Progress::Waits) => Status::Created,
        (true, false, Progress::Gone) => Status::Running,
    })
