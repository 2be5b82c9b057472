// A mode as terminals mostly have it, instead of the old one.
    use nix::sys::termios::{InputFlags, LocalFlags, OutputFlags, Termios};
    struct Usual<'a>(BorrowedFd<'a>, Termios);
    impl Drop for Usual<'_> {
        fn drop(&mut self) {
            self.1.input_flags |= InputFlags::ICRNL | InputFlags::IXON;
            self.1.output_flags |= OutputFlags::OPOST;
            self.1.local_flags |= LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::IEXTEN;
            let _ = tcsetattr(self.0, SetArg::TCSANOW, &self.1);
        }
    }

    let mut raw = tcgetattr(terminal)?;
    cfmakeraw(&mut raw);
    tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
    let _usual = Usual(terminal, raw);
    body()
