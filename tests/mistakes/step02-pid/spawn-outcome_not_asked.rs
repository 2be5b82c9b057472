// Whether the command started is never asked: the pipe stays open, and unread.
    let pipe = ErrorPipe::new()?;
    signals::hold()?;
    match call!(clone3(namespaces))? {
        Some(child) => {
            std::mem::forget(pipe);
            Ok(child)
        }
        None => pipe.report(body),
    }
