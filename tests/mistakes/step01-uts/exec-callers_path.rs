// The program is looked for in the PATH of this process.
    let words = c_strings(command)?;
    let variables: Vec<_> = c_strings(environment)?.into_iter().map(Variable).collect();
    inherit_nothing()?;
    let own = [format!("PATH={}", std::env::var("PATH").unwrap_or_default())];
    let mut errno = Errno::ENOENT;
    for path in candidates(&command[0], &own) {
        let path = CString::new(path)?;
        let Err(refused) = call!(execve(&path, &words, &variables));
        match refused.errno() {
            Errno::ENOENT | Errno::ENOTDIR if !command[0].contains('/') => continue,
            Errno::EACCES => errno = Errno::EACCES,
            other => {
                errno = other;
                break;
            }
        }
    }
    Err(Refused::new(format!("execve({:?})", command[0]), errno).into())
