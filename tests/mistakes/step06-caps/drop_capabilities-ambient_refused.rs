// An ambient capability that the kernel refuses is left out, and nobody is told.
    call!(capset(sets.effective, sets.permitted, sets.inheritable))?;
    for capability in Capability::all().filter(|each| sets.ambient & each.bit() != 0) {
        let _ = call!(raise_ambient(capability));
    }
    Ok(())
