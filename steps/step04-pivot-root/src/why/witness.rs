//! How the parent gets to see the container's root, and explains what went wrong in there.
//!
//! Only the child can open its own root, and after a failed `execve` the child is about to end. A
//! child that has changed its user or put on a seccomp filter couldn't even look. So before the
//! child executes anything it hands two descriptors to the parent: its root directory, and its mount
//! namespace, without which the mounts below that directory would vanish together with the child.

use crate::descriptors::{passage, receive, send};
use crate::root::{Root, kind};
use crate::why::explain;
use crate::why::explanation::{Consequence, Explanation};
use anyhow::{Error, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag};
use std::os::fd::OwnedFd;
use std::path::Path;
use step01_uts::program::Ended;
use step01_uts::{Refused, call};

/// What is asked about a command that may not start.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Where the host has the files of the container's root, if it has them in one directory that people know.
    pub host: Option<&'a Path>,
    /// The command's name: a path, or a name that is looked for in PATH.
    pub command: &'a str,
    /// The command's environment.
    pub environment: &'a [String],
    /// The directory that the command starts in.
    pub workdir: &'a str,
}

/// A *sight* of a container: its root directory and its mount namespace, all that it takes to look into the root.
pub struct Sight([OwnedFd; 2]);

/// The statuses of the loader, and of env, when they don't find what they need, or may not run it.
const NOT_FOUND: u8 = 127;
const FORBIDDEN: u8 = 126;

impl Question<'_> {
    fn explain(&self, root: &Root) -> Explanation {
        explain(root, self.command, self.environment, self.workdir)
    }

    /// Adds to a command's `outcome` why the command didn't start, where the container's root tells.
    pub fn answer(&self, outcome: Result<u8>, sight: Sight) -> Result<u8> {
        match outcome {
            Ok(code) => self.answer_end(code, sight),
            Err(error) => Err(self.answer_error(error, sight)),
        }
    }

    /// The half for a command that wasn't executed: `error`, with the reason where that is known.
    fn answer_error(&self, error: Error, sight: Sight) -> Error {
        match error.downcast_ref::<Refused>() {
            Some(refused) => self.look(sight).of(refused.clone()).into(),
            None => error,
        }
    }

    /// The half for a command that ended with `code`: `execve` succeeded, and then the loader or env may not have found
    /// something. The loader has said what, but not where it looked. Most often the command itself ended with this code.
    fn answer_end(&self, code: u8, sight: Sight) -> Result<u8> {
        let explanation = self.look(sight);
        match &explanation.fault {
            Some(fault) if fault.consequence == Consequence::Ends(code) => Err(Ended {
                code,
                text: format!("{} ended with status {code}: {explanation}", self.command),
            }
            .into()),
            _ => Ok(code),
        }
    }

    fn look(&self, Sight([directory, namespace]): Sight) -> Explanation {
        let root = Root::in_namespace(directory, namespace);
        self.explain(&root.from_host(self.host))
    }
}

/// Whether the root may tell more about a command's outcome.
fn raises_a_question(outcome: Result<u8, &Error>) -> bool {
    match outcome {
        Ok(code) => [NOT_FOUND, FORBIDDEN].contains(&code),
        Err(error) => error
            .downcast_ref::<Refused>()
            .is_some_and(|refused| refused.is("execve")),
    }
}

impl Sight {
    /// The sight of a container by descriptors that another process has handed on.
    pub fn of(descriptors: [OwnedFd; 2]) -> Sight {
        Sight(descriptors)
    }

    /// The two descriptors, to be handed on to another process.
    pub fn into_descriptors(self) -> [OwnedFd; 2] {
        self.0
    }
}

/// A *witness* of a command's start: it can look into the container's root, and say why the command didn't start.
pub struct Witness<'a> {
    question: Question<'a>,
    /// A socket with one end for the child and one for the parent.
    child: OwnedFd,
    parent: OwnedFd,
}

impl<'a> Witness<'a> {
    /// A witness for one command, to be run in a root whose files the host has in the directory `host`, if it has them in
    /// one that people know. Make it before the child.
    pub fn new(
        host: Option<&'a Path>,
        command: &'a str,
        environment: &'a [String],
        workdir: &'a str,
    ) -> Result<Witness<'a>> {
        let (child, parent) = passage()?;
        let question = Question {
            host,
            command,
            environment,
            workdir,
        };
        Ok(Witness {
            question,
            child,
            parent,
        })
    }

    /// What would happen to the command in the directory `root` of the host: no container is needed.
    ///
    /// # Errors
    /// The root, or the directory to start in, isn't there.
    pub fn foresee(&self, root: &Path) -> Result<Explanation> {
        let Question { host, workdir, .. } = self.question;
        let root = Root::at(root)?.from_host(host);
        let found = root.follow(Path::new("/"), Path::new(workdir)).end;
        if !found.is_ok_and(|found| kind(&found.stat) == SFlag::S_IFDIR) {
            bail!(
                "--workdir {workdir}: the root has no such directory\nhelp: name one that it has"
            );
        }
        Ok(self.question.explain(&root))
    }

    /// The child's half: hands over its root and its mount namespace. Needs the container's /proc.
    pub fn hand_over(&self) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = call!(open("/", flags, Mode::empty()))?;
        // What the container has at /proc may be anything, and mustn't hold us up.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let namespace = call!(open("/proc/self/ns/mnt", flags, Mode::empty()))?;
        call!(send(&self.child, [&root, &namespace]))?;
        Ok(())
    }

    /// The parent's half: what the child has handed over, if the command's `outcome` raises a question that the root
    /// may answer. Doesn't wait.
    pub fn sight(&self, outcome: Result<u8, &Error>) -> Option<Sight> {
        let raised = raises_a_question(outcome);
        let received = raised.then(|| receive(&self.parent).map(Sight));
        received?.ok()
    }

    /// The command's `outcome`, with the answer to the question that it raises, if there is one.
    pub fn testify(&self, outcome: Result<u8>) -> Result<u8> {
        match self.sight(outcome.as_ref().copied()) {
            Some(sight) => self.question.answer(outcome, sight),
            None => outcome,
        }
    }

    /// The same for a command that wasn't executed.
    pub fn testify_to(&self, error: Error) -> Error {
        match self.sight(Err(&error)) {
            Some(sight) => self.question.answer_error(error, sight),
            None => error,
        }
    }
}
