// Options that nobody asked for: copied up are only names and modes.
    let (upper, work) = (upper.as_raw_fd(), work.as_raw_fd());
    let volatile = if volatile { ",volatile" } else { "" };
    let data = format!(
        "lowerdir={},upperdir={upper},workdir={work},metacopy=on{volatile}",
        by_numbers(lower)
    );
    let overlay = Some("overlay");
    among_descriptors(|| call!(mount(overlay, target, overlay, MsFlags::MS_NOSUID, Some(&*data))))
