// Accept fails when a signal is handled meanwhile, and that is taken for a failure.
    door.tell(Progress::Waits)?;
    let socket = &door.socket;
    report_to(socket)?;
    let start = call!(accept(socket))?;
    report_to(&start)
