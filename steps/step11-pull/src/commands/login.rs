//! `login` and `logout`: who we are to a registry, in Docker's own file.

use crate::registry::account::{Account, Accounts};
use crate::registry::client::Registry;
use crate::registry::name::{HUB, registry, valid_host};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write, stderr, stdin};
use step01_uts::say;

/// Tell a registry who you are, now and later
#[derive(Debug, Args)]
pub struct Login {
    /// Your name there
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,

    /// Your password; who lists processes sees it
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    password: Option<String>,

    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,

    /// Whether the registry has to prove who it is; without proof it may also speak plainly
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    tls_verify: bool,

    /// The registry, HOST[:PORT] [default: Docker Hub]
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

impl Login {
    /// Proves that the account is good, and notes it.
    ///
    /// # Errors
    /// It isn't; there is nobody to ask for the password.
    pub fn run(self) -> Result<u8> {
        let host = host(self.registry.as_deref())?;
        let name = match self.username {
            Some(name) => name,
            None if self.password_stdin => bail!("--password-stdin: type --username, too"),
            None => ask("Username: ", false)?,
        };
        let password = match self.password {
            Some(password) => password,
            None if self.password_stdin => from_stdin()?,
            None => ask("Password: ", true)?,
        };
        if name.is_empty() || name.contains(':') || password.is_empty() {
            bail!("a name and a password have at least one character, and the name no colon");
        }
        let mut accounts = Accounts::read()?;
        let account = Account::Password {
            name: name.clone(),
            password: password.clone(),
        };
        let registry = Registry::connect(host, Some(account), self.tls_verify)?;
        registry
            .log_in()
            .with_context(|| format!("login to {host} as {name}"))?;
        accounts.store(host, &name, &password)?;
        say("Login Succeeded")?;
        Ok(0)
    }
}

/// Have a registry forget who you are
#[derive(Debug, Args)]
pub struct Logout {
    /// The registry, HOST[:PORT] [default: Docker Hub]
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

impl Logout {
    /// Forgets the account.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn run(self) -> Result<u8> {
        let host = host(self.registry.as_deref())?;
        say(match Accounts::read()?.forget(host)? {
            true => format!("Removing login credentials for {host}"),
            false => format!("Not logged in to {host}"),
        })?;
        Ok(0)
    }
}

/// The registry that is meant.
fn host(typed: Option<&str>) -> Result<&str> {
    let typed = typed.unwrap_or(HUB);
    let host = typed.split_once("://").map_or(typed, |(_, host)| host);
    let host = registry(host.split('/').next().unwrap_or(host));
    valid_host(host)?;
    Ok(host)
}

/// The most bytes of a name or a password.
const LONGEST: u64 = 64 * 1024;

fn from_stdin() -> Result<String> {
    let mut text = String::new();
    stdin().take(LONGEST).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks at the terminal; a secret isn't shown.
fn ask(question: &str, is_secret: bool) -> Result<String> {
    if !stdin().is_terminal() {
        bail!(
            "there is no terminal to ask for a name and a password\nhelp: --username, and --password-stdin with the \
             password on standard input"
        );
    }
    write!(stderr(), "{question}")?;
    if !is_secret {
        let mut line = String::new();
        stdin().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let shown = tcgetattr(stdin())?;
    let mut hidden = shown.clone();
    // Key by key, and ^C among them: whoever gives up finds the terminal as it was.
    hidden
        .local_flags
        .remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
    tcsetattr(stdin(), SetArg::TCSAFLUSH, &hidden)?;
    let typed = keys();
    tcsetattr(stdin(), SetArg::TCSANOW, &shown)?;
    writeln!(stderr())?;
    String::from_utf8(typed?).context("the password is no text")
}

/// What is typed until the end of the line.
fn keys() -> Result<Vec<u8>> {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const DELETE: u8 = 127;
    let mut typed = Vec::new();
    for key in stdin().lock().bytes() {
        match key? {
            b'\r' | b'\n' | CTRL_D => break,
            CTRL_C => bail!("given up"),
            DELETE | 8 => drop(typed.pop()),
            key => typed.push(key),
        }
    }
    Ok(typed)
}
