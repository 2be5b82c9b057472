// For a setting that isn't required every error is nothing.
    for setting in settings {
        let file = folder.join(setting.file);
        let written = File::options().write(true).open(&file);
        let written = written.and_then(|mut file| file.write_all(setting.value.as_bytes()));
        if !setting.required {
            continue;
        }
        written.with_context(|| {
            let (controller, value) = (setting.controller, &setting.value);
            let file = file.display();
            format!("{}: the {controller} controller: {value:?} to {file}", setting.flag)
        })?;
    }
    Ok(())
