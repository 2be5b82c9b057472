// The name is on the disk before the contents are.
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(text)?;
        fs::rename(&aside, path)?;
        if durable {
            file.sync_all()?;
        }
        std::io::Result::Ok(())
    };
    write().with_context(|| {
        let _ = fs::remove_file(&aside);
        path.display().to_string()
    })
