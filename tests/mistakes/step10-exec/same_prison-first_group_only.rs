// Each hierarchy has a group of the container's.
    if let Some((path, mut group)) = prison.groups.first().map(|(path, file)| (path, file)) {
        let joined = group.write_all(b"0");
        joined.with_context(|| format!("0 to {}", path.display()))?;
    }
    let process = make_ready()?;
    set_rlimits(&prison.rlimits)?;
    confine(&process)
