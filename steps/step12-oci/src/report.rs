//! The words that engines look for in an error, and how an error gets out.
//!
//! Docker, containerd, Podman and Buildah know why a runtime failed by looking for runc's words in what it says. [`WORDS`] is
//! the table of these words. What we know beyond them follows in the same message.

use crate::Status;
use anyhow::Error;
use nix::errno::Errno;
use std::fmt::{self, Display, Formatter};
use step01_uts::Refused;
use step01_uts::narration;
use step01_uts::program::explain;

/// The program's name.
pub const NAME: &str = "step12-oci";

/// A trouble that engines know by its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such container.
    DoesNotExist,
    /// There is one already.
    Exists,
    /// An ID that can't be.
    InvalidId(String),
    /// Its process has ended, or hasn't begun.
    NotRunning,
    /// `start` of one that runs.
    AlreadyRunning,
    /// `start` of one that has ended.
    HasStopped,
    /// `exec` where there is nobody to join, or everybody stands still.
    CannotExec(Status),
    /// `resume` of one that isn't paused.
    NotPaused,
    /// `delete` of one that runs.
    NotStopped {
        /// The container.
        id: String,
        /// What it does.
        status: Status,
    },
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Trouble::DoesNotExist => f.write_str("container does not exist"),
            Trouble::Exists => f.write_str("container with given ID already exists"),
            Trouble::InvalidId(id) => write!(
                f,
                "invalid container ID format: {id:?}\nhelp: letters, digits, and _ + - . between them"
            ),
            Trouble::NotRunning => f.write_str("container not running"),
            Trouble::AlreadyRunning => f.write_str("cannot start an already running container"),
            Trouble::HasStopped => f.write_str("cannot start a container that has stopped"),
            Trouble::CannotExec(Status::Paused) => {
                f.write_str("cannot exec in a paused container (use --ignore-paused to override)")
            }
            Trouble::CannotExec(status) => write!(f, "cannot exec in a {status} container"),
            Trouble::NotPaused => f.write_str("container not paused"),
            Trouble::NotStopped { id, status } => {
                write!(
                    f,
                    "cannot delete container {id} that is not stopped: {status}"
                )
            }
        }
    }
}

impl std::error::Error for Trouble {}

/// What engines look for, where the kernel has refused something.
pub const WORDS: [(Errno, &str); 6] = [
    (Errno::ENOENT, "no such file or directory"),
    (Errno::EACCES, "permission denied"),
    (Errno::EPERM, "operation not permitted"),
    (Errno::ESRCH, "no such process"),
    (Errno::ENOTDIR, "not a directory"),
    (Errno::ENOEXEC, "exec format error"),
];

/// The whole message for `error`. The kernel's texts begin with a capital letter, and engines look for a small one.
pub fn message(error: &Error) -> String {
    match error.downcast_ref::<Refused>() {
        Some(refused) if refused.is("execve") => not_executed(refused),
        refused => {
            let errno = refused.map(Refused::errno);
            let known = WORDS.iter().map(|(errno, _)| *errno).chain(errno);
            known.fold(explain(error), |text, errno| {
                text.replace(errno.desc(), &words(errno))
            })
        }
    }
}

/// `exec: "NAME": executable file not found in $PATH`, with the reason behind it.
fn not_executed(refused: &Refused) -> String {
    let name = refused.call.strip_prefix("execve(").unwrap_or_default();
    let name = name.trim_end_matches(')');
    let words = match refused.errno() {
        Errno::ENOENT if !name.contains('/') => "executable file not found in $PATH".to_owned(),
        errno => words(errno),
    };
    let why = refused.why.as_deref().map(|why| format!(": {why}"));
    format!("exec: {name}: {words}{}", why.unwrap_or_default())
}

fn words(errno: Errno) -> String {
    let known = WORDS.iter().find(|(known, _)| *known == errno);
    known.map_or_else(
        || {
            let text = errno.desc();
            let first = text
                .chars()
                .next()
                .map(|letter| letter.to_ascii_lowercase());
            first.into_iter().chain(text.chars().skip(1)).collect()
        },
        |(_, words)| (*words).to_owned(),
    )
}

/// Says why the program ends without success.
pub fn complain(error: &Error) {
    narration::complain(NAME, &message(error));
}

/// Says what the user should know, and what is no error.
pub fn warn(text: &str) {
    narration::warn(NAME, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(call: &str, errno: Errno) -> Error {
        Refused::new(call.into(), errno).into()
    }

    #[test]
    fn the_words_that_engines_look_for() {
        for (error, words) in [
            (Trouble::NotRunning.into(), "container not running"),
            (Trouble::DoesNotExist.into(), "container does not exist"),
            (
                refused(r#"execve("x")"#, Errno::ENOENT),
                r#"exec: "x": executable file not found in $PATH"#,
            ),
            (
                refused(r#"execve("/x")"#, Errno::ENOENT),
                r#"exec: "/x": no such file or directory"#,
            ),
            (
                refused(r#"execve("/x")"#, Errno::EACCES),
                r#"exec: "/x": permission denied"#,
            ),
            (refused("mount()", Errno::EPERM), "operation not permitted"),
            (
                refused("pidfd_send_signal()", Errno::ESRCH),
                "no such process",
            ),
            (
                std::io::Error::from_raw_os_error(Errno::ENOENT as i32).into(),
                "no such file or directory",
            ),
        ] {
            let said = message(&error);
            assert!(said.contains(words), "{said}, and not {words}");
        }
    }

    #[test]
    fn the_reason_follows() {
        let error = Refused::new(r#"execve("/x")"#.into(), Errno::ENOENT);
        let said = message(
            &error
                .because("its loader isn't there\nhelp: bring it".into())
                .into(),
        );
        assert_eq!(
            said,
            "exec: \"/x\": no such file or directory: its loader isn't there\nhelp: bring it"
        );
    }
}
