// The loopback of a new network namespace is down.
    Ok(())
