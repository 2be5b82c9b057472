// The error names the file alone.
    for setting in settings {
        let file = folder.join(setting.file);
        let written = File::options().write(true).open(&file);
        let written = written.and_then(|mut file| file.write_all(setting.value.as_bytes()));
        match written {
            Err(error) if error.kind() == ErrorKind::NotFound && !setting.required => {}
            written => written.with_context(|| file.display().to_string())?,
        }
    }
    Ok(())
