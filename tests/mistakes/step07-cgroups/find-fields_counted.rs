// The fields are counted from the left, as if every line had one tag.
    let (version, group) = own_group(controller, own)?;
    let mounts = mountinfo.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let dash = fields.iter().position(|field| *field == "-")?.min(7);
        let (kind, options) = (*fields.get(dash + 1)?, *fields.get(dash + 3)?);
        let is_it = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|each| each == controller),
            Version::V2 => kind == "cgroup2",
        };
        let is_below = Path::new(&group).starts_with(fields[3]);
        (is_it && is_below).then(|| unescaped(fields[4]))
    });
    mounts.into_iter().next().map(|top| (top, version))
