//! Whoever reads what a command prints.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Has this process end quietly when nobody reads any more what it prints: SIGPIPE, which Rust ignores.
pub fn end_with_the_reader() {
    // SAFETY: SIG_DFL installs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}
