//! What a container is to be: plain data, from flags, an image or a file.

use crate::container::log::MaxSize;
use crate::container::restart::RestartPolicy;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::sync::LazyLock;
use step04_pivot_root::rootfs::Files;
use step04_pivot_root::{Env, with_values};
use step05_tty::terminal::Tty;
use step06_caps::network::Network;
use step06_caps::privileges::{Security, SecurityOption};
use step06_caps::seccomp::profile::Profile;
use step06_caps::users::UserName;
use step07_cgroups::resources::Resources;
use step08_overlay::layers::Storage;

/// The form that plans are written in today.
pub const VERSION: u32 = 1;

/// How many digits of an ID people are shown.
pub const SHORT: usize = 12;

/// All that makes one container different from another. What nobody has said is `None`: an image may say it
/// (command, directory, user, variables, signal), and otherwise there is a usual value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// The form that this is written in.
    pub version: u32,
    /// The hostname; the beginning of the container's ID, where none is given.
    pub hostname: Option<String>,
    /// Whether an init stands before the command, which forwards signals and reaps orphans.
    pub init: bool,
    /// Whether the container is removed when it has ended.
    pub rm: bool,
    /// When the container is started again.
    pub restart: RestartPolicy,
    /// The size at which a new log is begun.
    pub log_max_size: MaxSize,
    /// The signal that asks the container to end.
    pub stop_signal: Option<i32>,
    /// The name of the image that the layers are of, where they are of one that has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What tells that image from others, whatever their names are: the digest of its manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// What people and programs have noted on the container, by keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The command and its arguments.
    pub command: Option<Vec<String>>,
    /// What the command reads and where it writes.
    pub tty: Tty,
    /// What the container's files are made of.
    pub layers: Storage,
    /// Where the container's files come from.
    pub files: Files,
    /// What the command finds around itself.
    pub env: Env,
    /// What the container may use up.
    pub limits: Resources,
    /// Whose network the container has.
    pub network: Network,
    /// Who the command runs as.
    pub user: UserName,
    /// What the container's root may do.
    pub privileges: Security,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            version: VERSION,
            hostname: None,
            init: false,
            rm: false,
            restart: RestartPolicy::default(),
            log_max_size: MaxSize::default(),
            stop_signal: None,
            image: None,
            image_digest: None,
            labels: BTreeMap::new(),
            command: None,
            tty: Tty::default(),
            layers: Storage::default(),
            files: Files::default(),
            env: Env::default(),
            limits: Resources::default(),
            network: Network::default(),
            user: UserName::default(),
            privileges: Security::default(),
        }
    }
}

impl Plan {
    /// The command and its arguments: a shell, where none is given.
    pub fn command(&self) -> &[String] {
        static SHELL: LazyLock<[String; 1]> = LazyLock::new(|| ["sh".into()]);
        self.command.as_deref().unwrap_or(&*SHELL)
    }

    /// The hostname of the container `id`: the digits of its ID that people are shown, where none is given.
    pub fn hostname<'a>(&'a self, id: &'a str) -> &'a str {
        self.hostname.as_deref().unwrap_or(&id[..SHORT])
    }

    /// The signal that asks the container to end: SIGTERM, where none is given.
    pub fn stop_signal(&self) -> i32 {
        self.stop_signal.unwrap_or(libc::SIGTERM)
    }

    /// The variables that are given, those that come with a terminal among them.
    pub fn variables(&self) -> Vec<String> {
        [self.tty.environment(), self.env.env.clone()].concat()
    }

    /// The same plan, without anything that depends on who asks and where: the container can be started again
    /// from another directory, with another environment, by systemd. A file whose name may be worth nothing tomorrow is
    /// copied into `folder`.
    ///
    /// # Errors
    /// Flags that contradict each other; a file that isn't there.
    pub fn resolve(mut self, folder: &Path) -> Result<Plan> {
        if self.rm && self.restart != RestartPolicy::No {
            bail!("--rm and --restart: a container that is removed can't be started again");
        }
        self.env.env = with_values(self.env.env);
        if self.files.rootfs.is_some() {
            self.files.rootfs = Some(self.files.open()?.path);
        }
        let images = self.layers.image.iter().map(absolute);
        self.layers.image = images.collect::<Result<_, _>>()?;
        self.layers.keep = self.layers.keep.map(absolute).transpose()?;
        for volume in &mut self.layers.volume {
            volume.source = absolute(&volume.source)?;
        }
        if let Some(archive) = &mut self.layers.commit {
            archive.make_absolute()?;
        }
        for option in &mut self.privileges.security_opt {
            if let SecurityOption::Seccomp(file) = option {
                // What is wrong with the profile is told by the user's name for it, and not by that of our copy.
                Profile::read(file)?.compile(0)?;
                let copy = folder.join("seccomp.json");
                let copied = fs::copy(&*file, &copy);
                copied.with_context(|| format!("--security-opt seccomp={}", file.display()))?;
                *file = "seccomp.json".into();
            }
        }
        Ok(self)
    }

    /// The privileges, with the path of the seccomp profile's copy in `folder`.
    pub fn privileges(&self, folder: &Path) -> Security {
        let mut privileges = self.privileges.clone();
        for option in &mut privileges.security_opt {
            if let SecurityOption::Seccomp(file) = option {
                *file = folder.join(&*file);
            }
        }
        privileges
    }

    /// Where the container's root comes from, in a word or two: what `ps` shows for an image.
    pub fn image(&self) -> String {
        if let Some(name) = &self.image {
            return name.clone();
        }
        let last = |path: &PathBuf| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        match (&self.files.rootfs, self.layers.image.first()) {
            (Some(root), _) | (None, Some(root)) => last(root),
            (None, None) => "default".into(),
        }
    }
}
