//! A start with gates: the child waits while the parent acts, and then goes on.
//!
//! Some of what a container needs can only be done from outside, and only when there is a child: the maps of its user
//! namespace, the other end of its network. At a gate the child stands still for that long. See user_namespaces(7).

use crate::birth::Birth;
use crate::child::hear;
use crate::hidden::{forget_environment, hide};
use crate::signals::{self, Requests, asked_to_end};
use crate::{Child, ErrorPipe, clone3, die_with_parent};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::geteuid;
use std::convert::Infallible;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use step01_uts::call;
use step01_uts::program::Ended;

/// The namespaces of a child: what isn't named here stays that of the caller.
pub struct Namespaces<'a> {
    /// The namespaces that are made for the child: CLONE_NEW…
    pub new: CloneFlags,
    /// Namespaces that it joins, each by its file, /proc/PID/ns/… They are joined in this order: a user namespace comes
    /// first, since the right to join the others may come from it. See setns(2).
    pub joined: &'a [OwnedFd],
}

/// What the parent does while the child stands at a gate. Signals that ask the parent to end are held back meanwhile, also
/// in what an act starts. A copy of the parent that an act forks mustn't outlive it: it would have the parent's ends.
pub type Act<'a> = &'a mut dyn FnMut(&Child) -> Result<()>;

/// The child's side of all gates.
pub struct Gate(OwnedFd);

impl Gate {
    /// Tells the parent that the child has come this far, and waits until the parent lets it on.
    ///
    /// # Errors
    /// Nobody lets it on: the parent has ended, or does nothing at this gate.
    pub fn wait(&self) -> Result<()> {
        let mut word = [0];
        // One byte is sent at once, or never.
        let told = send(self.0.as_raw_fd(), &word, MsgFlags::MSG_NOSIGNAL);
        while told.is_ok() {
            match recv(self.0.as_raw_fd(), &mut word, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                Ok(1..) => return Ok(()),
                Ok(0) | Err(_) => break,
            }
        }
        bail!("nobody opens this gate")
    }
}

/// Starts `body` as [`spawn`](crate::spawn) does, and holds the child at a gate for each of `acts`, while that is done: at
/// the first before `body` begins, at each other one where `body` says [`Gate::wait`].
///
/// # Errors
/// The child's own error, or that of an act, after which there is no child any more; [`Ended`], when somebody asked this
/// process to end meanwhile, or when the child ended before it came to the last gate. One that is killed after that is
/// told by [`Child::wait`], as a command that was killed.
pub fn spawn_gated(
    namespaces: &Namespaces,
    acts: &mut [Act],
    body: impl Fn(&Gate) -> Result<Infallible>,
) -> Result<Child> {
    let pipe = ErrorPipe::new()?;
    let (kind, any) = (SockType::SeqPacket, None);
    let (theirs, ours) = socketpair(AddressFamily::Unix, kind, any, SockFlag::SOCK_CLOEXEC)?;
    signals::hold()?;
    // Who joins a user namespace can't come back, and who joins a PID namespace only has its children born there: so a
    // process between joins, and makes the child for us.
    let birth = match namespaces.joined {
        [] => None,
        _ => Some(Birth::new()?),
    };
    let flags = match &birth {
        None => namespaces.new,
        Some(_) => CloneFlags::empty(),
    };
    let Some(first) = call!(clone3(flags))? else {
        // As long as the child has this end, it would wait for itself.
        drop(ours);
        let gate = Gate(theirs);
        pipe.report(|| {
            if let Some(birth) = &birth {
                die_with_parent()?;
                // Before there is anybody in there who could look.
                hide()?;
                forget_environment()?;
                for namespace in namespaces.joined {
                    let any = CloneFlags::empty();
                    call!(setns(namespace, any))?;
                }
                if let Some(child) = call!(clone3(namespaces.new | CloneFlags::CLONE_PARENT))? {
                    return birth.announce(&child);
                }
            }
            if !acts.is_empty() {
                gate.wait()?;
            }
            body(&gate)
        })
    };
    drop(theirs);
    let news = pipe.news();
    let child = match birth {
        None => first,
        Some(birth) => {
            first.end_unless_it_ends()?;
            match birth.child()? {
                Some(child) => child,
                None => {
                    // A child that nobody has told us of stands at the gate, and goes now.
                    drop(ours);
                    hear(&news, None)?;
                    bail!("it was killed on the way in");
                }
            }
        }
    };
    for act in acts {
        let held = comes(&ours, &news, &child).and_then(|comes| match comes {
            true => act(&child).map(|()| true),
            false => Ok(false),
        });
        match held {
            // Whether it is still there to be let on, the next gate tells, or the pipe.
            Ok(true) => drop(send(ours.as_raw_fd(), &[0], MsgFlags::MSG_NOSIGNAL)),
            Ok(false) => return Err(lost(&child, &news)),
            Err(error) => {
                child.end()?;
                return Err(error);
            }
        }
    }
    drop(ours);
    hear(&news, Some(&child)).map(|()| child)
}

/// Waits until the child stands at the next gate; `false`: it has ended, or has failed on the way, or is its command
/// already. Somebody may ask this process to end meanwhile.
fn comes(gate: &OwnedFd, news: &File, child: &Child) -> Result<bool> {
    let requests = Requests::new()?;
    loop {
        let mut polled = [
            PollFd::new(gate.as_fd(), PollFlags::POLLIN),
            PollFd::new(requests.as_fd(), PollFlags::POLLIN),
            PollFd::new(news.as_fd(), PollFlags::POLLIN),
            PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        let [is_there, asked, tells, has_ended] = polled.map(|each| each.any() == Some(true));
        if is_there {
            let mut word = [0];
            return match recv(gate.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => Ok(length > 0),
                // It was killed before it read that it was let on the last time.
                Err(Errno::ECONNRESET) => Ok(false),
                Err(errno) => Err(errno.into()),
            };
        }
        if tells || has_ended {
            return Ok(false);
        }
        if asked {
            let number = requests.receive()?;
            return Err(asked_to_end(number).into());
        }
    }
}

/// Why a child isn't there any more that hasn't come to all gates: its own error, or how it was ended.
fn lost(child: &Child, news: &File) -> anyhow::Error {
    match hear(news, Some(child)).and_then(|()| child.end()) {
        Err(error) => error,
        Ok(code) => {
            let text = format!("it ended with {code} before it came to the last gate");
            Ended { code, text }.into()
        }
    }
}

/// A piece of a user namespace's map: `count` IDs from `inside` on stand for as many from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// The first ID in the user namespace.
    pub inside: u32,
    /// The first ID in the parent's user namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Maps the users and groups of `child`'s user namespace, which is new and was made in this process's own. Each map can be
/// written once. See uid_map in user_namespaces(7).
///
/// # Errors
/// The text names the file and the map: the kernel takes from an unprivileged parent one ID, its own.
pub fn map_ids(child: &Child, users: &[IdMap], groups: &[IdMap]) -> Result<()> {
    let file = |name: &str| format!("/proc/{}/{name}", child.pid);
    let write = |name: &str, text: &str| {
        let file = file(name);
        fs::write(&file, text).with_context(|| format!("{text:?} to {file}"))
    };
    let text = |maps: &[IdMap]| -> String {
        let line = |map: &IdMap| format!("{} {} {}\n", map.inside, map.outside, map.count);
        maps.iter().map(line).collect()
    };
    if !geteuid().is_root() {
        // Else a process could leave a group that is kept from a file.
        write("setgroups", "deny")?;
    }
    write("uid_map", &text(users))?;
    write("gid_map", &text(groups))
}
