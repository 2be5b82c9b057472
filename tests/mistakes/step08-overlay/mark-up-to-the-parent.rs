// The name .. is there already, and a directory: it is made opaque, and it isn't this one.
    let Some(hidden) = name.as_bytes().strip_prefix(MARK) else {
        return Ok(false);
    };
    match hidden {
        b".wh..opq" => make_opaque(parent, OsStr::new("."))?,
        notes if notes.starts_with(MARK) => {}
        hidden => {
            let hidden = OsStr::from_bytes(hidden);
            match make_whiteout(parent, hidden) {
                Err(Errno::EEXIST) if is_directory(parent, hidden)? => make_opaque(parent, hidden)?,
                Err(Errno::EEXIST) => {}
                made => made?,
            }
        }
    }
    Ok(true)
