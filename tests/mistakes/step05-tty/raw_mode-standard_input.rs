// Standard input, whatever terminal was given.
    struct Restore<F: Fn()>(F);
    impl<F: Fn()> Drop for Restore<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    let _ = terminal;
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
    let _restore = Restore(|| {
        let _ = tcsetattr(&stdin, SetArg::TCSADRAIN, &before);
    });
    body()
