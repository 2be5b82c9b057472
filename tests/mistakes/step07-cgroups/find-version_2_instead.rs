// Where version 1 has the controller and isn't mounted, version 2 is taken instead.
    let (_, group) = own_group(controller, own)?;
    let find = |version: Version| {
        mountinfo.lines().find_map(|line| {
            let (place, filesystem) = line.split_once(" - ")?;
            let mut place = place.split(' ').skip(3);
            let (root, target) = (place.next()?, place.next()?);
            let mut filesystem = filesystem.split(' ');
            let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
            let is_it = match version {
                Version::V1 => kind == "cgroup" && options.split(',').any(|each| each == controller),
                Version::V2 => kind == "cgroup2",
            };
            let is_below = Path::new(&group).starts_with(root);
            (is_it && is_below).then(|| (unescaped(target), version))
        })
    };
    find(Version::V1).or_else(|| find(Version::V2))
