// Whatever the answer, the next directory is asked: that a file was there and no program is forgotten.
    let words = c_strings(command)?;
    let variables: Vec<_> = c_strings(environment)?.into_iter().map(Variable).collect();
    inherit_nothing()?;
    for path in candidates(&command[0], environment) {
        let path = CString::new(path)?;
        let Err(_) = call!(execve(&path, &words, &variables));
    }
    Err(Refused::new(format!("execve({:?})", command[0]), Errno::ENOENT).into())
