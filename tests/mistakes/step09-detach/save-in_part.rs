// write(2) says how much it took, and nobody looks.
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        let _taken = file.write(text)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&aside, path)
    };
    write().with_context(|| {
        let _ = fs::remove_file(&aside);
        path.display().to_string()
    })
