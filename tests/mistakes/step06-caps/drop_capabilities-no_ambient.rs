// The fifth set isn't looked at.
    call!(capset(sets.effective, sets.permitted, sets.inheritable))?;
    Ok(())
