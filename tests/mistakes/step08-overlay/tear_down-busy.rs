// A mount that is in use stays.
    for mounted in mounted_below(folder)?.iter().rev() {
        call!(umount2(mounted.as_path(), MntFlags::empty()))?;
    }
    remove_tree(folder)
