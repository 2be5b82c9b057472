//! How a service manager hears that the container is ready: sd_notify(3).
//!
//! The manager has named a socket to us, by NOTIFY_SOCKET. The container gets one of its own, in a directory that it sees at
//! /run/notify, and the command is told of it by the same variable. What the command says there is handed on by `start`,
//! which doesn't end before: the manager wants to hear it from somebody whom it knows.

use crate::state::store::Container;
use crate::trees::Tree;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::env;
use std::fs::{self, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use step04_pivot_root::root::{by_descriptor, directory_at};
use step05_tty::options::Options;

/// Where the container sees the directory.
pub const DIRECTORY: &str = "/run/notify";

/// The command's variable.
pub const VARIABLE: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

/// The most bytes of one message.
const LONGEST: usize = 4096;

/// The manager's socket, if there is a manager. One in the abstract namespace begins with @.
fn managers() -> Option<PathBuf> {
    let path = env::var_os("NOTIFY_SOCKET").map(PathBuf::from)?;
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

fn directory_of(container: &Container) -> PathBuf {
    container.folder.join("notify")
}

/// The directory for the container, as a mount that its processes can't change; `None`: nobody wants to hear anything.
pub fn prepare(container: &Container) -> Result<Option<Tree>> {
    if managers().is_none() {
        return Ok(None);
    }
    let directory = directory_of(container);
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
    let tree = Tree::of(&directory, false)?;
    tree.set_flags(&Options::read(["ro", "nosuid", "nodev", "noexec"]))?;
    tree.set_propagation(MsFlags::MS_PRIVATE)?;
    Ok(Some(tree))
}

/// The container's socket, to which its command may write.
pub struct Ready {
    socket: UnixDatagram,
    manager: PathBuf,
}

impl Ready {
    /// Opens the socket; `None`: nobody wants to hear anything.
    pub fn open(container: &Container) -> Result<Option<Ready>> {
        let directory = directory_of(container);
        let (Some(manager), true) = (managers(), directory.is_dir()) else {
            return Ok(None);
        };
        let folder = directory_at(&directory)?;
        let path = by_descriptor(&folder).join("notify.sock");
        let socket = UnixDatagram::bind(&path).context("NOTIFY_SOCKET")?;
        // The command's user needn't be root.
        fs::set_permissions(&path, Permissions::from_mode(0o777))?;
        socket.set_nonblocking(true)?;
        Ok(Some(Ready { socket, manager }))
    }

    /// Waits until the command says that it is ready, and hands that on; or until the process of `pidfd` has ended. `pid` is
    /// the process whom the manager is to watch from then on.
    pub fn hand_on(&self, pidfd: &OwnedFd, pid: i32) -> Result<()> {
        loop {
            let mut polled = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [said, ended] = polled.map(|each| each.any() == Some(true));
            let mut message = [0; LONGEST];
            if said {
                let length = self.socket.recv(&mut message).unwrap_or(0);
                let mut lines = message[..length].split(|byte| *byte == b'\n');
                if lines.any(|line| line == b"READY=1") {
                    return self.tell(&format!("READY=1\nMAINPID={pid}"));
                }
            } else if ended {
                return Ok(());
            }
        }
    }

    fn tell(&self, text: &str) -> Result<()> {
        let socket = UnixDatagram::unbound()?;
        let name = self.manager.to_string_lossy().into_owned();
        let sent = match name.strip_prefix('@') {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(text.as_bytes(), &address)
            }
            None => socket.send_to(text.as_bytes(), Path::new(&name)),
        };
        sent.map(drop)
            .with_context(|| format!("NOTIFY_SOCKET: {name}"))
    }
}
