// A zombie is the same process, and has ended.
    if boot_id().ok().as_ref() != Some(&process.boot_id) {
        return false;
    }
    Stat::of(process.pid).is_ok_and(|stat| stat.start_time == process.start_time)
