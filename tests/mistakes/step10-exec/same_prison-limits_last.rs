// A process that is confined may not be able to set limits.
    for (path, mut group) in prison.groups.iter().map(|(path, file)| (path, file)) {
        let joined = group.write_all(b"0");
        joined.with_context(|| format!("0 to {}", path.display()))?;
    }
    let process = make_ready()?;
    confine(&process)?;
    set_rlimits(&prison.rlimits)
