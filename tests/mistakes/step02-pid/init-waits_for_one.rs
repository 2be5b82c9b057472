// Orphans that have ended stay: nobody takes their exit code.
    let Some(command) = call!(fork())? else {
        return Ok(());
    };
    call!(close_range(3, CloseRange::Close))?;
    let mut signals = Signals::new()?;
    loop {
        let signal = signals.receive()?;
        if signal.number() != Signal::SIGCHLD as i32 {
            signals.forward(&signal, command)?;
        } else if let Some((_, code)) = reap(Some(command))? {
            leave(code);
        }
    }
