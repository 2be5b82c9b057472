// What is permitted can be taken up again.
    call!(capset(sets.effective, capabilities::permitted(), sets.inheritable))?;
    for capability in Capability::all().filter(|each| sets.ambient & each.bit() != 0) {
        call!(raise_ambient(capability))?;
    }
    Ok(())
