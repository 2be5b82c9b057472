//! A prison, and what a process says of itself that is put into it.

use probe::Outcome;
use probe::Subject;
use probe::anyhow::{self, Context, Result, bail};
use probe::libc;
use probe::nix::sys::prctl::get_pdeathsig;
use probe::nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use step06_caps::Process;
use step06_caps::capabilities::{CapSets, permitted};
use step06_caps::seccomp::{Filter, Table, compile};
use step06_caps::users::User;
use step07_cgroups::Cgroup;
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::limits::Limits;
use step07_cgroups::rlimits::Ulimit;
use step10_exec::{Prison, same_prison};

/// The limit of open files that the caller begins with, the one that make_ready sets, and the one of the prison.
pub const FIRST: (u64, u64) = (400, 500);
pub const OF_READY: (u64, u64) = (150, 200);
pub const OF_PRISON: (u64, u64) = (100, 200);

/// What a process can say of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    pub groups: usize,
    pub files: (u64, u64),
    pub core: (u64, u64),
    pub uid: u32,
    pub dies_with_parent: bool,
}

/// What was seen: as often as make_ready ran, and afterwards.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    pub ready: Vec<Look>,
    pub after: Look,
    /// What same_prison returned, where that is an error.
    pub error: Option<String>,
}

/// Control groups of a container, in each hierarchy that there is; and two made-up ones, as there may be one hierarchy alone.
pub struct Scene {
    pub cgroup: Cgroup,
    id: String,
    made_up: [PathBuf; 2],
}

impl Scene {
    pub fn new(scratch: &Path) -> Result<Scene> {
        let id = new_id()?;
        let cgroup = Cgroup::create(&id, &Limits::default()).context("control groups")?;
        let made_up = ["one", "another"].map(|name| scratch.join(name));
        Ok(Scene {
            cgroup,
            id,
            made_up,
        })
    }

    /// The files by which a process joins them. Into one that is made up nobody has written yet.
    pub fn entrances(&self) -> Result<Vec<(PathBuf, File)>> {
        let mut entrances = self.cgroup.groups().entrances("")?;
        for path in &self.made_up {
            entrances.push((path.clone(), File::create(path)?));
        }
        Ok(entrances)
    }

    /// How many groups the calling process has joined.
    fn joined(&self, prison: &Prison) -> Result<usize> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let real = groups.lines().filter(|line| line.contains(&self.id));
        let is_written = |(path, file): &&(PathBuf, File)| {
            self.made_up.contains(path) && file.metadata().is_ok_and(|file| file.len() > 0)
        };
        Ok(real.count() + prison.groups.iter().filter(is_written).count())
    }

    /// The calling process, as it is now.
    pub fn look(&self, prison: &Prison) -> Result<Look> {
        Ok(Look {
            groups: self.joined(prison)?,
            files: limit("Max open files")?,
            core: limit("Max core file size")?,
            // SAFETY: takes nothing.
            uid: unsafe { libc::getuid() },
            dies_with_parent: get_pdeathsig()?.is_some(),
        })
    }

    /// Calls same_prison in `subject`, with this prison and what make_ready comes to.
    pub fn call(
        &self,
        subject: Subject,
        prison: &Prison,
        ready: impl Fn() -> Result<Process>,
    ) -> Result<Outcome> {
        let world = || Ok(setrlimit(Resource::RLIMIT_NOFILE, FIRST.0, FIRST.1)?);
        let function = |()| {
            let mut seen = Vec::new();
            let outcome = same_prison(prison, || {
                seen.push(self.look(prison)?);
                setrlimit(Resource::RLIMIT_NOFILE, OF_READY.0, OF_READY.1)?;
                ready()
            });
            Ok(Seen {
                ready: seen,
                after: self.look(prison)?,
                error: outcome.err().map(|error| format!("{error:#}")),
            })
        };
        subject.call_in(world, function, |_| Ok(()))
    }

    pub fn prison(&self, rlimits: &[&str]) -> Result<Prison> {
        let limit = |text: &&str| text.parse::<Ulimit>().map_err(anyhow::Error::msg);
        Ok(Prison {
            groups: self.entrances()?,
            rlimits: rlimits.iter().map(limit).collect::<Result<_>>()?,
        })
    }
}

/// A limit of the calling process, soft and hard. Its filter may refuse to ask for it by a system call.
fn limit(name: &str) -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let values = text.lines().find_map(|line| line.strip_prefix(name));
    let values = values.context("no such limit")?.split_whitespace();
    let numbers: Vec<u64> = values
        .take(2)
        .map(|value| value.parse().unwrap_or(u64::MAX))
        .collect();
    match numbers[..] {
        [soft, hard] => Ok((soft, hard)),
        _ => bail!("{name} has no values"),
    }
}

/// The limits of the prison, as people type them.
pub const RLIMITS: &[&str] = &["nofile=100:200", "core=0"];

/// A filter that refuses setrlimit(2), and nothing else.
fn filter() -> Result<Filter> {
    let allow = libc::SECCOMP_RET_ALLOW;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let calls = [libc::SYS_prlimit64, libc::SYS_setrlimit];
    let table = Table {
        architecture: if cfg!(target_arch = "x86_64") {
            0xc000_003e
        } else {
            0xc000_00b7
        },
        calls: calls
            .map(|number| (number as u32, vec![(vec![], refuse)]))
            .into(),
        newest: None,
        from: Vec::new(),
    };
    match compile(&[table], allow, allow) {
        Ok(filter) => Ok(filter),
        Err(length) => bail!("a filter of {length} instructions"),
    }
}

/// A user, with few capabilities, who may set no limits any more.
pub fn of_a_user() -> Result<Process> {
    Ok(Process {
        user: User {
            uid: 1000,
            gid: 1001,
            groups: vec![1002, 1003],
            home: "/".into(),
        },
        capabilities: CapSets::of(few(), 1000),
        no_new_privileges: true,
        filter: Some(filter()?),
    })
}

/// Root, with other sets of capabilities, no filter, and setuid programs.
pub fn of_root() -> Result<Process> {
    let one = 1 << 10;
    Ok(Process {
        user: User {
            uid: 0,
            gid: 0,
            groups: vec![5],
            home: "/root".into(),
        },
        capabilities: CapSets {
            bounding: few(),
            permitted: few(),
            effective: one,
            inheritable: one,
            ambient: one,
        },
        no_new_privileges: false,
        filter: None,
    })
}

/// CHOWN, KILL and NET_BIND_SERVICE.
fn few() -> u64 {
    (1 | 1 << 5 | 1 << 10) & permitted()
}
