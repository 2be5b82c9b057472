//! Chapter 3: mounts and a network of its own.

use crate::course::workbench::{Workbench, in_its_own};
use crate::course::{Exercise, Mistake};
use crate::host::container::Container;
use crate::host::evidence::{Mount, hosts_mounts};
use crate::host::trace::{Call, Trace};
use anyhow::{Context, Result};
use probe::Claim;
use std::fs;
use std::path::Path;

/// The exercises of chapter 3.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "make_private",
        heart: "propagation",
        check: make_private,
        scenes: &[&["true"]],
        mistakes: &[
            Mistake {
                why: "MS_SLAVE closes one direction only: what the host mounts still appears in \
                      the container. MS_PRIVATE closes both",
                shows: |traces| traces[0].has("mount", "MS_SLAVE"),
            },
            Mistake {
                why: "the propagation was changed in the parent, outside the new namespace: \
                      those are the host's own mounts",
                shows: |traces| {
                    let parent = traces[0].process(0);
                    parent.iter().any(|call| call.is("mount", "MS_PRIVATE"))
                },
            },
            Mistake {
                why: "no mount was made private. A new mount namespace is a copy, and its mounts \
                      stay peers of the originals",
                shows: |traces| !traces[0].has("mount", "MS_PRIVATE"),
            },
            Mistake {
                why: "without MS_REC only one mount became private. Each mount below / is one of \
                      its own, and is still shared",
                shows: |traces| !traces[0].has("mount", "MS_REC"),
            },
        ],
        read: "mount_namespaces(7), mount(2)",
        show: "cargo progress run 3 -- cat /proc/self/mountinfo",
        hints: [
            "Look at the tags `shared:N` in /proc/self/mountinfo, in the container and on the \
             host. Which call changes them, and for how many mounts?",
            "One mount call: no source, target \"/\", no type, the flags MS_REC | MS_PRIVATE, no \
             data. Propagation is changed by mount itself.",
        ],
    },
    Exercise {
        name: "mount_proc",
        heart: "a procfs belongs to its mounter's PID namespace",
        check: mount_proc,
        scenes: &[&["true"]],
        mistakes: &[
            Mistake {
                why: "the parent mounted it: a procfs shows the PID namespace of the process \
                      that mounts it, and the parent is in the host's",
                shows: |traces| {
                    let parent = traces[0].process(0);
                    parent.iter().any(|call| call.is("mount", "\"/proc\""))
                },
            },
            Mistake {
                why: "a bind mount shows a procfs that is there already, the host's. A new one \
                      comes by the type: mount(\"proc\", …, \"proc\", …)",
                shows: |traces| {
                    let binds = |call: &Call| {
                        call.is("mount", "\"/proc\"") && call.arguments.contains("MS_BIND")
                    };
                    traces[0].all().any(binds)
                },
            },
            Mistake {
                why: "nothing was mounted at /proc, so the old one still shows the host",
                shows: |traces| !traces[0].has("mount", "\"/proc\""),
            },
            Mistake {
                why: "the procfs was mounted without MS_NOSUID, MS_NODEV and MS_NOEXEC. It needs \
                      no programs and no devices, and whatever isn't needed is a way in",
                shows: |traces| {
                    traces[0].all().any(|call| {
                        call.is("mount", "\"/proc\"") && !call.arguments.contains("MS_NOEXEC")
                    })
                },
            },
        ],
        read: "proc(5), mount(2), pid_namespaces(7)",
        show: "cargo progress run 3 -- sh -c 'grep \" /proc \" /proc/self/mountinfo; ps ax'",
        hints: [
            "A procfs is a window. On which namespace does it look: that of the reader, or that \
             of the process that mounted it?",
            "mount with source \"proc\" (any name does), target \"/proc\", type \"proc\", the \
             flags in NOTHING_TO_RUN, no data.",
        ],
    },
    Exercise {
        name: "loopback_up",
        heart: "a new network is as good as empty",
        check: loopback_up,
        scenes: &[&["true"]],
        mistakes: &[
            Mistake {
                why: "the interface was left alone. A new network namespace has a loopback, and \
                      it is down",
                shows: |traces| !traces[0].has("ioctl", "SIOCGIFFLAGS") && !sets_flags(&traces[0]),
            },
            Mistake {
                why: "the flags were read and not written back: SIOCGIFFLAGS gets, SIOCSIFFLAGS \
                      sets",
                shows: |traces| !sets_flags(&traces[0]),
            },
            Mistake {
                why: "the flags that were written don't have IFF_UP. `|` adds a flag; `&` keeps \
                      what both sides have, and IFF_UP wasn't there yet",
                shows: |traces| {
                    let up = |call: &Call| {
                        call.is("ioctl", "SIOCSIFFLAGS") && call.arguments.contains("IFF_UP")
                    };
                    !traces[0].all().any(up)
                },
            },
        ],
        read: "netdevice(7), network_namespaces(7)",
        show: "cargo progress run 3 -- ip link show lo",
        hints: [
            "`ip link` in a new network namespace says DOWN. Which flag of an interface is that, \
             and what does the ioctl that sets flags do with all the others?",
            "Any socket will do: call!(socket(Inet, Datagram, SOCK_CLOEXEC, None)). Get the \
             flags of \"lo\" (interface_flags), set them with IFF_UP added (flags | IFF_UP).",
        ],
    },
];

/// Whether the flags of an interface were written.
fn sets_flags(trace: &Trace) -> bool {
    trace.has("ioctl", "SIOCSIFFLAGS")
}

/// 3.1: no mount is shared with the host, and none appears there.
pub fn make_private(bench: &Workbench) -> Result<Vec<Claim>> {
    let before = hosts_mounts()?;
    let script = "mount -t tmpfs leak /mnt && echo ready; read end";
    let container = Container::start(&bench.program, &["sh", "-c", script])?;
    let shared: Vec<_> = container
        .first_process()
        .mounts()?
        .into_iter()
        .filter(|mount| !mount.tags.is_empty())
        .collect();
    let leaked: Vec<_> = hosts_mounts()?
        .into_iter()
        .filter(|mount| !before.contains(mount))
        .collect();
    // Of many, one that every machine has.
    let known = |mount: &&Mount| {
        ["/", "/dev"]
            .map(Path::new)
            .contains(&mount.target.as_path())
    };
    let show = |mounts: &[Mount]| match mounts.iter().find(known).or(mounts.first()) {
        None => "none".to_owned(),
        Some(mount) => {
            let (target, tags) = (mount.target.display(), mount.tags.join(" "));
            format!("{} mounts, among them {target} {tags}", mounts.len())
        }
    };
    Ok(vec![
        in_its_own(&container, "mnt")?,
        Claim::new(
            "no mount of the container is tied to another namespace's",
            format!(
                "/proc/PID/mountinfo, with shared: or master: {}",
                show(&shared)
            ),
            shared.is_empty(),
        ),
        Claim::new(
            "what the container mounts doesn't appear on the host",
            format!("/proc/self/mountinfo on the host, new: {}", show(&leaked)),
            leaked.is_empty(),
        ),
    ])
}

/// 3.2: /proc is a procfs of the container's, mounted with the three flags.
pub fn mount_proc(bench: &Workbench) -> Result<Vec<Claim>> {
    let script = "echo ready; read end";
    let container = Container::start(&bench.program, &["sh", "-c", script])?;
    let first = container.first_process();
    let seen = first.file("root/proc/1/cmdline");
    let one = fs::read(&seen).with_context(|| seen.display().to_string())?;
    let name = fs::read_to_string(first.file("root/proc/1/comm"))?;
    let mounts = first.mounts()?;
    let proc = mounts
        .iter()
        .rfind(|mount| mount.target == Path::new("/proc"));
    let proc = proc.context("the container has nothing mounted at /proc")?;
    let has = |flag| proc.options.split(',').any(|option| option == flag);
    Ok(vec![
        Claim::equal(
            "/proc is a procfs",
            "/proc/PID/mountinfo",
            &proc.filesystem.as_str(),
            &"proc",
        ),
        Claim::new(
            "it has nosuid, nodev and noexec",
            format!("/proc/PID/mountinfo: {}", proc.options),
            ["nosuid", "nodev", "noexec"].into_iter().all(has),
        ),
        Claim::new(
            "/proc/1 is the command",
            format!("/proc/1/comm in the container: {}", name.trim()),
            String::from_utf8_lossy(&one).contains(script),
        ),
    ])
}

/// 3.3: a network namespace with nothing but a loopback that is up, and a sysfs that shows it.
pub fn loopback_up(bench: &Workbench) -> Result<Vec<Claim>> {
    let script = "read flags < /sys/class/net/lo/flags; echo $flags; read end";
    let container = Container::start(&bench.program, &["sh", "-c", script])?;
    let first = container.first_process();
    let listed = first.file("root/sys/class/net");
    let mut interfaces: Vec<_> = fs::read_dir(&listed)
        .with_context(|| listed.display().to_string())?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    interfaces.sort();
    let flags = container.first_line();
    let number = i32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or_default();
    const IFF_UP: i32 = 1;
    Ok(vec![
        in_its_own(&container, "net")?,
        in_its_own(&container, "ipc")?,
        Claim::equal(
            "its /sys lists its own interfaces: the loopback",
            "/sys/class/net in the container",
            &interfaces,
            &vec!["lo".to_owned()],
        ),
        Claim::new(
            "the loopback is up (IFF_UP is 1)",
            format!("/sys/class/net/lo/flags in the container: {flags}"),
            number & IFF_UP != 0,
        ),
    ])
}
