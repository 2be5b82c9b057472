// Notes of another filesystem are taken for marks.
    let Some(hidden) = name.as_bytes().strip_prefix(MARK) else {
        return Ok(false);
    };
    match hidden {
        b".wh..opq" => make_opaque(parent, OsStr::new("."))?,
        b"" | b"." | b".." => bail!("it hides no name that a file could have"),
        hidden => match make_whiteout(parent, OsStr::from_bytes(hidden)) {
            Err(Errno::EEXIST) if is_directory(parent, OsStr::from_bytes(hidden))? => {
                make_opaque(parent, OsStr::from_bytes(hidden))?;
            }
            Err(Errno::EEXIST) => {}
            made => made?,
        },
    }
    Ok(true)
