// With /proc/self/fd/ before each number the list of a deep image doesn't fit into a page.
    let path = |layer: &OwnedFd| format!("/proc/self/fd/{}", layer.as_raw_fd());
    let lower = lower.iter().map(path).collect::<Vec<_>>().join(":");
    let (upper, work) = (path(upper), path(work));
    let volatile = if volatile { ",volatile" } else { "" };
    let data = format!("lowerdir={lower},upperdir={upper},workdir={work}{volatile}");
    let overlay = Some("overlay");
    call!(mount(overlay, target, overlay, MsFlags::empty(), Some(&*data)))?;
    Ok(())
