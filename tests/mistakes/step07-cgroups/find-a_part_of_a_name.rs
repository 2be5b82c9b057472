// The controller is looked for in the text of the options: cpu is found in cpuset.
    let (version, group) = own_group(controller, own)?;
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, target) = (place.next()?, place.next()?);
        let is_it = match version {
            Version::V1 => filesystem.starts_with("cgroup ") && filesystem.contains(controller),
            Version::V2 => filesystem.starts_with("cgroup2 "),
        };
        (is_it && Path::new(&group).starts_with(root)).then(|| unescaped(target))
    });
    mounts.into_iter().next().map(|top| (top, version))
