//! The life of a container that somebody else keeps: made, let on, joined, and removed.

use crate::attributes::{self, Proc};
use crate::command::{Command, stand_in};
use crate::config::linux::{devices, id_maps, personality, propagation, sysctl};
use crate::config::mounts::Mount;
use crate::config::process::{capabilities, rlimits, to_be_given, user};
use crate::config::read::{Config, ProcessSpec};
use crate::hooks;
use crate::mounting::Prepared;
use crate::notify::console;
use crate::notify::{pidfd, ready};
use crate::state::store::{Container, State, Store, groups_of};
use crate::trees::{Tree, make_read_only, mask};
use crate::{Door, Parted, Status, namespaces, resources, wait_for_start};
use anyhow::{Context, Error, Result, bail};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{SFlag, lstat, makedev};
use nix::unistd::{Pid, chdir, chroot, close, geteuid, sethostname, setsid, symlinkat};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fs::{self, File};
use std::mem;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use step01_uts::{Refused, call};
use step02_pid::Child;
use step02_pid::gate::{Act, Gate, Namespaces, map_ids, spawn_gated};
use step02_pid::hidden::{forget_environment, hide};
use step03_mount::make_private;
use step04_pivot_root::root::{directory_at, kind};
use step04_pivot_root::why::witness::Witness;
use step04_pivot_root::{bind_self, swap_roots};
use step05_tty::mounts::mount_point_in;
use step05_tty::terminal::{Terminal, null};
use step05_tty::{Device, LINKS};
use step06_caps::seccomp::Filter;
use step06_caps::{Process, become_user, remount_read_only};
use step07_cgroups::cgroup::group::members_of;
use step07_cgroups::cgroup::places::Groups;
use step07_cgroups::devices::make_devices_and_folders;
use step07_cgroups::{Cgroup, Hierarchy};
use step09_detach::{Identity, save};
use step10_exec::{Prison, join, namespaces_of, same_prison};

/// What an engine asks of `create`, besides config.json.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The directory with config.json.
    pub bundle: PathBuf,
    /// Where an engine listens for a descriptor for the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Where it wants to read the process's ID.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the command gets.
    pub preserve_fds: u32,
    /// Whether the root is entered without pivot_root, which the root of an initramfs doesn't take.
    pub no_pivot: bool,
    /// Whether the process keeps the session keyring of the runtime.
    pub no_new_keyring: bool,
}

/// Where a process's terminal goes.
pub enum Console {
    /// There is none: the process has the runtime's own descriptors 0 to 2.
    None,
    /// To an engine.
    Engine(OwnedFd),
    /// To this process, which carries the bytes.
    Ours(Terminal),
}

/// All that config.json comes to, made ready before there is a child.
struct Pieces<'a> {
    config: &'a Config,
    process: &'a ProcessSpec,
    wishes: &'a Wishes,
    parted: Parted,
    rootfs: PathBuf,
    prepared: Prepared,
    devices: Vec<Device<'static>>,
    sysctl: Vec<(String, String)>,
    propagation: Option<MsFlags>,
    personality: Option<libc::c_ulong>,
    filter: Option<Filter>,
    own_users: bool,
}

impl<'a> Pieces<'a> {
    fn of(config: &'a Config, wishes: &'a Wishes) -> Result<Pieces<'a>> {
        let linux = &config.linux;
        let process = config.process.as_ref().context("process: missing field")?;
        let root = config.root.as_ref().context("root: missing field")?;
        let rootfs = wishes.bundle.join(&root.path);
        if !rootfs.is_dir() {
            bail!("root.path: {}: no such directory", rootfs.display());
        }
        let parted = namespaces(&linux.namespaces)?;
        let has = |flag| parted.all.contains(flag);
        for (field, is_there, flag) in [
            ("root", true, CloneFlags::CLONE_NEWNS),
            (
                "hostname",
                config.hostname.is_some(),
                CloneFlags::CLONE_NEWUTS,
            ),
            (
                "domainname",
                config.domainname.is_some(),
                CloneFlags::CLONE_NEWUTS,
            ),
            (
                "linux.uidMappings",
                !linux.uid_mappings.is_empty(),
                CloneFlags::CLONE_NEWUSER,
            ),
            ("linux.timeOffsets", !linux.time_offsets.is_empty(), TIME),
        ] {
            if is_there && !has(flag) {
                let mut kinds = crate::KINDS.iter();
                let kind = kinds
                    .find(|(_, known)| *known == flag)
                    .map_or("", |(kind, _)| kind);
                bail!(
                    "{field}: that takes a {kind} namespace of the container's own (linux.namespaces)"
                );
            }
        }
        let own_users = has(CloneFlags::CLONE_NEWUSER);
        if parted.new.contains(CloneFlags::CLONE_NEWUSER) && linux.uid_mappings.is_empty() {
            bail!("linux.uidMappings: a new user namespace needs them");
        }
        let devices = devices(&linux.devices)?;
        let mounts = Mount::read_all(&config.mounts, &wishes.bundle, &linux.mount_label)?;
        let of_host: &[Device] = if own_users { &devices } else { &[] };
        let filter = linux.seccomp.as_ref().map(|profile| profile.compile(0));
        Ok(Pieces {
            config,
            process,
            wishes,
            prepared: Prepared::of(mounts, of_host)?,
            rootfs,
            parted,
            devices,
            sysctl: sysctl(linux)?,
            propagation: propagation(&linux.rootfs_propagation)?,
            personality: personality(linux)?,
            filter: filter.transpose().context("linux.seccomp")?,
            own_users,
        })
    }
}

/// The flag of a time namespace, which nix doesn't name.
const TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

/// What becomes a namespace of the child's only later: its own cgroup namespace begins where its groups are, and the clocks
/// of its time namespace can be set only from outside of that.
const LATER: CloneFlags = CloneFlags::CLONE_NEWCGROUP.union(TIME);

// ANCHOR: create
/// Makes the container `id`, up to the door behind which its command is. Returns its process, which is a child of ours.
///
/// # Errors
/// Anything that config.json asks for and that can't be done: the text names the property. Nothing is left then.
pub fn create(
    store: &Store,
    id: &str,
    text: &str,
    config: &Config,
    wishes: &Wishes,
    console: &Console,
) -> Result<(Container, Child)> {
    let pieces = Pieces::of(config, wishes)?;
    let limits = resources::limits(&config.linux.resources)?;
    let ulimits = rlimits(pieces.process)?;
    let (container, lock) = store.create(id)?;
    let path = groups_of(config, id);
    let made = || -> Result<Child> {
        container.keep_config(text)?;
        let door = Door::new(&container.socket(), &container.waits())?;
        let cgroup = match Cgroup::create_at(&path, &limits) {
            // An ordinary user has no groups to give, and limits nothing.
            Err(_) if !geteuid().is_root() && limits.others.is_empty() => None,
            made => Some(made.context("linux.cgroupsPath, linux.resources")?),
        };
        let groups = cgroup
            .as_ref()
            .map_or_else(|| Groups::at(&path), |cgroup| Ok(cgroup.groups()))?;
        let prison = Prison {
            groups: groups.doors("")?,
            rlimits: ulimits,
        };
        let ready = ready::prepare(&container)?;
        let mut command = Command::of(pieces.process, wishes.preserve_fds);
        if ready.is_some() {
            command
                .env
                .retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
            command.env.push(ready::VARIABLE.into());
        }
        let witness = Witness::new(
            &pieces.rootfs,
            &command.args[0],
            &command.env,
            &pieces.process.cwd,
        )?;
        let child = pieces.spawn(&container, |gate| {
            // The lock is the open file's, which the child has in common with us.
            close(lock.descriptor())?;
            pieces.be_root()?;
            let mut command = command.clone();
            let mut program = String::new();
            same_prison(&prison, || {
                pieces.make_ready(gate, id, &groups, ready.as_ref())?;
                pieces.take_console(console)?;
                // A container may do without a procfs, and then nobody looks into it.
                let _ = witness.hand_over();
                program = command.find(pieces.process.user.uid)?;
                wait_for_start(&door)?;
                hooks::run(
                    "startContainer",
                    &config.hooks.start_container,
                    &pieces.seen_inside(id),
                )?;
                Ok(pieces.confinement())
            })?;
            command.execute(&program)
        });
        let child = child.map_err(|error| witness.testify_to(error))?;
        // The groups stay, and so does what is told of them: `delete` removes them.
        mem::forget(cgroup);
        Ok(child)
    };
    let child = made().inspect_err(|_| drop(container.remove()))?;
    drop(lock);
    Ok((container, child))
}
// ANCHOR_END: create

impl Pieces<'_> {
    /// Starts the child, with what the host does for it at its two gates.
    fn spawn(
        &self,
        container: &Container,
        body: impl Fn(&Gate) -> Result<Infallible>,
    ) -> Result<Child> {
        let linux = &self.config.linux;
        let mut born = |child: &Child| -> Result<()> {
            container.save(&self.state(container, child.pid)?)?;
            if self.parted.new.contains(CloneFlags::CLONE_NEWUSER) {
                map_ids(
                    child,
                    &id_maps(&linux.uid_mappings),
                    &id_maps(&linux.gid_mappings),
                )?;
            }
            attributes::set_oom_score(child.pid, self.process.oom_score_adj)
        };
        let mut mounted = |child: &Child| -> Result<()> {
            let state = state_of(
                self.config,
                &container.id,
                Status::Creating,
                child.pid.as_raw(),
                &self.wishes.bundle,
            );
            hooks::run("prestart", &self.config.hooks.prestart, &state)?;
            hooks::run("createRuntime", &self.config.hooks.create_runtime, &state)
        };
        let mut acts: [Act; 2] = [&mut born, &mut mounted];
        let wanted = Namespaces {
            new: self.parted.new.difference(LATER),
            joined: &self.parted.joined,
        };
        let child = spawn_gated(&wanted, &mut acts, body)?;
        if let Some(path) = &self.wishes.pid_file {
            save(path, child.pid.to_string().as_bytes(), false)?;
        }
        if let Some(path) = &self.wishes.pidfd_socket {
            pidfd::send(path, &child.pidfd)?;
        }
        Ok(child)
    }

    fn state(&self, container: &Container, pid: Pid) -> Result<State> {
        Ok(State {
            oci_version: self.config.oci_version.clone(),
            id: container.id.clone(),
            process: Identity::of(pid)?,
            bundle: self.wishes.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            owner: geteuid().as_raw(),
            groups: Some(groups_of(self.config, &container.id)),
            annotations: self.config.annotations.clone(),
        })
    }

    /// Becomes root in a user namespace, whose IDs have just been mapped, and hides what came along from the host.
    fn be_root(&self) -> Result<()> {
        if self.own_users {
            let root = step06_caps::users::User {
                uid: 0,
                gid: 0,
                groups: vec![],
                home: String::new(),
            };
            become_user(&root)?;
        }
        hide()?;
        forget_environment()
    }

    // ANCHOR: make_ready
    /// The child's half, up to the root: chapter by chapter what the earlier steps did, as config.json wants it.
    fn make_ready(
        &self,
        gate: &Gate,
        id: &str,
        groups: &Groups,
        ready: Option<&Tree>,
    ) -> Result<()> {
        let (config, linux, rootfs) = (self.config, &self.config.linux, &*self.rootfs);
        call!(setsid())?;
        if self.parted.new.contains(CloneFlags::CLONE_NEWCGROUP) {
            call!(unshare(CloneFlags::CLONE_NEWCGROUP))?;
        }
        if self.parted.new.contains(TIME) {
            call!(unshare(TIME))?;
            attributes::set_clocks(&linux.time_offsets)?;
        }
        if !self.wishes.no_new_keyring {
            attributes::new_keyring(id)?;
        }
        if let Some(hostname) = &config.hostname {
            call!(sethostname(hostname))?;
        }
        if let Some(domainname) = &config.domainname {
            call!(setdomainname(domainname))?;
        }

        make_private()?;
        bind_self(rootfs)?;
        let root = directory_at(rootfs)?;
        let own_view = self.parted.all.contains(CloneFlags::CLONE_NEWCGROUP);
        self.prepared.mount(&root, groups, own_view)?;
        if let Some(ready) = ready {
            ready.attach(&mount_point_in(
                &root,
                Path::new(ready::DIRECTORY),
                SFlag::S_IFDIR,
            )?)?;
        }
        gate.wait()?;
        hooks::run(
            "createContainer",
            &config.hooks.create_container,
            &self.seen_inside(id),
        )?;
        // While the old root is there: the kernel gives a procfs to a user namespace that sees all of another one.
        let proc = match self.sysctl.is_empty() && !attributes::is_labelled(self.process) {
            true => None,
            false => Some(Proc::open()?),
        };
        match self.wishes.no_pivot {
            true => move_root(rootfs)?,
            false => swap_roots(rootfs, || Ok(()))?,
        }

        if self.prepared.has_own_dev {
            if !self.own_users {
                self.make_devices()?;
            }
            make_links()?;
        }
        if let Some(proc) = &proc {
            proc.set_sysctl(&self.sysctl)?;
            proc.set_labels(self.process)?;
        }
        for path in &linux.readonly_paths {
            make_read_only(path).with_context(|| format!("linux.readonlyPaths: {path}"))?;
        }
        if !linux.masked_paths.is_empty() {
            let null = null()?;
            for path in &linux.masked_paths {
                mask(&null, path).with_context(|| format!("linux.maskedPaths: {path}"))?;
            }
        }
        if let Some(domain) = self.personality {
            attributes::set_personality(domain)?;
        }
        Ok(())
    }
    // ANCHOR_END: make_ready

    fn make_devices(&self) -> Result<()> {
        // Most often nothing is there yet.
        let made = make_devices_and_folders(&self.devices);
        let exists = |error: &Error| {
            let refused = error.downcast_ref::<Refused>();
            refused.is_some_and(|refused| refused.errno() == Errno::EEXIST)
        };
        match made {
            Err(error) if exists(&error) => {}
            made => return made.context("linux.devices"),
        }
        for device in &self.devices {
            let made = make_devices_and_folders(std::slice::from_ref(device));
            match made {
                Err(error) if is_there_already(&error, device) => {}
                made => made.with_context(|| format!("linux.devices: {}", device.path))?,
            }
        }
        Ok(())
    }

    /// Gives the process its terminal, and has the root and /dev become what they are to stay.
    fn take_console(&self, console: &Console) -> Result<()> {
        let size = self
            .process
            .console_size
            .map(|size| (size.height, size.width));
        let uid = self.process.user.uid;
        match console {
            Console::None => {}
            Console::Engine(engine) => console::attach(engine, size, uid, true)?,
            Console::Ours(terminal) => {
                terminal.attach()?;
                terminal.give_to(uid)?;
            }
        }
        let read_only = |mount: &crate::config::read::MountSpec| {
            mount.destination == Path::new("/dev") && mount.options.iter().any(|word| word == "ro")
        };
        if self.config.mounts.iter().any(read_only) && self.prepared.has_own_dev {
            remount_read_only("/dev")?;
        }
        if self.config.root.as_ref().is_some_and(|root| root.readonly) {
            remount_read_only("/").context("root.readonly")?;
        }
        if let Some(flags) = self.propagation {
            let none = None::<&str>;
            call!(mount(none, "/", none, flags, none))?;
        }
        stand_in(
            &self.process.cwd,
            self.process.user.umask,
            self.wishes.preserve_fds,
        )
    }

    /// What the process may do.
    fn confinement(&self) -> Process {
        Process {
            user: user(self.process),
            capabilities: capabilities(&self.process.capabilities, to_be_given(self.own_users)),
            no_new_privileges: self.process.no_new_privileges,
            filter: self.filter.clone(),
        }
    }

    fn seen_inside(&self, id: &str) -> Value {
        state_of(
            self.config,
            id,
            Status::Created,
            std::process::id() as i32,
            &self.wishes.bundle,
        )
    }
}

/// Whether `device` couldn't be made because it is there, as that very device.
fn is_there_already(error: &Error, device: &Device) -> bool {
    let refused = error.downcast_ref::<Refused>();
    let exists = refused.is_some_and(|refused| refused.errno() == Errno::EEXIST);
    let same = lstat(&*device.path).is_ok_and(|found| {
        let number = makedev(device.number.major.into(), device.number.minor.into());
        kind(&found) == device.kind && (device.kind == SFlag::S_IFIFO || found.st_rdev == number)
    });
    exists && same
}

/// Makes the links in /dev. What is there already stays.
fn make_links() -> Result<()> {
    for (target, link) in LINKS {
        match symlinkat(*target, AT_FDCWD, *link) {
            Err(Errno::EEXIST) => {}
            made => made.with_context(|| (*link).to_owned())?,
        }
    }
    Ok(())
}

/// The state that a hook reads: the part of the specification on hooks.
pub fn state_of(config: &Config, id: &str, status: Status, pid: i32, bundle: &Path) -> Value {
    json!({
        "ociVersion": config.oci_version,
        "id": id,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": config.annotations,
    })
}

/// Sets the NIS domain name of the UTS namespace: setdomainname(2).
fn setdomainname(name: &str) -> nix::Result<()> {
    // SAFETY: the kernel reads as many bytes as there are.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Enters the root without pivot_root: the mount is moved over the old root, which stays beneath.
fn move_root(rootfs: &Path) -> Result<()> {
    let none = None::<&str>;
    call!(chdir(rootfs))?;
    call!(mount(Some("."), "/", none, MsFlags::MS_MOVE, none))?;
    call!(chroot("."))?;
    call!(chdir("/"))?;
    Ok(())
}

/// What an engine asks of `exec`.
pub struct Joining<'a> {
    /// The process that joins.
    pub process: &'a ProcessSpec,
    /// The group below the container's own that it goes to.
    pub below: &'a str,
    /// How many descriptors from 3 on the command gets.
    pub preserve_fds: u32,
}

// ANCHOR: exec
/// Starts another process in a container that runs, and returns when it has become its command.
///
/// # Errors
/// As [`create`].
pub fn exec(config: &Config, state: &State, joining: &Joining, console: &Console) -> Result<Child> {
    let process = joining.process;
    let first = state.process.pid;
    let pidfd = state.process.open()?.context("its process is gone")?;
    let prison = Prison {
        groups: doors(state, joining.below)?,
        rlimits: rlimits(process)?,
    };
    let filter = config
        .linux
        .seccomp
        .as_ref()
        .map(|profile| profile.compile(0));
    let filter = filter.transpose().context("linux.seccomp")?;
    let theirs = namespaces_of(first)?;
    let own_users = theirs.contains(CloneFlags::CLONE_NEWUSER);
    let command = Command::of(process, joining.preserve_fds);
    let root = PathBuf::from(format!("/proc/{first}/root"));
    let witness = Witness::new(&root, &command.args[0], &command.env, &process.cwd)?;
    let size = process.console_size.map(|size| (size.height, size.width));
    let child = join(&pidfd, theirs, || {
        let mut command = command.clone();
        let mut program = String::new();
        same_prison(&prison, || {
            call!(setsid())?;
            match console {
                Console::None => {}
                Console::Engine(engine) => console::attach(engine, size, process.user.uid, false)?,
                Console::Ours(terminal) => {
                    terminal.attach()?;
                    terminal.give_to(process.user.uid)?;
                }
            }
            if attributes::is_labelled(process) || process.oom_score_adj.is_some() {
                let proc = Proc::open()?;
                proc.set_labels(process)?;
                process
                    .oom_score_adj
                    .map(|score| proc.set_oom_score(score))
                    .transpose()?;
            }
            stand_in(&process.cwd, process.user.umask, joining.preserve_fds)?;
            let _ = witness.hand_over();
            program = command.find(process.user.uid)?;
            Ok(Process {
                user: user(process),
                capabilities: capabilities(&process.capabilities, to_be_given(own_users)),
                no_new_privileges: process.no_new_privileges,
                filter: filter.clone(),
            })
        })?;
        command.execute(&program)
    });
    child.map_err(|error| witness.testify_to(error))
}
// ANCHOR_END: exec

/// The files by which a process joins the container's control groups, or in version 2 those to which its first process has
/// moved; with `below`, a group below them.
fn doors(state: &State, below: &str) -> Result<Vec<(PathBuf, File)>> {
    let Some(path) = &state.groups else {
        return Ok(Vec::new());
    };
    let groups = Groups::at(path)?;
    if !below.is_empty() {
        let door = |(hierarchy, folder): (&Hierarchy, &Path)| {
            let path = folder
                .join(below.trim_start_matches('/'))
                .join(members_of(hierarchy.version));
            let file = File::options().write(true).open(&path);
            file.map(|file| (path.clone(), file))
                .with_context(|| format!("--cgroup: {}", path.display()))
        };
        return groups.all().map(door).collect();
    }
    let theirs = fs::read_to_string(format!("/proc/{}/cgroup", state.process.pid))?;
    let unified = theirs.lines().find_map(|line| line.strip_prefix("0::/"));
    let moved_to = unified.and_then(|place| Path::new(place).strip_prefix(path).ok());
    let moved_to = moved_to.and_then(Path::to_str).unwrap_or_default();
    groups.doors(moved_to)
}
