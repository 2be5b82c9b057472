// The caller is in its parent's session.
    call!(set_controlling_terminal(terminal))?;
    Ok(())
