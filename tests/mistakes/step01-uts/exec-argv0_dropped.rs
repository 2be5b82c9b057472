// The first word is the program's name for itself, not its first argument.
    let words = c_strings(&command[1..])?;
    let variables: Vec<_> = c_strings(environment)?.into_iter().map(Variable).collect();
    inherit_nothing()?;
    let mut errno = Errno::ENOENT;
    for path in candidates(&command[0], environment) {
        let path = CString::new(path)?;
        let Err(refused) = call!(execve(&path, &words, &variables));
        errno = refused.errno();
        if errno != Errno::ENOENT {
            break;
        }
    }
    Err(Refused::new(format!("execve({:?})", command[0]), errno).into())
