// The parent becomes the command, too.
    let pipe = ErrorPipe::new()?;
    signals::hold()?;
    match call!(clone3(namespaces))? {
        Some(_child) => match body()? {},
        None => pipe.report(body),
    }
