// Start is let in and told nothing: its connection is closed, which says that all is well.
    door.tell(Progress::Waits)?;
    let socket = &door.socket;
    report_to(socket)?;
    let start = loop {
        match call!(accept(socket)) {
            Err(refused) if refused.errno() == Errno::EINTR => continue,
            accepted => break accepted?,
        }
    };
    drop(start);
    Ok(())
