// A new mount namespace is a copy whose mounts are still tied to the originals.
    Ok(())
