// It sleeps too long, and looks too late.
    let Some(pidfd) = process.open()? else {
        return Ok(());
    };
    send(&pidfd, signal)?;
    let begin = Instant::now();
    while is_running(process) {
        if patience.is_some_and(|patience| begin.elapsed() >= patience) {
            send(&pidfd, libc::SIGKILL)?;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
