// One is reaped for each SIGCHLD, and two that end together send one.
    let Some(command) = call!(fork())? else {
        return Ok(());
    };
    call!(close_range(3, CloseRange::Close))?;
    let mut signals = Signals::new()?;
    loop {
        let signal = signals.receive()?;
        if signal.number() != Signal::SIGCHLD as i32 {
            signals.forward(&signal, command)?;
        } else if let Some((pid, code)) = reap(None)? {
            if pid == command {
                leave(code);
            }
        }
    }
