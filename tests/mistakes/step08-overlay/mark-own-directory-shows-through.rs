// A directory of this layer shows what the hidden one below has.
    let Some(hidden) = name.as_bytes().strip_prefix(MARK) else {
        return Ok(false);
    };
    match hidden {
        b".wh..opq" => make_opaque(parent, OsStr::new("."))?,
        notes if notes.starts_with(MARK) => {}
        b"" | b"." | b".." => bail!("it hides no name that a file could have"),
        hidden => {
            match make_whiteout(parent, OsStr::from_bytes(hidden)) {
                Err(Errno::EEXIST) => {}
                made => made?,
            }
        }
    }
    Ok(true)
