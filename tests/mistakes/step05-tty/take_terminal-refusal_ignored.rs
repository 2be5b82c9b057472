// Whoever leads a session already begins none, and isn't told.
    let _ = call!(setsid());
    call!(set_controlling_terminal(terminal))?;
    Ok(())
