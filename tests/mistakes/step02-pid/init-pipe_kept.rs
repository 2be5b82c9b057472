// The error pipe stays open in PID 1, and the parent waits for its end.
    let Some(command) = call!(fork())? else {
        return Ok(());
    };
    let mut signals = Signals::new()?;
    loop {
        let signal = signals.receive()?;
        if signal.number() != Signal::SIGCHLD as i32 {
            signals.forward(&signal, command)?;
            continue;
        }
        while let Some((pid, code)) = reap(None)? {
            if pid == command {
                leave(code);
            }
        }
    }
