//! How the parent gets to see the container's root, and explains what went wrong in there.
//!
//! Only the child can open its own root, and after a failed `execve` it is as good as gone; once it
//! has changed its user or put on a seccomp filter it couldn't even look. So before it executes
//! anything it hands two descriptors to the parent: its root directory, and its mount namespace,
//! without which the mounts below that directory would vanish together with the child.

use crate::descriptors::{passage, receive, send};
use crate::enoent::{Explanation, Outcome, explain};
use crate::root::{Root, kind};
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag};
use std::os::fd::OwnedFd;
use std::path::Path;
use step01_uts::program::Ended;
use step01_uts::{Refused, call};

/// Somebody who sees a command start, or not start, and can say why.
pub struct Witness<'a> {
    /// Where the host has the container's root.
    root: &'a Path,
    /// The command's name, and what decides where it is looked for.
    command: &'a str,
    environment: &'a [String],
    workdir: &'a str,
    /// A socket with one end for the child and one for the parent.
    child: OwnedFd,
    parent: OwnedFd,
}

/// What the loader, and env, end with when they don't find what they need, or may not run it.
const NOT_FOUND: u8 = 127;
const FORBIDDEN: u8 = 126;

impl<'a> Witness<'a> {
    /// A witness for one command, to be run in the root that the host has at `root`. Make it before
    /// the child.
    pub fn new(
        root: &'a Path,
        command: &'a str,
        environment: &'a [String],
        workdir: &'a str,
    ) -> Result<Witness<'a>> {
        let (child, parent) = passage()?;
        Ok(Witness {
            root,
            command,
            environment,
            workdir,
            child,
            parent,
        })
    }

    /// What would happen to the command, seen from the host: no container is needed.
    ///
    /// # Errors
    /// The root, or the directory to start in, isn't there.
    pub fn foresee(&self) -> Result<Explanation> {
        let root = Root::at(self.root)?;
        let workdir = root.follow(Path::new("/"), Path::new(self.workdir)).end;
        if !workdir.is_ok_and(|found| kind(&found.stat) == SFlag::S_IFDIR) {
            bail!(
                "--workdir {}: the root has no such directory\nhelp: name one that it has",
                self.workdir
            );
        }
        Ok(self.explain(&root))
    }

    fn explain(&self, root: &Root) -> Explanation {
        explain(root, self.command, self.environment, self.workdir)
    }

    /// The child's half: hands over its root and its mount namespace. Needs the container's /proc.
    pub fn hand_over(&self) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = call!(open("/", flags, Mode::empty()))?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let namespace = call!(open("/proc/self/ns/mnt", flags, Mode::empty()))?;
        call!(send(&self.child, [&root, &namespace]))?;
        Ok(())
    }

    /// The parent's half: adds to the outcome of the command's life why it didn't start, where the
    /// container's root tells.
    pub fn testify(&self, outcome: Result<u8>) -> Result<u8> {
        match outcome {
            Ok(code @ (NOT_FOUND | FORBIDDEN)) => self.after_exec_succeeded(code),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) if refused.is("execve") => {
                    Err(self.after_exec(refused.clone()).into())
                }
                _ => Err(error),
            },
            outcome => outcome,
        }
    }

    /// `execve` failed.
    fn after_exec(&self, refused: Refused) -> Refused {
        match self.root() {
            Ok(root) => self.explain(&root).of(refused),
            Err(_) => refused,
        }
    }

    /// `execve` succeeded, and then somebody didn't find something. The loader has said what, but
    /// not where it looked; and most often it was the command itself that ended so.
    fn after_exec_succeeded(&self, code: u8) -> Result<u8> {
        let explanation = self.explain(&self.root()?);
        match &explanation.fault {
            Some(fault) if fault.outcome == Outcome::Ends(code) => Err(Ended {
                code,
                text: format!("{} ended with status {code}: {explanation}", self.command),
            }
            .into()),
            _ => Ok(code),
        }
    }

    /// The container's root, as the child handed it over. Doesn't wait.
    fn root(&self) -> Result<Root> {
        let [root, namespace] =
            receive(&self.parent).context("the container handed over no root")?;
        Ok(Root::in_namespace(root, namespace, self.root))
    }
}
