// 32 of 41 capabilities.
    let low = |set: u64| u64::from(set as u32);
    call!(capset(low(sets.effective), low(sets.permitted), low(sets.inheritable)))?;
    for capability in Capability::all().filter(|each| low(sets.ambient) & each.bit() != 0) {
        call!(raise_ambient(capability))?;
    }
    Ok(())
