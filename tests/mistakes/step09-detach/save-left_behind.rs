// After an error the new file stays where records are.
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(text)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&aside, path)?;
    Ok(())
