// An error of body's, or a panic, leaves the terminal raw.
    let before = tcgetattr(terminal)?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
    let value = body()?;
    tcsetattr(terminal, SetArg::TCSANOW, &before)?;
    Ok(value)
