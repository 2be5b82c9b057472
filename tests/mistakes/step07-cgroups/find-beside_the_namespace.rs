// A mount that leads up from the cgroup namespace, and down again beside the caller, is taken for one above it.
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
        let root = unescaped(root);
        let shows_us = Path::new(&group).starts_with(&root) || root.starts_with("/..");
        (is_it && shows_us).then(|| (root.as_os_str().len(), unescaped(target)))
    });
    let (_, top) = mounts.min_by_key(|(root, _)| *root)?;
    Some((top, version))
