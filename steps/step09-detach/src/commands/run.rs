//! Commands that have containers run: `run`, `create`, `start` and `attach`.

use crate::caller::connection::{Attachment, Connection, End, Keys, terminal_size};
use crate::caller::launch::launch;
use crate::commands::stop::{end_orphan, let_things_settle, orphan};
use crate::commands::{Names, awake};
use crate::container::plan::ContainerArgs;
use crate::container::status::Status;
use crate::container::store::{Container, Store};
use crate::message::{Message, knock};
use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use step01_uts::{Narration, say};
use step02_pid::signals;
use step04_pivot_root::environment;
use step04_pivot_root::state::StateDir;
use step04_pivot_root::why::witness::Witness;
use step07_cgroups::cgroup::group::new_id;
use step08_overlay::changes::Home;

/// Make a container and run its command
#[derive(Debug, Args)]
pub struct Run {
    /// Let it run in the background, and print its ID
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Say why the command would not start, or that it would; runs nothing and needs no root
    #[arg(long)]
    why: bool,

    #[command(flatten)]
    leave: Leave,

    #[command(flatten)]
    container: ContainerArgs,

    #[command(flatten)]
    narration: Narration,
}

impl Run {
    // ANCHOR: run
    pub(crate) fn run(mut self) -> Result<u8> {
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
        let attachment = self.leave.attachment(args);
        let store = Store::open(&args.files.state)?;
        let (container, life) = store.create(self.container)?;
        let connection = match launch(&container, life, terminal_size().ok(), true) {
            Ok(connection) => connection,
            Err(error) => {
                discard(&container)?;
                return Err(error);
            }
        };
        if self.detach {
            connection.detach();
            say(&container.id)?;
            return Ok(0);
        }
        converse(connection, &attachment)
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
        say(explanation.report())?;
        Ok(explanation.exit_code())
    }
}

/// How one goes.
#[derive(Debug, Args)]
struct Leave {
    /// The keys that leave the container, which runs on
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,

    /// Pass signals on to the container; with false they leave it, and it runs on
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = ArgAction::Set)]
    sig_proxy: bool,
}

impl Leave {
    fn attachment(&self, to: &ContainerArgs) -> Attachment {
        Attachment {
            interactive: to.tty.interactive,
            tty: to.tty.tty,
            detach_keys: self.detach_keys.clone(),
            proxy: self.sig_proxy,
            stats: to.limits.stats,
        }
    }
}

/// Stays attached until one of the two has gone, and returns the container's exit code.
fn converse(connection: Connection, attachment: &Attachment) -> Result<u8> {
    let ending = match connection.attach(attachment)? {
        End::Ended(ending) => ending,
        End::Left(code) => return Ok(code),
        End::Detached => {
            eprintln!("\nread escape sequence");
            return Ok(0);
        }
    };
    if let Some(usage) = ending.usage.filter(|_| attachment.stats) {
        eprintln!("{usage}");
    }
    if let Some(left) = ending.left {
        eprintln!("{left}");
    }
    ending.outcome.map_err(|report| report.into_error())
}

/// Removes a container that never ran, unless its monitor has done so, or still will.
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
    container: ContainerArgs,

    #[command(flatten)]
    narration: Narration,
}

impl Create {
    pub(crate) fn run(self) -> Result<u8> {
        self.narration.begin()?;
        let store = Store::open(&self.container.files.state)?;
        let (container, _life) = store.create(self.container)?;
        say(&container.id)?;
        Ok(0)
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

    #[command(flatten)]
    leave: Leave,

    #[command(flatten)]
    names: Names,

    #[command(flatten)]
    narration: Narration,
}

impl Start {
    /// Whether it stays.
    pub(crate) fn attaches(&self) -> bool {
        self.attach || self.interactive
    }

    pub(crate) fn run(self) -> Result<u8> {
        self.narration.begin()?;
        if !self.attaches() {
            return self.names.each(begin_detached);
        }
        let Names { state, containers } = &self.names;
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
        let mut attachment = self.leave.attachment(&record.arguments);
        attachment.interactive &= self.interactive;
        converse(connection, &attachment)
    }
}

/// Connect the terminal to a container that runs
#[derive(Debug, Args)]
pub struct Attach {
    /// Only watch
    #[arg(long)]
    no_stdin: bool,

    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    #[command(flatten)]
    leave: Leave,

    #[command(flatten)]
    state: StateDir,
}

impl Attach {
    pub(crate) fn run(self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        let record = awake(&container)?;
        signals::hold()?;
        let Some(socket) = knock(&container)? else {
            match orphan(&container) {
                Some(_) => bail!(
                    "container {0} is running, and its monitor was killed\nhelp: `stop {0}`, and `start` it again",
                    record.name
                ),
                None => bail!("container {} has just ended", record.name),
            }
        };
        let mut attachment = self.leave.attachment(&record.arguments);
        attachment.interactive &= !self.no_stdin;
        attachment.proxy &= !self.no_stdin;
        let connection = Connection::with(socket, &Message::Attach).to(&container);
        converse(connection, &attachment)
    }
}

/// Starts `container`, unless it runs already, and leaves it to itself.
pub(crate) fn begin_detached(container: &Container) -> Result<()> {
    begin(container, None).map(|connection| connection.map_or((), Connection::detach))
}

/// Starts `container` and returns the connection to its monitor; `None`: it runs already.
fn begin(container: &Container, size: Option<(u16, u16)>) -> Result<Option<Connection>> {
    loop {
        if let Some(life) = container.take_life()? {
            end_orphan(container)?;
            return launch(container, life, size, false).map(Some);
        }
        let record = container.record()?;
        let status = container.status(&record);
        if status.is_up() {
            return awake(container).map(|_| None);
        }
        if status == Status::Restarting {
            return Ok(None);
        }
        // Somebody is about to start, to end or to remove it.
        let_things_settle(container)?;
    }
}
