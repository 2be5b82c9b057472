// The child that failed is asked for once, and is still on its way to its end.
    let pipe = ErrorPipe::new()?;
    signals::hold()?;
    let Some(child) = call!(clone3(namespaces))? else {
        pipe.report(body)
    };
    match pipe.outcome() {
        Ok(()) => Ok(child),
        Err(error) => reap(Some(child.pid)).and(Err(error)),
    }
