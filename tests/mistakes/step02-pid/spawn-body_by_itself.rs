// An error of the child's goes back into the parent's code, in the child.
    let pipe = ErrorPipe::new()?;
    signals::hold()?;
    match call!(clone3(namespaces))? {
        Some(child) => match pipe.outcome() {
            Ok(()) => Ok(child),
            Err(error) => {
                child.wait()?;
                Err(error)
            }
        },
        None => match body()? {},
    }
