// The caller's own group is put behind the mount point. The folder of the hierarchy is the mount point itself.
    let (version, group) = own_group(controller, own)?;
    for line in mountinfo.lines() {
        let (place, filesystem) = line.split_once(" - ")?;
        let target = unescaped(place.split(' ').nth(4)?);
        let root = place.split(' ').nth(3)?;
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let is_it = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|each| each == controller),
            Version::V2 => kind == "cgroup2",
        };
        if let (true, Ok(below)) = (is_it, Path::new(&group).strip_prefix(root)) {
            return Some((target.join(below), version));
        }
    }
    None
