// A signal for the container ends at PID 1.
    let Some(command) = call!(fork())? else {
        return Ok(());
    };
    call!(close_range(3, CloseRange::Close))?;
    let mut signals = Signals::new()?;
    loop {
        signals.receive()?;
        while let Some((pid, code)) = reap(None)? {
            if pid == command {
                leave(code);
            }
        }
    }
