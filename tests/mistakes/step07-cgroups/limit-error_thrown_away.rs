// What the kernel says to a value is thrown away.
    for setting in settings {
        let file = folder.join(setting.file);
        match File::options().write(true).open(&file) {
            Ok(mut file) => drop(file.write_all(setting.value.as_bytes())),
            Err(error) if error.kind() == ErrorKind::NotFound && !setting.required => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    let (controller, value) = (setting.controller, &setting.value);
                    let file = file.display();
                    format!("{}: the {controller} controller: {value:?} to {file}", setting.flag)
                });
            }
        }
    }
    Ok(())
