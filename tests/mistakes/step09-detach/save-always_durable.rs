// Every record waits for the disk, also one that needn't survive.
    let _ = durable;
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().with_context(|| {
        let _ = fs::remove_file(&aside);
        path.display().to_string()
    })
