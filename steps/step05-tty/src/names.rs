//! The files by which a container knows its own name and those of others: /etc/hosts,
//! /etc/hostname and /etc/resolv.conf. These files differ from one container to the next, so they are no
//! part of the root: each is a mount on top of whatever the root has there.

use crate::COMMANDS_UMASK;
use crate::mounts::mount_point;
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{SFlag, umask};
use nix::sys::statfs::TMPFS_MAGIC;
use std::fs;
use std::path::Path;
use step01_uts::call;

/// The files, each with its text.
pub struct NameFiles([(&'static str, String); 3]);

impl NameFiles {
    /// The files of a container that is called `hostname`. The container's resolvers are the host's.
    pub fn of(hostname: &str) -> NameFiles {
        let hosts = format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
        );
        let resolvers = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        NameFiles([
            ("/etc/hosts", hosts),
            ("/etc/hostname", format!("{hostname}\n")),
            ("/etc/resolv.conf", resolvers),
        ])
    }

    /// Binds the files into the container's root, which the caller is in. Call this before /dev is
    /// mounted: a tmpfs needs the place for a moment.
    ///
    /// The files lie in this tmpfs, which is unmounted at once: a bind mount keeps its filesystem
    /// alive by itself. No file is ever on the host's disk.
    pub fn attach(&self) -> Result<()> {
        // The files are for every user of the container, whatever the host's umask.
        umask(COMMANDS_UMASK);
        let none = None::<&str>;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let (tmpfs, data) = (Some("tmpfs"), Some("mode=755,size=1m"));
        let below = mount_point(Path::new("/dev"), SFlag::S_IFDIR)?;
        call!(mount(tmpfs, &below, tmpfs, flags, data))?;
        let dev = mount_point(Path::new("/dev"), SFlag::S_IFDIR)?;
        if dev.filesystem()? != TMPFS_MAGIC {
            bail!("/dev in the container is another one each time that one looks");
        }
        for (path, text) in &self.0 {
            let source = dev.write(path.trim_start_matches("/etc/"), text)?;
            let target = match mount_point(Path::new(path), SFlag::S_IFREG) {
                // A read-only root that has no such file does without the mount.
                Err(error) if error.downcast_ref() == Some(&Errno::EROFS) => continue,
                target => target?,
            };
            call!(mount(Some(&source), &target, none, MsFlags::MS_BIND, none))?;
        }
        call!(umount2(&dev, MntFlags::MNT_DETACH))?;
        Ok(())
    }
}
