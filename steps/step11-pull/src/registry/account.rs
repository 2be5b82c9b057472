//! Who we are to a registry: Docker's own file of accounts, `config.json`, and the programs that it names.

use crate::registry::name::{HUB, registry};
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, umask};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::env;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use step09_detach::save;

/// What a registry knows somebody by.
#[derive(Clone, PartialEq, Eq)]
pub enum Account {
    /// A name and a password.
    Password {
        /// The name.
        name: String,
        /// The password.
        password: String,
    },
    /// A token by which others are to be had.
    Token(String),
}

/// The name that a helper gives to an account that is a token.
const TOKEN: &str = "<token>";

/// How Docker writes Docker Hub in its files.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The most bytes that are read of the file, and of what a helper prints.
const MOST: u64 = 1024 * 1024;

/// Docker's file of accounts.
#[derive(Debug)]
pub struct Accounts {
    path: PathBuf,
    config: Map<String, Value>,
}

/// What a helper prints, and reads.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    username: String,
    secret: String,
}

impl Accounts {
    /// Reads the file: `config.json` in $DOCKER_CONFIG, or in ~/.docker. Without a file there are no accounts.
    ///
    /// # Errors
    /// A file that makes no sense.
    pub fn read() -> Result<Accounts> {
        let folder = match (env::var_os("DOCKER_CONFIG"), env::var_os("HOME")) {
            (Some(folder), _) if !folder.is_empty() => PathBuf::from(folder),
            (_, home) => Path::new(&home.unwrap_or("/root".into())).join(".docker"),
        };
        Accounts::at(folder.join("config.json"))
    }

    fn at(path: PathBuf) -> Result<Accounts> {
        // The file may be a link, which stays one.
        let path = path.canonicalize().unwrap_or(path);
        let read = || -> Result<Map<String, Value>> {
            let file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
                file => file?,
            };
            let mut text = String::new();
            file.take(MOST).read_to_string(&mut text)?;
            match serde_json::from_str(&text)? {
                Value::Object(config) => Ok(config),
                _ => bail!("it is no JSON object"),
            }
        };
        let config = read().with_context(|| path.display().to_string())?;
        Ok(Accounts { path, config })
    }

    /// The account for the registry that is called `host`.
    ///
    /// # Errors
    /// What is written of it makes no sense; a helper that isn't there, or fails.
    pub fn find(&self, host: &str) -> Result<Option<Account>> {
        if let Some(helper) = self.helper(host) {
            return ask(&helper, host);
        }
        let auths = self.config.get("auths").and_then(Value::as_object);
        let entry = auths.and_then(|auths| {
            let of_host = |key: &&String| plain(key) == host;
            auths.keys().find(of_host).map(|key| &auths[key])
        });
        entry.map_or(Ok(None), |entry| {
            account_of(entry)
                .with_context(|| format!("{}: the account for {host}", self.path.display()))
        })
    }

    /// The program that keeps the account for `host`.
    fn helper(&self, host: &str) -> Option<String> {
        let helpers = self.config.get("credHelpers").and_then(Value::as_object);
        let own = helpers.and_then(|helpers| {
            let of_host = |key: &&String| plain(key) == host;
            helpers.keys().find(of_host).map(|key| &helpers[key])
        });
        let named = own.or_else(|| self.config.get("credsStore"))?.as_str()?;
        (!named.is_empty()).then(|| named.to_owned())
    }

    /// Notes the account for `host`.
    ///
    /// # Errors
    /// The file can't be written; a helper fails.
    pub fn store(&mut self, host: &str, name: &str, password: &str) -> Result<()> {
        if let Some(helper) = self.helper(host) {
            let text = json!({"ServerURL": key(host), "Username": name, "Secret": password});
            return call_helper(&helper, "store", &text.to_string()).map(drop);
        }
        let auth = BASE64_STANDARD.encode(format!("{name}:{password}"));
        self.auths()?.insert(key(host), json!({"auth": auth}));
        self.write()
    }

    /// Forgets the account for `host`, and says whether there was one.
    ///
    /// # Errors
    /// As for [`Accounts::store`].
    pub fn forget(&mut self, host: &str) -> Result<bool> {
        if let Some(helper) = self.helper(host) {
            if ask(&helper, host)?.is_none() {
                return Ok(false);
            }
            return call_helper(&helper, "erase", &key(host)).map(|_| true);
        }
        let auths = self.auths()?;
        let before = auths.len();
        auths.retain(|key, _| plain(key) != host);
        match auths.len() == before {
            true => Ok(false),
            false => self.write().map(|()| true),
        }
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>> {
        let auths = self.config.entry("auths").or_insert_with(|| json!({}));
        auths.as_object_mut().context("auths is no JSON object")
    }

    fn write(&self) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // The file holds passwords.
        let before = umask(Mode::S_IRWXG | Mode::S_IRWXO);
        let saved = save(&self.path, &serde_json::to_vec_pretty(&self.config)?, true);
        umask(before);
        saved
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// How the registry `host` is written in the file.
fn key(host: &str) -> String {
    match host {
        HUB => HUB_KEY.into(),
        other => other.into(),
    }
}

/// The registry that a key of the file means: it may be written as an address.
fn plain(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, key)| key);
    registry(key.split('/').next().unwrap_or(key))
}

fn account_of(entry: &Value) -> Result<Option<Account>> {
    let text = |name: &str| {
        let text = entry.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Account::Token(token.into())));
    }
    if let (Some(name), Some(password)) = (text("username"), text("password")) {
        return Ok(Some(Account::Password {
            name: name.into(),
            password: password.into(),
        }));
    }
    let Some(auth) = text("auth") else {
        return Ok(None);
    };
    let decoded = BASE64_STANDARD.decode(auth).context("auth is no base64")?;
    let decoded = String::from_utf8(decoded).context("auth is no text")?;
    let (name, password) = decoded.split_once(':').context("auth has no colon")?;
    Ok(Some(Account::Password {
        name: name.into(),
        password: password.trim_end_matches('\0').into(),
    }))
}

/// Asks a helper for the account for `host`.
fn ask(helper: &str, host: &str) -> Result<Option<Account>> {
    let printed = match call_helper(helper, "get", &key(host)) {
        Ok(printed) => printed,
        Err(error) if format!("{error:#}").contains("credentials not found") => return Ok(None),
        Err(error) => return Err(error),
    };
    let printed: Printed = serde_json::from_str(&printed)
        .with_context(|| format!("what docker-credential-{helper} printed"))?;
    Ok(Some(match printed.username.as_str() {
        TOKEN => Account::Token(printed.secret),
        _ => Account::Password {
            name: printed.username,
            password: printed.secret,
        },
    }))
}

/// Runs docker-credential-HELPER, gives it `input`, and returns what it prints.
fn call_helper(helper: &str, action: &str, input: &str) -> Result<String> {
    let program = format!("docker-credential-{helper}");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !helper.bytes().all(is_plain) {
        bail!("{helper:?} can't be the name of a credential helper");
    }
    let call = || -> Result<String> {
        // A file and no pipe: a helper that doesn't read costs us no signal.
        let mut given = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?);
        given.write_all(input.as_bytes())?;
        given.rewind()?;
        let mut child = Command::new(&program)
            .arg(action)
            .stdin(given)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut printed = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST).read_to_string(&mut printed)?;
        }
        match child.wait()? {
            status if status.success() => Ok(printed),
            _ => bail!("{}", printed.trim()),
        }
    };
    call().with_context(|| format!("{program} {action}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn accounts(text: &str) -> Accounts {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, text).unwrap();
        Accounts::at(path).unwrap()
    }

    #[test]
    fn accounts_by_every_name_that_docker_writes() {
        let auth = BASE64_STANDARD.encode("me:a:b");
        let found = |key: &str, host: &str| {
            let text = json!({"auths": {key: {"auth": auth}}}).to_string();
            accounts(&text).find(host).unwrap().is_some()
        };
        for (key, host) in [
            (HUB_KEY, HUB),
            ("docker.io", HUB),
            ("https://a.de/v2/", "a.de"),
            ("a.de:5000", "a.de:5000"),
        ] {
            assert!(found(key, host), "{key}");
        }
        for (key, host) in [
            ("a.de", "b.a.de"),
            ("a.de", "a.de:5000"),
            ("a.de.evil", "a.de"),
        ] {
            assert!(!found(key, host), "{key}");
        }
    }

    #[test]
    fn what_is_noted_is_kept_beside_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/config.json");
        let mut some = Accounts::at(path.clone()).unwrap();
        some.config.insert("psFormat".into(), json!("x"));
        some.store("a.de", "me", "secret").unwrap();
        let mut again = Accounts::at(path.clone()).unwrap();
        let Some(Account::Password { name, password }) = again.find("a.de").unwrap() else {
            panic!("no account");
        };
        assert_eq!((&*name, &*password), ("me", "secret"));
        assert_eq!(again.config["psFormat"], "x");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(again.forget("a.de").unwrap() && !again.forget("a.de").unwrap());
        assert!(Accounts::at(path).unwrap().find("a.de").unwrap().is_none());
    }
}
