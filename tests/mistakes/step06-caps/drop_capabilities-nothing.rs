// Somebody believes that the bounding set was all.
    let _ = sets;
    Ok(())
