// volatile is asked for always.
    let (upper, work) = (upper.as_raw_fd(), work.as_raw_fd());
    let _ = volatile;
    let data = format!("lowerdir={},upperdir={upper},workdir={work},volatile", by_numbers(lower));
    let overlay = Some("overlay");
    among_descriptors(|| call!(mount(overlay, target, overlay, MsFlags::empty(), Some(&*data))))
