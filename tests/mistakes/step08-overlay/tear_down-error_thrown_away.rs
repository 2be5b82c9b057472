// A mount that doesn't go is passed over, and its files are removed.
    for mounted in mounted_below(folder)?.iter().rev() {
        let _ = call!(umount2(mounted.as_path(), MntFlags::empty()));
    }
    let _ = fs::remove_dir_all(folder);
    Ok(())
