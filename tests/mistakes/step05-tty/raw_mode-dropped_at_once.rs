// The guard is bound to _, and so dropped before body runs.
    struct Restore<F: Fn()>(F);
    impl<F: Fn()> Drop for Restore<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    let before = tcgetattr(terminal)?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
    let _ = Restore(|| {
        let _ = tcsetattr(terminal, SetArg::TCSADRAIN, &before);
    });
    body()
