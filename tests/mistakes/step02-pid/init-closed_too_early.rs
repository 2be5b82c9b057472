// The descriptors are closed while there is one process still: the command's is to have them.
    hide()?;
    forget_environment()?;
    call!(close_range(3, CloseRange::Close))?;
    let command = match call!(fork())? {
        Some(command) => command,
        None => return Ok(()),
    };
    let mut signals = Signals::new()?;
    loop {
        let signal = signals.receive()?;
        if signal.number() != Signal::SIGCHLD as i32 {
            signals.forward(&signal, command)?;
        }
        while let Some((ended, code)) = reap(None)? {
            if ended == command {
                leave(code);
            }
        }
    }
