// The layers are named from the lowest on.
    let (upper, work) = (upper.as_raw_fd(), work.as_raw_fd());
    let mut numbers: Vec<_> = lower.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    numbers.reverse();
    let lower = numbers.join(":");
    let volatile = if volatile { ",volatile" } else { "" };
    let data = format!("lowerdir={lower},upperdir={upper},workdir={work}{volatile}");
    let overlay = Some("overlay");
    among_descriptors(|| call!(mount(overlay, target, overlay, MsFlags::empty(), Some(&*data))))
