// make_ready takes over the limits of PID 1, in the place of the container's own.
    for (path, mut group) in prison.groups.iter().map(|(path, file)| (path, file)) {
        let joined = group.write_all(b"0");
        joined.with_context(|| format!("0 to {}", path.display()))?;
    }
    set_rlimits(&prison.rlimits)?;
    let process = make_ready()?;
    confine(&process)
