// PID 1 goes on until it has no child any more.
    let Some(command) = call!(fork())? else {
        return Ok(());
    };
    call!(close_range(3, CloseRange::Close))?;
    let mut signals = Signals::new()?;
    let mut own = None;
    loop {
        let signal = signals.receive()?;
        if signal.number() != Signal::SIGCHLD as i32 {
            signals.forward(&signal, command)?;
            continue;
        }
        while let Some((pid, code)) = reap(None)? {
            if pid == command {
                own = Some(code);
            }
        }
        // SAFETY: asks whether there is a child.
        let none = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } == -1;
        if let Some(code) = own.filter(|_| none) {
            leave(code);
        }
    }
