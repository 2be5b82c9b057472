// The mounts go in the order in which they were made.
    for mounted in mounted_below(folder)? {
        call!(umount2(mounted.as_path(), MntFlags::empty()))?;
    }
    remove_tree(folder)
