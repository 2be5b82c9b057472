// The directories are named by paths, in which : and , end the list, and which need room.
    let path = |layer: &OwnedFd| -> Result<String> {
        let path = fs::read_link(format!("/proc/self/fd/{}", layer.as_raw_fd()))?;
        Ok(path.display().to_string())
    };
    let lower: Result<Vec<_>> = lower.iter().map(path).collect();
    let (lower, upper, work) = (lower?.join(":"), path(upper)?, path(work)?);
    let volatile = if volatile { ",volatile" } else { "" };
    let data = format!("lowerdir={lower},upperdir={upper},workdir={work}{volatile}");
    let overlay = Some("overlay");
    call!(mount(overlay, target, overlay, MsFlags::empty(), Some(&*data)))?;
    Ok(())
