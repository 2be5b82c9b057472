// A session by itself has no terminal.
    let _ = terminal;
    call!(setsid())?;
    Ok(())
