// The process keeps the pipe to create, which reads it until its end: nobody is let go before start.
    door.tell(Progress::Waits)?;
    let socket = &door.socket;
    let start = loop {
        match call!(accept(socket)) {
            Err(refused) if refused.errno() == Errno::EINTR => continue,
            accepted => break accepted?,
        }
    };
    report_to(&start)
