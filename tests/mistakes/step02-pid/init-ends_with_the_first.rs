// PID 1 ends with the first child, and takes all others with it.
    let Some(command) = call!(fork())? else {
        return Ok(());
    };
    call!(close_range(3, CloseRange::Close))?;
    let mut signals = Signals::new()?;
    loop {
        let signal = signals.receive()?;
        if signal.number() != Signal::SIGCHLD as i32 {
            signals.forward(&signal, command)?;
        } else if let Some((_, code)) = reap(None)? {
            leave(code);
        }
    }
