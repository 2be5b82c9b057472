// Whatever the kernel says to a whiteout is taken for EEXIST.
    let Some(hidden) = name.as_bytes().strip_prefix(MARK) else {
        return Ok(false);
    };
    match hidden {
        b".wh..opq" => make_opaque(parent, OsStr::new("."))?,
        notes if notes.starts_with(MARK) => {}
        b"" | b"." | b".." => bail!("it hides no name that a file could have"),
        hidden => {
            let hidden = OsStr::from_bytes(hidden);
            if make_whiteout(parent, hidden).is_err() && is_directory(parent, hidden).unwrap_or(false) {
                make_opaque(parent, hidden)?;
            }
        }
    }
    Ok(true)
