// The name is made a text, which changes it where it is none.
    let name = name.to_string_lossy();
    let Some(hidden) = name.strip_prefix(".wh.") else {
        return Ok(false);
    };
    match hidden {
        ".wh..opq" => make_opaque(parent, OsStr::new("."))?,
        notes if notes.starts_with(".wh.") => {}
        "" | "." | ".." => bail!("it hides no name that a file could have"),
        hidden => match make_whiteout(parent, OsStr::new(hidden)) {
            Err(Errno::EEXIST) if is_directory(parent, OsStr::new(hidden))? => {
                make_opaque(parent, OsStr::new(hidden))?;
            }
            Err(Errno::EEXIST) => {}
            made => made?,
        },
    }
    Ok(true)
