// An error without errno: nobody can tell 126 from 127.
    let words = c_strings(command)?;
    let variables: Vec<_> = c_strings(environment)?.into_iter().map(Variable).collect();
    inherit_nothing()?;
    for path in candidates(&command[0], environment) {
        let path = CString::new(path)?;
        let _ = call!(execve(&path, &words, &variables));
    }
    bail!("{} can't be executed", command[0])
