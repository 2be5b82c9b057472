// It ends with the first setting that is passed over.
    for setting in settings {
        let file = folder.join(setting.file);
        let written = File::options().write(true).open(&file);
        let written = written.and_then(|mut file| file.write_all(setting.value.as_bytes()));
        match written {
            Err(error) if error.kind() == ErrorKind::NotFound && !setting.required => break,
            written => written.with_context(|| {
                let (controller, value) = (setting.controller, &setting.value);
                let file = file.display();
                format!("{}: the {controller} controller: {value:?} to {file}", setting.flag)
            })?,
        }
    }
    Ok(())
