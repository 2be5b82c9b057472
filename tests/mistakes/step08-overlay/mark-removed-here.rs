// What this layer has is removed. It is the layers below that have it.
    let Some(hidden) = name.as_bytes().strip_prefix(MARK) else {
        return Ok(false);
    };
    match hidden {
        b".wh..opq" => make_opaque(parent, OsStr::new("."))?,
        notes if notes.starts_with(MARK) => {}
        b"" | b"." | b".." => bail!("it hides no name that a file could have"),
        hidden => {
            let flags = nix::unistd::UnlinkatFlags::NoRemoveDir;
            let _ = nix::unistd::unlinkat(parent, OsStr::from_bytes(hidden), flags);
        }
    }
    Ok(true)
