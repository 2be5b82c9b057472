// The process waits, and its lock still says that it is being made ready.
    let socket = &door.socket;
    report_to(socket)?;
    let start = loop {
        match call!(accept(socket)) {
            Err(refused) if refused.errno() == Errno::EINTR => continue,
            accepted => break accepted?,
        }
    };
    report_to(&start)
