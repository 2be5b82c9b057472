// x.wh.y is taken for a mark.
    let Some(at) = name.as_bytes().windows(MARK.len()).position(|part| part == MARK) else {
        return Ok(false);
    };
    match &name.as_bytes()[at + MARK.len()..] {
        b".wh..opq" => make_opaque(parent, OsStr::new("."))?,
        notes if notes.starts_with(MARK) => {}
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
