//! What is typed about the terminal.

use crate::terminal::Tty;
use clap::Args;
use step01_uts::flags;

#[derive(Args)]
#[command(next_help_heading = "Terminal")]
struct TtyFlags {
    /// Connect standard input; without it the command reads nothing
    #[arg(short, long)]
    interactive: bool,

    /// Give the container a terminal of its own
    #[arg(short, long)]
    tty: bool,
}

flags!(Tty, TtyFlags);

impl From<TtyFlags> for Tty {
    fn from(TtyFlags { interactive, tty }: TtyFlags) -> Tty {
        Tty { interactive, tty }
    }
}
