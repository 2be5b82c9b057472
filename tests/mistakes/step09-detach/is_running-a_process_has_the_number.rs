// Whether a process has the number is all that kill says.
    // SAFETY: takes integers.
    unsafe { libc::kill(process.pid, 0) == 0 }
