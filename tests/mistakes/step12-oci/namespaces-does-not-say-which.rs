// The error says what is wrong, and not which of ten entries is.
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
        let Some(path) = namespace
            .path
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty())
        else {
            parted.new |= *flag;
            continue;
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = open(path, flags, Mode::empty());
        let file = file.with_context(|| path.display().to_string())?;
        if kind_of(&file) != Some(*flag) {
            let (kind, path) = (&namespace.kind, path.display());
            bail!("{path} is no {kind} namespace");
        }
        match *flag {
            CloneFlags::CLONE_NEWUSER => parted.joined.insert(0, file),
            _ => parted.joined.push(file),
        }
    }
    Ok(parted)
