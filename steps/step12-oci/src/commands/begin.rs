//! `create` and `start`: the two halves of a beginning.

use crate::commands::global::Global;
use crate::config::read::{Config, text_of};
use crate::hooks::{Moment, state_of};
use crate::notify::console::Console;
use crate::notify::ready::Ready;
use crate::notify::sockets::connect_to;
use crate::pieces::Wishes;
use crate::report::{self, Trouble};
use crate::start::create;
use crate::state::known::Known;
use crate::state::store::State;
use crate::{Status, let_on};
use anyhow::{Context, Error, Result, bail};
use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::path::PathBuf;
use std::time::Duration;
use step04_pivot_root::why::witness::{Question, Sight};
use step09_detach::wait_for_end;

/// What `create` and `run` have in common.
#[derive(Debug, Args)]
pub(crate) struct Beginning {
    /// The directory with config.json
    #[arg(
        short,
        long,
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    pub(crate) bundle: PathBuf,

    /// The socket that gets the terminal's other end
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,

    /// The socket that gets a descriptor for the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,

    /// Write the process's ID to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Hand on N descriptors from 3 on
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) preserve_fds: u32,

    /// Enter the root without pivot_root, on a RAM disk
    #[arg(long)]
    pub(crate) no_pivot: bool,

    /// Leave the process the session keyring of whoever called
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
}

/// Make a container, whose command waits for `start`
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    beginning: Beginning,

    /// The container's ID
    id: String,
}

impl Create {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let (config, text, wishes) = self.beginning.read(global)?;
        let console = engines_console(
            config.has_terminal(),
            self.beginning.console_socket.as_ref(),
        )?;
        create(&global.store, &self.id, (&config, &text), &wishes, &console)?;
        Ok(0)
    }
}

impl Beginning {
    /// Reads config.json. Nothing that the caller has open stays open here, but for what the command is to get: the caller
    /// may wait for the end of a pipe.
    pub(crate) fn read(&self, global: &Global) -> Result<(Config, String, Wishes)> {
        let preserve_fds = global.begin_alone(self.preserve_fds)?;
        global.refuse_systemd()?;
        let named = || self.bundle.display().to_string();
        let bundle = self.bundle.canonicalize().with_context(named)?;
        let text = text_of(&bundle.join("config.json"))?;
        let config = Config::of(&text, &bundle, &mut |path| {
            if global.debug {
                report::warn(&format!("config.json: {path}: nobody knows that property"));
            }
        })?;
        let wishes = Wishes {
            bundle,
            pidfd_socket: self.pidfd_socket.clone(),
            pid_file: self.pid_file.clone(),
            preserve_fds,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            rootless: global.rootless,
        };
        Ok((config, text, wishes))
    }
}

/// Where the terminal of a process goes that somebody else has the other end of.
///
/// # Errors
/// There is a terminal, and nobody who listens for it, or the other way round.
pub(crate) fn engines_console(terminal: bool, socket: Option<&PathBuf>) -> Result<Console> {
    match (terminal, socket) {
        (true, Some(socket)) => Ok(Console::Engine(
            connect_to(socket).context("--console-socket")?,
        )),
        (false, None) => Ok(Console::None),
        (true, None) => bail!(
            "process.terminal: cannot allocate tty if runc will detach without setting console socket\n\
             help: --console-socket, or `run` in the foreground"
        ),
        (false, Some(_)) => bail!(
            "--console-socket: cannot use console socket if runc will not detach or allocate tty\n\
             help: leave it out, or set process.terminal"
        ),
    }
}

/// How long a process may take to end after it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Let the command of a container run that was created
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The container's ID
    id: String,
}

impl Start {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let known = global.find(&self.id)?;
        let _lock = known.container.lock()?;
        start(&known).map(|()| 0)
    }
}

/// Lets the command of a container run.
///
/// # Errors
/// It doesn't wait for that; or the command wasn't executed: the text says why, as far as the root tells.
pub(crate) fn start(known: &Known) -> Result<()> {
    match known.status()? {
        Status::Created => {}
        Status::Stopped => return Err(Trouble::HasStopped.into()),
        Status::Creating => {
            bail!("the container was never made to its end\nhelp: remove it with delete --force")
        }
        Status::Running | Status::Paused => return Err(Trouble::AlreadyRunning.into()),
    }
    let state = known.state()?;
    let config = known.config()?;
    let ready = Ready::open(&known.container)?;
    // The process is about to become the command, and nobody could look into its root after a failure.
    let sight = sight_of(state);
    let container = &known.container;
    let begun = let_on(&container.socket(), &container.waits()).inspect_err(|_| {
        // It is about to end, and whoever asks after us finds that it has.
        let pidfd = state.process.open().ok().flatten();
        drop(pidfd.map(|pidfd| wait_for_end(&pidfd, Some(PATIENCE))));
    });
    let begun = begun.map_err(|error| match known.status() {
        // It was ended before anybody could say so.
        Ok(Status::Stopped) if is_lost(&error) => Trouble::HasStopped.into(),
        _ => error,
    });
    begun.map_err(|error| match (sight, &config.process) {
        (Ok(sight), Some(process)) => explained(
            error,
            sight,
            state,
            &process.args[0],
            &process.env,
            &process.cwd,
        ),
        _ => error,
    })?;
    let pid = state.process.pid;
    if let (Some(ready), Some(pidfd)) = (ready, state.process.open()?) {
        ready.hand_on(&pidfd, pid)?;
    }
    let poststart = Moment {
        name: "poststart",
        hooks: &config.hooks.poststart,
        state: state_of(config, &state.id, Status::Running, pid, &state.bundle),
        directory: Some(&state.bundle),
        process: None,
    };
    match config.is_at_least(1, 3) {
        // Since that version it is an error, and the container ends.
        true => poststart
            .run()
            .inspect_err(|_| drop(known.signal_all(libc::SIGKILL)))?,
        false => poststart.run_all(),
    }
    Ok(())
}

/// Whether nobody waits at the door any more.
fn is_lost(error: &Error) -> bool {
    let lost = [Errno::ECONNREFUSED, Errno::ECONNRESET, Errno::EPIPE];
    let errno = error.downcast_ref::<Errno>().copied();
    let of_io = error.downcast_ref::<std::io::Error>();
    let of_io = of_io
        .and_then(|error| error.raw_os_error())
        .map(Errno::from_raw);
    errno.or(of_io).is_some_and(|errno| lost.contains(&errno))
}

/// The root and the mount namespace of the container's process.
fn sight_of(state: &State) -> Result<Sight> {
    let pid = state.process.pid;
    let held = |name: &str, flags: OFlag| {
        open(
            &*format!("/proc/{pid}/{name}"),
            flags | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    };
    let root = held("root", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    Ok(Sight::of([root, held("ns/mnt", OFlag::O_RDONLY)?]))
}

fn explained(
    error: Error,
    sight: Sight,
    state: &State,
    command: &str,
    environment: &[String],
    workdir: &str,
) -> Error {
    let question = Question {
        host: Some(&state.rootfs),
        command,
        environment,
        workdir,
    };
    match question.answer(Err(error), sight) {
        Err(error) => error,
        Ok(_) => Error::msg("it ended"),
    }
}
