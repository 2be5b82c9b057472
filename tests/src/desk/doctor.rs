//! What this machine has and lacks, chapter by chapter, and what to do about it.
//!
//! What can be tried is tried: a namespace by making one, in a process that ends at once. What can
//! only be read is read, and the file is named.

use crate::chapters::CHAPTERS;
use crate::desk::exercises::state_folder;
use crate::host::evidence::{Mount, Process, hosts_mounts};
use crate::host::{Way, as_root, this_program};
use anyhow::Result;
use nix::sched::CloneFlags;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::utsname::uname;
use nix::unistd::{Pid, geteuid};
use std::fs;
use std::path::Path;
use step01_uts::exec;
use step02_pid::{die_with_parent, spawn};
use step03_mount::{make_private, mount_proc, mount_sysfs};

/// One thing that a chapter needs.
struct Finding {
    /// Whether it is there.
    good: bool,
    /// What it is, and what was seen of it.
    fact: String,
    /// What to do where it isn't.
    remedy: &'static str,
}

fn finding(good: bool, fact: impl Into<String>, remedy: &'static str) -> Finding {
    Finding {
        good,
        fact: fact.into(),
        remedy,
    }
}

const DEV_CONTAINER: &str = "use the dev container: docker compose run --rm workshop";

/// Prints the findings. Returns 0 when the first four chapters can be done, otherwise 1.
pub fn doctor() -> Result<u8> {
    let way = Way::here();
    if way != Way::Root && way != Way::None && !geteuid().is_root() {
        // What root can do here, root must try.
        println!("{}", way.in_words());
        let status = as_root(&this_program()?)
            .arg("doctor")
            .env(TOLD, format!("{way:?}"))
            .status()?;
        return Ok(crate::host::exit_code(status));
    }
    let told = std::env::var(TOLD).ok();
    // What root in a user namespace may do says nothing of the later chapters.
    let last = match told.as_deref() {
        Some("UserNamespace") => 4,
        _ => usize::MAX,
    };
    // The chapter before the first that something is missing for.
    let mut done = last.min(NEWEST);
    let system = uname()?;
    println!(
        "Linux {} on {}, {}",
        system.release().to_string_lossy(),
        system.machine().to_string_lossy(),
        whereabouts()
    );
    if told.is_none() {
        println!("{}", way.in_words());
    }
    for (chapter, title, findings) in [
        (0, "the course", course()),
        (1, "UTS namespaces", uts()),
        (2, "PID namespaces", pid()),
        (3, "mount, IPC and network namespaces", mounts()),
        (4, "pivot_root, and a root filesystem", roots()?),
        (5, "terminals", terminals()),
        (6, "capabilities and seccomp", privileges()?),
        (7, "cgroups", cgroups()?),
        (8, "overlayfs", overlay()?),
        (12, "calls that fail once", faults()),
    ] {
        match chapter {
            chapter if chapter > last => {
                println!("chapter {chapter}: {title}: needs sudo, or the dev container");
                continue;
            }
            0 => println!("{title}"),
            chapter => println!("chapter {chapter}: {title}"),
        }
        for finding in &findings {
            let mark = if finding.good { '✓' } else { '✗' };
            println!("  {mark} {}", finding.fact);
            if !finding.good {
                println!("      remedy: {}", finding.remedy);
                if chapter > 0 {
                    done = done.min(chapter - 1);
                }
            }
        }
    }
    println!("user namespaces, for those without sudo (chapters 1 to 4)");
    println!("  {}", user_namespaces());
    match done {
        0 => println!("Chapter 1 can't be done here: see the remedies above."),
        done if done < last.min(NEWEST) => {
            println!(
                "Chapters 1 to {done} can be done here; for the others see the remedies above."
            );
        }
        done => println!("Chapters 1 to {done} can be done here."),
    }
    Ok(u8::from(done < ENOUGH))
}

/// The newest chapter.
const NEWEST: usize = CHAPTERS.len();

/// With as many chapters a morning is full.
const ENOUGH: usize = 4;

/// Set for the elevated half of the doctor.
const TOLD: &str = "TEN_STEPS_DOCTOR";

/// Whether this is a container already.
fn whereabouts() -> &'static str {
    let first = fs::read_to_string("/proc/1/environ").unwrap_or_default();
    if Path::new("/.dockerenv").exists() {
        "in a Docker container"
    } else if Path::new("/run/.containerenv").exists() {
        "in a Podman container"
    } else if first.contains("container=") {
        "in a container"
    } else {
        "not in a container that we know of"
    }
}

fn course() -> Vec<Finding> {
    let release = uname().map(|system| system.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .filter_map(|word| word.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let tool = |name, use_: &str, remedy| {
        let found = is_installed(name);
        let word = if found {
            "is installed"
        } else {
            "isn't installed"
        };
        finding(found, format!("{name} {word} ({use_})"), remedy)
    };
    vec![
        finding(
            version >= (5, 11),
            format!("kernel {}.{}; 5.11 is needed", version.0, version.1),
            "a newer kernel, or the dev container on a newer machine",
        ),
        finding(
            cfg!(any(target_arch = "x86_64", target_arch = "aarch64")),
            format!("processor {}", std::env::consts::ARCH),
            "the course is written for x86-64 and aarch64",
        ),
        tool(
            "strace",
            "why a check fails, and cargo progress trace",
            "apt-get install strace",
        ),
        tool(
            "mdbook",
            "the book",
            "cargo install mdbook, or: docker compose up book",
        ),
    ]
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .any(|folder| Path::new(folder).join(program).is_file())
}

fn uts() -> Vec<Finding> {
    vec![namespace("UTS", CloneFlags::CLONE_NEWUTS, "uts")]
}

fn pid() -> Vec<Finding> {
    vec![namespace("PID", CloneFlags::CLONE_NEWPID, "pid")]
}

fn mounts() -> Vec<Finding> {
    let mut findings = vec![
        namespace("mount", CloneFlags::CLONE_NEWNS, "mnt"),
        namespace("IPC", CloneFlags::CLONE_NEWIPC, "ipc"),
        namespace("network", CloneFlags::CLONE_NEWNET, "net"),
    ];
    let windows = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET;
    let windows = attempt(windows, || {
        make_private()?;
        mount_proc()?;
        mount_sysfs()
    });
    findings.push(tried(
        "a procfs and a sysfs of one's own",
        windows,
        DEV_CONTAINER,
    ));
    findings
}

fn roots() -> Result<Vec<Finding>> {
    let table = hosts_mounts()?;
    let top = table.iter().find(|mount| mount.target == Path::new("/"));
    let kind = top.map_or("unknown", |mount| mount.filesystem.as_str());
    let state = state_folder();
    let there = state
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let noexec = statvfs(there)?.flags().contains(FsFlags::ST_NOEXEC);
    let word = if noexec {
        "forbids programs"
    } else {
        "takes programs"
    };
    let of = filesystem_of(&table, there);
    Ok(vec![
        finding(
            kind != "rootfs",
            format!("/ is on {kind}; pivot_root can't leave an initramfs (rootfs)"),
            "start the machine from a disk, or use the dev container",
        ),
        finding(
            !noexec,
            format!("roots lie in {} ({of}), which {word}", state.display()),
            "mount it without noexec",
        ),
        finding(
            is_installed("tar"),
            "tar, which keeps the links of a root",
            "apt-get install tar",
        ),
    ])
}

fn terminals() -> Vec<Finding> {
    let has = fs::read_to_string("/proc/filesystems")
        .unwrap_or_default()
        .contains("devpts");
    vec![finding(has, "devpts (/proc/filesystems)", DEV_CONTAINER)]
}

fn privileges() -> Result<Vec<Finding>> {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let own = Process(Pid::this()).status("CapEff")?;
    let mask = u64::from_str_radix(&own, 16)?;
    let has = |bit: u32| mask >> bit & 1 == 1;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_SYS_RESOURCE: u32 = 24;
    let resource = match has(CAP_SYS_RESOURCE) {
        true => "hard limits can be raised (CAP_SYS_RESOURCE)",
        false => "hard limits can't be raised (no CAP_SYS_RESOURCE); nothing else is lost by that",
    };
    Ok(vec![
        finding(
            actions.is_ok(),
            "seccomp (/proc/sys/kernel/seccomp/actions_avail)",
            "a kernel with CONFIG_SECCOMP_FILTER",
        ),
        finding(
            has(CAP_SYS_ADMIN),
            format!("CAP_SYS_ADMIN (CapEff {own})"),
            DEV_CONTAINER,
        ),
        finding(true, resource, ""),
    ])
}

/// Each controller and where it is: on v1, on v2, on neither.
fn cgroups() -> Result<Vec<Finding>> {
    let table = hosts_mounts()?;
    let v2 = table.iter().find(|mount| mount.filesystem == "cgroup2");
    let on_v2 = v2.map_or(String::new(), |mount| {
        fs::read_to_string(mount.target.join("cgroup.controllers")).unwrap_or_default()
    });
    let on_v1 = |controller: &str| {
        table.iter().find(|mount| {
            mount.filesystem == "cgroup" && mount.super_options.split(',').any(|o| o == controller)
        })
    };
    let any_v1 = table.iter().any(|mount| mount.filesystem == "cgroup");
    let mode = match (any_v1, v2.is_some()) {
        (true, true) => "hybrid: v1 and v2",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "no cgroup is mounted",
    };
    const REMEDY: &str = "mount -t cgroup2 none /sys/fs/cgroup, or the dev container";
    let mut findings = vec![finding(any_v1 || v2.is_some(), mode, REMEDY)];
    for controller in ["memory", "cpu", "cpuset", "pids", "devices"] {
        let v1 = on_v1(controller).map(|mount| format!("v1 at {}", mount.target.display()));
        // v2 has no files for devices: a BPF program decides there.
        let by_v2 = on_v2.split_whitespace().any(|name| name == controller);
        let by_bpf = controller == "devices" && v2.is_some();
        let where_ = v1.or((by_v2 || by_bpf).then(|| "v2".to_owned()));
        let fact = format!("{controller}: {}", where_.as_deref().unwrap_or("nowhere"));
        findings.push(finding(
            where_.is_some(),
            fact,
            "start the kernel with this controller",
        ));
    }
    Ok(findings)
}

fn overlay() -> Result<Vec<Finding>> {
    let known = fs::read_to_string("/proc/filesystems")?.contains("\toverlay\n");
    let state = state_folder();
    let there = state
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let below = filesystem_of(&hosts_mounts()?, there);
    Ok(vec![
        finding(known, "overlayfs (/proc/filesystems)", "modprobe overlay"),
        finding(
            below != "overlay",
            format!("the layers will lie on {below}, below {}", state.display()),
            "an overlay can't lie on another's upper layer: mount a volume or a tmpfs there",
        ),
    ])
}

/// By strace a check has a call fail, or a process stop at one.
fn faults() -> Vec<Finding> {
    let found = is_installed("strace");
    let word = if found {
        "is installed"
    } else {
        "isn't installed"
    };
    vec![finding(
        found,
        format!("strace {word} (the checks have calls fail by it)"),
        "apt-get install strace",
    )]
}

/// The type of the filesystem that `path` is on.
fn filesystem_of(table: &[Mount], path: &Path) -> String {
    let holding = table.iter().filter(|mount| path.starts_with(&mount.target));
    let deepest = holding.max_by_key(|mount| mount.target.components().count());
    deepest.map_or("unknown".into(), |mount| mount.filesystem.clone())
}

/// What allows or forbids user namespaces to an ordinary user.
fn user_namespaces() -> String {
    let value = |file: &str| {
        fs::read_to_string(file)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let limit = value("/proc/sys/user/max_user_namespaces");
    if limit.as_deref() == Some("0") {
        return "✗ /proc/sys/user/max_user_namespaces is 0".into();
    }
    if value("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "✗ /proc/sys/kernel/unprivileged_userns_clone is 0".into();
    }
    let restricted = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    if value(restricted).as_deref() == Some("1") {
        return format!("✗ AppArmor forbids them ({restricted} is 1); root may set it to 0");
    }
    match attempt(CloneFlags::CLONE_NEWUSER, || Ok(())) {
        Ok(()) => format!("✓ allowed (limit {})", limit.unwrap_or_default()),
        Err(error) => format!("✗ {error:#}; seccomp in a container forbids them, too"),
    }
}

/// A namespace of a kind, tried.
fn namespace(name: &str, flag: CloneFlags, file: &str) -> Finding {
    let limit = fs::read_to_string(format!("/proc/sys/user/max_{file}_namespaces"));
    let limit = limit.unwrap_or_default();
    let fact = format!("{name} namespaces can be made (limit {})", limit.trim());
    let remedy = match limit.trim() {
        "0" => "the limit in /proc/sys/user/max_…_namespaces is 0: root may raise it",
        _ => DEV_CONTAINER,
    };
    tried(&fact, attempt(flag, || Ok(())), remedy)
}

fn tried(fact: &str, outcome: Result<()>, remedy: &'static str) -> Finding {
    match outcome {
        Ok(()) => finding(true, fact, remedy),
        Err(error) => finding(false, format!("{fact}: {error:#}"), remedy),
    }
}

/// Tries something in new namespaces, in a process that ends at once.
fn attempt(namespaces: CloneFlags, what: impl Fn() -> Result<()>) -> Result<()> {
    let child = spawn(namespaces, || {
        die_with_parent()?;
        what()?;
        exec(&["true".into()], &[])
    })?;
    child.wait().map(drop)
}
