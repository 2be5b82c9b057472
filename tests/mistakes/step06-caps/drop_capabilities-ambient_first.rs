// What isn't inheritable yet can't become ambient.
    for capability in Capability::all().filter(|each| sets.ambient & each.bit() != 0) {
        call!(raise_ambient(capability))?;
    }
    call!(capset(sets.effective, sets.permitted, sets.inheritable))?;
    Ok(())
