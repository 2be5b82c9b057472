// The file that has the name is the one that is written: for a while it is empty, then half of it.
    let mut file = File::create(path)?;
    file.write_all(text)?;
    if durable {
        file.sync_all()?;
    }
    Ok(())
