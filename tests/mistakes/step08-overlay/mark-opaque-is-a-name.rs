// .wh..wh..opq is taken for a mark that hides the file .wh..opq.
    let Some(hidden) = name.as_bytes().strip_prefix(MARK) else {
        return Ok(false);
    };
    match hidden {
        b"" | b"." | b".." => bail!("it hides no name that a file could have"),
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
