// waitpid tells whether a child has ended, and takes its exit code.
    if boot_id().ok().as_ref() != Some(&process.boot_id) {
        return false;
    }
    // SAFETY: without a place for it no status is written.
    unsafe { libc::waitpid(process.pid, std::ptr::null_mut(), libc::WNOHANG) };
    Stat::of(process.pid).is_ok_and(|stat| {
        stat.start_time == process.start_time && !matches!(stat.state, 'Z' | 'X')
    })
