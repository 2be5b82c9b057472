// The caller stays in /proc/self/fd.
    let (upper, work) = (upper.as_raw_fd(), work.as_raw_fd());
    let volatile = if volatile { ",volatile" } else { "" };
    let data = format!("lowerdir={},upperdir={upper},workdir={work}{volatile}", by_numbers(lower));
    let overlay = Some("overlay");
    call!(chdir("/proc/self/fd"))?;
    call!(mount(overlay, target, overlay, MsFlags::empty(), Some(&*data)))?;
    Ok(())
