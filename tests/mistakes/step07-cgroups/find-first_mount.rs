// The first mount of the hierarchy is taken, whatever part of it that shows.
    let (version, _) = own_group(controller, own)?;
    let mut mounts = mountinfo.lines().filter_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let target = place.split(' ').nth(4)?;
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let is_it = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|each| each == controller),
            Version::V2 => kind == "cgroup2",
        };
        is_it.then(|| unescaped(target))
    });
    mounts.next().map(|top| (top, version))
