//! What people type: a subcommand each, with Docker's names and flags.

use crate::arguments::{ContainerArgs, signal};
use crate::boot::Boot;
use crate::client::{Attachment, Connection, End, Keys, terminal_size};
use crate::inspect::Inspect;
use crate::list::List;
use crate::logs::Logs;
use crate::message::{Message, knock};
use crate::monitor::launch;
use crate::record::{Phase, Record};
use crate::status::Status;
use crate::store::{Container, Store};
use crate::{Identity, is_running, name, send, stop, wait_for_end};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nix::libc;
use std::io::{Write, stderr, stdin, stdout};
use std::thread::sleep;
use std::time::Duration;
use step01_uts::Narration;
use step01_uts::program::{exit_code, explain};
use step02_pid::signals;
use step04_pivot_root::environment;
use step04_pivot_root::files::State;
use step04_pivot_root::witness::Witness;
use step07_cgroups::group::{Groups, new_id, sweep_all};
use step08_overlay::commit::Archive;
use step08_overlay::layers::Home;

/// All that can be done with containers, as of this step.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is told where its flags are")]
pub enum Command {
    Run(Box<Run>),
    Create(Box<Create>),
    #[command(visible_alias = "ls")]
    Ps(List),
    Logs(Logs),
    Attach(Attach),
    Stop(Stop),
    Kill(Kill),
    Pause(Pause),
    Unpause(Unpause),
    Start(Start),
    Restart(RestartArgs),
    Rm(Rm),
    Wait(Wait),
    Inspect(Inspect),
    Rename(Rename),
    Commit(Commit),
    Prune(Prune),
    Boot(Boot),
}

impl Command {
    /// Does it, and returns the exit code.
    pub fn run(self) -> Result<u8> {
        match self {
            Command::Run(_) | Command::Start(_) | Command::Attach(_) | Command::Logs(_) => {}
            _ => end_with_the_reader(),
        }
        match self {
            Command::Run(run) => run.run(),
            Command::Create(create) => create.run(),
            Command::Ps(list) => list.run(),
            Command::Logs(logs) => logs.run(),
            Command::Attach(attach) => attach.run(),
            Command::Stop(stop) => stop.run(),
            Command::Kill(kill) => kill.run(),
            Command::Pause(pause) => pause.run(),
            Command::Unpause(unpause) => unpause.run(),
            Command::Start(start) => start.run(),
            Command::Restart(restart) => restart.run(),
            Command::Rm(rm) => rm.run(),
            Command::Wait(wait) => wait.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::Rename(rename) => rename.run(),
            Command::Commit(commit) => commit.run(),
            Command::Prune(prune) => prune.run(),
            Command::Boot(boot) => boot.run(),
        }
    }
}

/// Has this process end quietly when nobody reads any more what it prints: SIGPIPE, which Rust ignores.
pub fn end_with_the_reader() {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Make a container and run its command
#[derive(Debug, Args)]
pub struct Run {
    /// Leave it running, and print its ID
    #[arg(short, long)]
    detach: bool,

    /// Say why the command would not start, or that it would; runs nothing and needs no root
    #[arg(long)]
    why: bool,

    /// The keys that leave it running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,

    #[command(flatten)]
    narration: Narration,

    #[command(flatten)]
    container: ContainerArgs,
}

impl Run {
    // ANCHOR: run
    fn run(mut self) -> Result<u8> {
        self.narration.begin()?;
        if self.why {
            return self.foresee();
        }
        let args = &mut self.container;
        if !self.detach {
            args.tty = args.tty.or_for(&args.command);
            args.tty.check()?;
            // What is sent to us from here on is for the command.
            signals::hold()?;
        }
        let (tty, stats) = (args.tty, args.limits.stats);
        let store = Store::open(&args.files.state)?;
        let container = store.create(self.container)?;
        let life = container
            .take_life()?
            .context("somebody else has started it")?;
        let connection = match launch(&container, life, terminal_size().ok()) {
            Ok(connection) => connection,
            Err(error) => {
                // There is nothing in it that anybody could want.
                discard(&container)?;
                return Err(error);
            }
        };
        if self.detach {
            connection.detach();
            println!("{}", container.id);
            return Ok(0);
        }
        let attachment = Attachment {
            interactive: tty.interactive,
            tty: tty.tty,
            detach_keys: self.detach_keys,
        };
        converse(connection, &attachment, stats)
    }
    // ANCHOR_END: run

    fn foresee(&self) -> Result<u8> {
        let args = &self.container;
        let id = new_id()?;
        let hostname = args.hostname.as_deref().unwrap_or(&id[..12]);
        let given = [args.tty.environment(), args.env.env.clone()].concat();
        let variables = environment(hostname, &given);
        let layers = args.layers.open(&args.files, Home::Passing(&id), true)?;
        let explanation = layers.show(|root| {
            Witness::new(root, &args.command[0], &variables, &args.env.workdir)?.foresee()
        })?;
        println!("{}", explanation.report());
        Ok(explanation.exit_code())
    }
}

/// Stays attached until one of the two has gone, and returns the container's exit code.
fn converse(connection: Connection, attachment: &Attachment, stats: bool) -> Result<u8> {
    let ending = match connection.attach(attachment)? {
        End::Ended(ending) => ending,
        End::Detached => {
            eprintln!("\nread escape sequence");
            return Ok(0);
        }
    };
    if let Some(usage) = ending.usage.filter(|_| stats) {
        eprintln!("{usage}");
    }
    ending.outcome.map_err(|report| report.into_error())
}

/// Removes a container that never ran.
fn discard(container: &Container) -> Result<()> {
    match container.is_gone() {
        true => Ok(()),
        false => match container.take_life()? {
            Some(life) => container.remove(&life),
            None => Ok(()),
        },
    }
}

/// Make a container, and leave its start for later
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    narration: Narration,

    #[command(flatten)]
    container: ContainerArgs,
}

impl Create {
    fn run(self) -> Result<u8> {
        self.narration.begin()?;
        let store = Store::open(&self.container.files.state)?;
        println!("{}", store.create(self.container)?.id);
        Ok(0)
    }
}

/// Which containers, and where they are kept.
#[derive(Debug, Args)]
pub struct Names {
    #[command(flatten)]
    state: State,

    /// The containers, by their names or their IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Does something to each container and prints its name when it is done, as Docker does. One that fails
/// doesn't keep the others from it.
pub fn each(
    state: &State,
    names: &[String],
    mut what: impl FnMut(&Container) -> Result<()>,
) -> Result<u8> {
    let store = Store::open(state)?;
    let mut code = 0;
    for name in names {
        match store.find(name).and_then(|container| what(&container)) {
            Ok(()) => println!("{name}"),
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                eprintln!("{}", explain(&error));
                code = exit_code(&error);
            }
        }
    }
    Ok(code)
}

/// Starts `container` and returns the connection to its monitor; `None`: it runs already.
pub fn begin(container: &Container, size: Option<(u16, u16)>) -> Result<Option<Connection>> {
    loop {
        if let Some(life) = container.take_life()? {
            end_orphan(container)?;
            return launch(container, life, size).map(Some);
        }
        let record = container.record()?;
        let status = container.status(&record);
        if status == Status::Paused {
            bail!("container {0} is paused\nhelp: `unpause {0}`", record.name);
        }
        if status.is_up() || status == Status::Restarting {
            return Ok(None);
        }
        // Somebody is about to start, to end or to remove it.
        let_things_settle(container)?;
    }
}

/// Ends what a container's monitor should have taken along when it was killed, and didn't: a command that has
/// changed its user since, or was frozen. For who has its life.
fn end_orphan(container: &Container) -> Result<()> {
    let Some(process) = orphan(container) else {
        return Ok(());
    };
    let groups = Groups::of(&container.id)?;
    if groups.is_frozen().unwrap_or(false) {
        groups.freeze(false)?;
    }
    stop(&process, libc::SIGKILL, Some(Duration::ZERO))
}

/// The process of a container without a monitor, if it runs all the same.
fn orphan(container: &Container) -> Option<Identity> {
    // Of a record that can't be read there is nothing to know.
    container.record().ok()?.state.process.filter(is_running)
}

/// Waits until a container that has a monitor, and doesn't run, runs or has none.
fn let_things_settle(container: &Container) -> Result<()> {
    match knock(container)? {
        Some(socket) => Connection::with(socket, &Message::Wait).wait_for_news(),
        // It isn't listening yet, or no longer, or it is a command that is about to be through.
        None => {
            sleep(Duration::from_millis(1));
            Ok(())
        }
    }
}

/// Has a container end that runs, or is about to run again: asks by `signal`, waits for `patience`, and insists.
/// Returns when its monitor has gone, too.
fn end(container: &Container, signal: Option<i32>, patience: Option<Duration>) -> Result<()> {
    loop {
        let record = container.record()?;
        let status = container.status(&record);
        if !status.is_up() && status != Status::Restarting {
            if container.take_life()?.is_some() {
                return Ok(());
            }
            let_things_settle(container)?;
            continue;
        }
        let socket = knock(container)?;
        let connection = socket.map(|socket| Connection::with(socket, &Message::Wait));
        if let Some(connection) = &connection {
            // Otherwise its monitor would start it again.
            connection.insist(&Message::LetItEnd(true))?;
        }
        // It may have begun another life until it heard.
        let record = match container.record() {
            Err(_) if container.is_gone() => return Ok(()),
            record => record?,
        };
        if container.status(&record) == Status::Paused {
            // Who is frozen hears nothing.
            Groups::of(&record.id)?.freeze(false)?;
        }
        if let Some(process) = &record.state.process {
            let signal = signal.unwrap_or(record.arguments.stop_signal);
            stop(process, signal, patience)?;
        }
        // Not for its life, which somebody else may have by now, who starts it.
        return match connection {
            Some(connection) => connection.wait().map(drop),
            None => wait_for_monitor(&record),
        };
    }
}

/// Waits until the monitor that `record` tells of has ended.
fn wait_for_monitor(record: &Record) -> Result<()> {
    let monitor = record.state.monitor.as_ref();
    if let Some(pidfd) = monitor.map(Identity::open).transpose()?.flatten() {
        wait_for_end(&pidfd, None)?;
    }
    Ok(())
}

/// Ask containers to end, and insist after a while
#[derive(Debug, Args)]
pub struct Stop {
    /// How long to wait before they are killed, in seconds; -1: for ever
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS", default_value = "10",
          allow_negative_numbers = true, value_parser = patience)]
    timeout: Patience,

    /// The signal to ask with [default: that of --stop-signal]
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal)]
    signal: Option<i32>,

    #[command(flatten)]
    names: Names,
}

/// A time to wait; for ever with none.
#[derive(Debug, Clone, Copy)]
struct Patience(Option<Duration>);

fn patience(text: &str) -> Result<Patience, String> {
    match text.parse::<f64>() {
        Ok(-1.0) => Ok(Patience(None)),
        Ok(seconds) => Duration::try_from_secs_f64(seconds)
            .map(|duration| Patience(Some(duration)))
            .map_err(|error| error.to_string()),
        Err(_) => Err("it takes a number of seconds, or -1 for ever".into()),
    }
}

impl Stop {
    fn run(&self) -> Result<u8> {
        let Patience(patience) = self.timeout;
        let stop = |container: &Container| end(container, self.signal, patience);
        each(&self.names.state, &self.names.containers, stop)
    }
}

/// Send containers a signal
#[derive(Debug, Args)]
pub struct Kill {
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    signal: i32,

    #[command(flatten)]
    names: Names,
}

impl Kill {
    fn run(&self) -> Result<u8> {
        each(&self.names.state, &self.names.containers, |container| {
            let record = up(container)?;
            if self.signal == libc::SIGKILL {
                return end(container, Some(libc::SIGKILL), Some(Duration::ZERO));
            }
            if self.signal == record.arguments.stop_signal {
                // Whoever asks it to end doesn't want it started again.
                if let Some(socket) = knock(container)? {
                    Connection::with(socket, &Message::Wait).insist(&Message::LetItEnd(true))?;
                }
            }
            let process = record.state.process.as_ref();
            match process.map(|process| process.open()).transpose()?.flatten() {
                Some(pidfd) => send(&pidfd, self.signal),
                None => bail!("{} has just ended", record.name),
            }
        })
    }
}

/// The record of a container that has processes.
pub fn up(container: &Container) -> Result<Record> {
    let record = container.record()?;
    match container.status(&record).is_up() {
        true => Ok(record),
        false => bail!(
            "container {0} isn't running\nhelp: `start {0}` starts it",
            record.name
        ),
    }
}

/// Stop all processes of containers for a while
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    names: Names,
}

/// Have the processes of containers go on
#[derive(Debug, Args)]
pub struct Unpause {
    #[command(flatten)]
    names: Names,
}

impl Pause {
    fn run(&self) -> Result<u8> {
        each(&self.names.state, &self.names.containers, |container| {
            let record = up(container)?;
            match container.status(&record) {
                Status::Paused => bail!("container {} is paused already", record.name),
                _ => Groups::of(&record.id)?.freeze(true),
            }
        })
    }
}

impl Unpause {
    fn run(&self) -> Result<u8> {
        each(&self.names.state, &self.names.containers, |container| {
            let record = up(container)?;
            match container.status(&record) {
                Status::Paused => Groups::of(&record.id)?.freeze(false),
                _ => bail!("container {} isn't paused", record.name),
            }
        })
    }
}

/// Start containers that have ended, with what they changed
#[derive(Debug, Args)]
pub struct Start {
    /// Attach to it
    #[arg(short, long)]
    attach: bool,

    /// Attach, and connect standard input
    #[arg(short, long)]
    interactive: bool,

    /// The keys that leave it running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,

    #[command(flatten)]
    narration: Narration,

    #[command(flatten)]
    names: Names,
}

impl Start {
    fn run(self) -> Result<u8> {
        self.narration.begin()?;
        let Names { state, containers } = &self.names;
        if !self.attach && !self.interactive {
            return each(state, containers, |container| {
                if let Some(connection) = begin(container, None)? {
                    connection.detach();
                }
                Ok(())
            });
        }
        let [one] = &containers[..] else {
            bail!("-a: one container at a time has the terminal");
        };
        let container = Store::open(state)?.find(one)?;
        let record = container.record()?;
        signals::hold()?;
        let Some(connection) = begin(&container, terminal_size().ok())? else {
            bail!(
                "container {0} runs already\nhelp: `attach {0}`",
                record.name
            );
        };
        let attachment = Attachment {
            interactive: self.interactive && record.arguments.tty.interactive,
            tty: record.arguments.tty.tty,
            detach_keys: self.detach_keys,
        };
        converse(connection, &attachment, record.arguments.limits.stats)
    }
}

/// Stop containers and start them again
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// How long to wait before they are killed, in seconds; -1: for ever
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS", default_value = "10",
          allow_negative_numbers = true, value_parser = patience)]
    timeout: Patience,

    #[command(flatten)]
    names: Names,
}

impl RestartArgs {
    fn run(&self) -> Result<u8> {
        let Patience(patience) = self.timeout;
        each(&self.names.state, &self.names.containers, |container| {
            let record = container.record()?;
            if record.arguments.rm {
                bail!(
                    "container {} is removed when it ends (--rm), and can't be started again\nhelp: `stop` it, and \
                     `run` another",
                    record.name
                );
            }
            end(container, None, patience)?;
            if let Some(connection) = begin(container, None)? {
                connection.detach();
            }
            Ok(())
        })
    }
}

/// Connect the terminal to a container that runs
#[derive(Debug, Args)]
pub struct Attach {
    /// The keys that leave it running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,

    /// Only watch
    #[arg(long)]
    no_stdin: bool,

    #[command(flatten)]
    state: State,

    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Attach {
    fn run(self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        let record = up(&container)?;
        if container.status(&record) == Status::Paused {
            bail!(
                "container {0} is paused\nhelp: `unpause {0}` first",
                record.name
            );
        }
        signals::hold()?;
        let Some(socket) = knock(&container)? else {
            bail!("container {} has just ended", record.name);
        };
        let attachment = Attachment {
            interactive: record.arguments.tty.interactive && !self.no_stdin,
            tty: record.arguments.tty.tty,
            detach_keys: self.detach_keys,
        };
        let connection = Connection::with(socket, &Message::Attach);
        converse(connection, &attachment, record.arguments.limits.stats)
    }
}

/// Remove containers, with their changes and logs
#[derive(Debug, Args)]
pub struct Rm {
    /// Kill them first, if they run
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    names: Names,
}

impl Rm {
    fn run(&self) -> Result<u8> {
        each(&self.names.state, &self.names.containers, |container| {
            remove(container, self.force)
        })
    }
}

fn remove(container: &Container, force: bool) -> Result<()> {
    loop {
        if let Some(life) = container.take_life()? {
            if orphan(container).is_some() && !force {
                bail!(
                    "container {0} is running, and its monitor was killed\nhelp: `stop {0}` first, or `rm -f {0}`",
                    container.record()?.name
                );
            }
            end_orphan(container)?;
            return container.remove(&life);
        }
        if force {
            match end(container, Some(libc::SIGKILL), Some(Duration::ZERO)) {
                // It was to be removed when it ended.
                _ if container.is_gone() => return Ok(()),
                ended => ended?,
            }
            continue;
        }
        let record = container.record()?;
        let status = container.status(&record);
        if status.is_up() || status == Status::Restarting {
            bail!(
                "container {0} is {1}\nhelp: `stop {0}` first, or `rm -f {0}`",
                record.name,
                status.word()
            );
        }
        let_things_settle(container)?;
    }
}

/// Wait until containers have ended, and print their exit codes
#[derive(Debug, Args)]
pub struct Wait {
    #[command(flatten)]
    names: Names,
}

impl Wait {
    fn run(&self) -> Result<u8> {
        let store = Store::open(&self.names.state)?;
        let found = self.names.containers.iter().map(|name| store.find(name));
        for container in found.collect::<Result<Vec<_>>>()? {
            println!("{}", wait(&container)?);
        }
        Ok(0)
    }
}

/// The exit code of a container, when it has ended.
fn wait(container: &Container) -> Result<u8> {
    let record = container.record()?;
    // Its process may have ended, and its monitor be about to note it.
    let lives = matches!(record.state.phase, Phase::Running | Phase::Restarting);
    if lives && record.state.monitor.as_ref().is_some_and(is_running) {
        if let Some(socket) = knock(container)? {
            let connection = Connection::with(socket, &Message::Wait);
            if let Some(ending) = connection.wait()? {
                let code = |report: step02_pid::report::Report| exit_code(&report.into_error());
                return Ok(ending.outcome.unwrap_or_else(code));
            }
        }
        wait_for_monitor(&record)?;
    }
    let record = container.record()?;
    let known = match container.status(&record) {
        Status::Created => Some(0),
        _ if record.state.phase != Phase::Running => record.state.exit_code,
        _ => None,
    };
    known.with_context(|| {
        format!(
            "nobody knows how container {} ended: its monitor was killed before it, or the power failed",
            record.name
        )
    })
}

/// Call a container otherwise
#[derive(Debug, Args)]
pub struct Rename {
    #[command(flatten)]
    state: State,

    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// Its new name
    #[arg(value_name = "NAME", value_parser = name::valid)]
    name: String,
}

impl Rename {
    fn run(&self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        container.rename(&self.name)?;
        Ok(0)
    }
}

/// Save a container's root as an archive
#[derive(Debug, Args)]
pub struct Commit {
    #[command(flatten)]
    state: State,

    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// FILE.tar, FILE.tar.gz or FILE.tar.zst
    #[arg(value_name = "FILE", value_parser = Archive::parse)]
    file: Archive,
}

impl Commit {
    fn run(self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        self.file.check()?;
        let record = container.record()?;
        let groups = Groups::of(&record.id)?;
        // One that is paused stays so.
        let running = container.status(&record) == Status::Running;
        if running {
            // Who is interrupted now would leave it frozen.
            signals::hold()?;
            groups.freeze(true)?;
        }
        let args = &record.arguments;
        let show = |root: &std::path::Path| self.file.write(root);
        let saved = args.layers.show(&args.files, &container.folder, show);
        if running {
            groups.freeze(false)?;
        }
        saved.map(|()| 0)
    }
}

/// Remove all containers that don't run, and what crashes have left
#[derive(Debug, Args)]
pub struct Prune {
    /// Don't ask
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    state: State,
}

impl Prune {
    fn run(&self) -> Result<u8> {
        let store = Store::open(&self.state)?;
        if !self.force && !self.is_sure()? {
            return Ok(0);
        }
        let mut code = 0;
        for container in store.containers()? {
            let removed = match container.take_life() {
                Ok(Some(life)) if orphan(&container).is_none() => container.remove(&life),
                // It runs, or somebody else has removed it.
                _ => continue,
            };
            match removed {
                Ok(()) => println!("{}", container.id),
                Err(error) => {
                    eprintln!("{}", explain(&error));
                    code = exit_code(&error);
                }
            }
        }
        store.sweep()?;
        sweep_all()?;
        Ok(code)
    }

    fn is_sure(&self) -> Result<bool> {
        let mut asked = stderr();
        write!(
            asked,
            "All containers that don't run will be removed, with their changes. Go on? [y/N] "
        )?;
        stdout().flush()?;
        let mut answer = String::new();
        stdin().read_line(&mut answer)?;
        Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }
}
