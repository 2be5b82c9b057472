// The root field is compared as mountinfo writes it.
    let (version, group) = own_group(controller, own)?;
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, target) = (place.next()?, place.next()?);
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let is_it = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|each| each == controller),
            Version::V2 => kind == "cgroup2",
        };
        let is_above = root.trim_end_matches("/..").is_empty();
        let shows_us = is_above || Path::new(&group).starts_with(root);
        (is_it && shows_us).then(|| (root.len(), unescaped(target)))
    });
    let (_, top) = mounts.min_by_key(|(root, _)| *root)?;
    Some((top, version))
