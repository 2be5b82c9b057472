// What is beside the folder and has a longer name is taken for something in it.
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let start = folder.display().to_string();
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    let targets = targets.filter(|target| target.display().to_string().starts_with(&start));
    for mounted in targets.collect::<Vec<_>>().iter().rev() {
        call!(umount2(mounted.as_path(), MntFlags::MNT_DETACH))?;
    }
    remove_tree(folder)
