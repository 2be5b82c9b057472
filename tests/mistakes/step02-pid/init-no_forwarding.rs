// A signal for the container ends at PID 1.
    let Some(command) = call!(clone3(CloneFlags::empty()))? else {
        return Ok(());
    };
    call!(close_range(3, CloseRange::Close))?;
    let mut signals = Signals::new()?;
    loop {
        signals.receive()?;
        while let Some((pid, code)) = reap(None)? {
            if pid == command.pid {
                leave(code);
            }
        }
    }
