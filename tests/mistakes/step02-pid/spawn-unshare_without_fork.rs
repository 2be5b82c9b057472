// The caller of unshare stays where it is: only its children are born in the new PID namespace.
    let pipe = ErrorPipe::new()?;
    signals::hold()?;
    nix::sched::unshare(namespaces)?;
    pipe.report(body)
