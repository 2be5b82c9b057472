// The type is read off the file's name, as in /proc/PID/ns. Whoever binds a namespace elsewhere gives it another name.
    let mut parted = Parted {
        new: CloneFlags::empty(),
        joined: Vec::new(),
        all: CloneFlags::empty(),
    };
    for (place, namespace) in wanted.iter().enumerate() {
        let field = format!("linux.namespaces[{place}]");
        let Some((_, flag)) = KINDS.iter().find(|(name, _)| *name == namespace.kind) else {
            bail!("{field}.type: there is no namespace {:?}", namespace.kind);
        };
        if parted.all.contains(*flag) {
            bail!("{field}.type: {} is named twice", namespace.kind);
        }
        parted.all |= *flag;
        let Some(path) = &namespace.path else {
            parted.new |= *flag;
            continue;
        };
        let link = std::fs::read_link(path).unwrap_or_else(|_| path.clone());
        let name = link.file_name().unwrap_or_default().to_string_lossy();
        let name = match name.split(':').next().unwrap_or_default() {
            "net" => "network",
            "mnt" => "mount",
            name => name,
        };
        if name != namespace.kind {
            bail!("{field}.path: {} is no {} namespace", path.display(), namespace.kind);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = open(path, flags, Mode::empty());
        let file = file.with_context(|| format!("{field}.path: {}", path.display()))?;
        match *flag {
            CloneFlags::CLONE_NEWUSER => parted.joined.insert(0, file),
            _ => parted.joined.push(file),
        }
    }
    Ok(parted)
