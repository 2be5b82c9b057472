// The terminal first, and the session then: it has none.
    call!(set_controlling_terminal(terminal))?;
    call!(setsid())?;
    Ok(())
