// execve takes a path and no name: it doesn't look through PATH.
    let words = c_strings(command)?;
    let variables: Vec<_> = c_strings(environment)?.into_iter().map(Variable).collect();
    inherit_nothing()?;
    let path = CString::new(command[0].as_str())?;
    Ok(call!(execve(&path, &words, &variables))?)
