// The first directory of PATH hasn't got it, and nobody asks the next.
    let words = c_strings(command)?;
    let variables: Vec<_> = c_strings(environment)?.into_iter().map(Variable).collect();
    inherit_nothing()?;
    let path = CString::new(candidates(&command[0], environment).remove(0))?;
    Ok(call!(execve(&path, &words, &variables))?)
