// For a moment nobody has the name.
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(text)?;
    if durable {
        file.sync_all()?;
    }
    let _ = fs::remove_file(path);
    fs::rename(&aside, path)?;
    Ok(())
