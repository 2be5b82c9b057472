// First create is let go, and then the lock tells that the process waits: whoever is quick finds it unready.
    let socket = &door.socket;
    report_to(socket)?;
    door.tell(Progress::Waits)?;
    let start = loop {
        match call!(accept(socket)) {
            Err(refused) if refused.errno() == Errno::EINTR => continue,
            accepted => break accepted?,
        }
    };
    report_to(&start)
