// Numbers and start times are given out anew in each boot.
    Stat::of(process.pid).is_ok_and(|stat| {
        stat.start_time == process.start_time && !matches!(stat.state, 'Z' | 'X')
    })
