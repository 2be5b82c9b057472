// The old window still shows the host.
    Ok(())
