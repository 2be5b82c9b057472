// What is open by accident is open in the command, too, and SIGPIPE is ignored.
    let words = c_strings(command)?;
    let variables: Vec<_> = c_strings(environment)?.into_iter().map(Variable).collect();
    let mut last = Errno::ENOENT;
    for path in candidates(&command[0], environment) {
        let path = CString::new(path)?;
        let Err(refused) = call!(execve(&path, &words, &variables));
        match refused.errno() {
            Errno::ENOENT => continue,
            Errno::EACCES => last = Errno::EACCES,
            other => return Err(Refused::new(command[0].clone(), other).into()),
        }
    }
    Err(Refused::new(format!("execve({:?})", command[0]), last).into())
