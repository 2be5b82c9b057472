// Without such a directory there is nothing to do.
    for mounted in mounted_below(folder)?.iter().rev() {
        call!(umount2(mounted.as_path(), MntFlags::MNT_DETACH))?;
    }
    Ok(fs::remove_dir_all(folder)?)
