// What make_ready does is on the host's account.
    let process = make_ready()?;
    for (path, mut group) in prison.groups.iter().map(|(path, file)| (path, file)) {
        let joined = group.write_all(b"0");
        joined.with_context(|| format!("0 to {}", path.display()))?;
    }
    set_rlimits(&prison.rlimits)?;
    confine(&process)
