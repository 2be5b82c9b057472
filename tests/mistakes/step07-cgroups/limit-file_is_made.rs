// std::fs::write makes a file that isn't there. In a control group that fails, and not with ENOENT.
    for setting in settings {
        let file = folder.join(setting.file);
        match std::fs::write(&file, &setting.value) {
            Err(error) if error.kind() == ErrorKind::NotFound && !setting.required => {}
            written => written.with_context(|| {
                let (controller, value) = (setting.controller, &setting.value);
                let file = file.display();
                format!("{}: the {controller} controller: {value:?} to {file}", setting.flag)
            })?,
        }
    }
    Ok(())
