// A panic leaves the terminal raw.
    let before = tcgetattr(terminal)?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
    let ended = body();
    tcsetattr(terminal, SetArg::TCSANOW, &before)?;
    ended
