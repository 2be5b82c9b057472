//! Step 7: what a container may use up.

use crate::attacks::tried;
use crate::stage::{DIRECT, Printed, Root, armed_root, folder, progress, run, step};
use assert_cmd::assert::OutputAssertExt;
use nix::sys::signal::Signal;
use progress::checks::step07::group;
use progress::host::container::{Container, RunOutcome, eventually, run as run_program};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread::scope;
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::limits::Limits;
use step07_cgroups::{Cgroup, Version, find};

fn steps() -> &'static [&'static str] {
    &DIRECT[6..]
}

fn in_root(package: &str, root: &Path, arguments: &[&str]) -> RunOutcome {
    let root = ["--rootfs", root.to_str().unwrap()];
    run_program(step(package), &[&root[..], arguments].concat()).unwrap()
}

fn started(package: &str, root: &Path, flags: &[&str], line: &str) -> Container {
    let root = ["--rootfs", root.to_str().unwrap(), "-i"];
    let arguments: Vec<&str> = [&root[..], flags, &["sh", "-c", line]].concat();
    Container::start(step(package), &arguments).unwrap()
}

/// The groups of containers that are there now, in all hierarchies.
fn groups() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let tops = ["memory", "cpu", "cpuacct", "pids", "devices", "cpuset"]
        .map(|name| find(name, &mounts, &own));
    let folders = tops.into_iter().flatten().flat_map(|(top, _)| {
        fs::read_dir(top.join("ten-steps"))
            .into_iter()
            .flatten()
            .flatten()
    });
    folders
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// The kernel's own texts on five machines: version 1 with controllers mounted together, version 2,
/// hybrid, a container on version 1 that sees its own part, and a second mount of a part elsewhere.
#[test]
fn a_hierarchy_is_found_on_every_kind_of_machine() {
    let v1 = "30 23 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let own = "5:memory:/user\n4:cpu,cpuacct:/\n1:name=systemd:/x\n";
    let found = |controller, mounts: &str, own: &str| {
        find(controller, mounts, own).map(|(top, version)| (top.display().to_string(), version))
    };
    assert_eq!(
        found("cpuacct", v1, own),
        Some(("/sys/fs/cgroup/cpu,cpuacct".into(), Version::V1))
    );
    assert_eq!(
        found("memory", v1, own),
        Some(("/sys/fs/cgroup/memory".into(), Version::V1))
    );
    assert_eq!(found("pids", v1, own), None);
    let v2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    assert_eq!(
        found("memory", v2, "0::/user.slice\n"),
        Some(("/sys/fs/cgroup".into(), Version::V2))
    );
    let hybrid = format!("{v1}40 23 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    let both = format!("{own}0::/\n");
    assert_eq!(
        found("memory", &hybrid, &both),
        Some(("/sys/fs/cgroup/memory".into(), Version::V1))
    );
    assert_eq!(
        found("hugetlb", &hybrid, &both),
        Some(("/sys/fs/cgroup/unified".into(), Version::V2))
    );
    // In a container of Docker's, the mount shows the container's own part as its root.
    let inside = "31 23 0:27 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    assert_eq!(
        found("memory", inside, "5:memory:/docker/0123\n"),
        Some(("/sys/fs/cgroup/memory".into(), Version::V1))
    );
    // A part that we aren't in is mounted for somebody else.
    let elsewhere =
        format!("99 1 0:27 /docker/9999 /var/lib/other/memory rw - cgroup cgroup rw,memory\n{v1}");
    assert_eq!(
        found("memory", &elsewhere, own),
        Some(("/sys/fs/cgroup/memory".into(), Version::V1))
    );
    let only_elsewhere =
        "99 1 0:27 /docker/9999 /var/lib/other/memory rw - cgroup cgroup rw,memory\n";
    assert_eq!(found("memory", only_elsewhere, own), None);
    let spaced = "31 23 0:27 / /sys/fs/my\\040groups rw - cgroup cgroup rw,memory\n";
    assert_eq!(
        found("memory", spaced, own),
        Some(("/sys/fs/my groups".into(), Version::V1))
    );
    // What an outer namespace mounted has a root above ours.
    let above = "31 23 0:27 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    assert_eq!(
        found("memory", above, "0::/\n"),
        Some(("/sys/fs/cgroup".into(), Version::V2))
    );
}

/// Every flag ends up in a file, in the words of the version that is here.
#[test]
fn values_are_in_the_files() {
    let root = Root::shared();
    for package in steps() {
        let flags = [
            "-m",
            "64m",
            "--memory-swap",
            "96m",
            "--cpus",
            "0.75",
            "--cpu-shares",
            "2048",
            "--cpuset-cpus",
            "0",
            "--pids-limit",
            "50",
        ];
        let container = started(package, &root.path(), &flags, "echo ready; read end");
        let first = container.first_process();
        for (controller, v1, v2) in [
            (
                "memory",
                ("memory.limit_in_bytes", "67108864"),
                ("memory.max", "67108864"),
            ),
            (
                "memory",
                ("memory.memsw.limit_in_bytes", "100663296"),
                ("memory.swap.max", "33554432"),
            ),
            (
                "cpu",
                ("cpu.cfs_quota_us", "75000"),
                ("cpu.max", "75000 100000"),
            ),
            (
                "cpu",
                ("cpu.cfs_period_us", "100000"),
                ("cpu.max", "75000 100000"),
            ),
            ("cpu", ("cpu.shares", "2048"), ("cpu.weight", "79")),
            ("cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
            ("pids", ("pids.max", "50"), ("pids.max", "50")),
        ] {
            let (folder, version) = group(first, controller).unwrap();
            let (file, wanted) = if version == Version::V1 { v1 } else { v2 };
            let seen = fs::read_to_string(folder.join(file))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(seen.trim(), wanted, "{package}: {file}");
        }
        assert_eq!(first.status("Cpus_allowed_list").unwrap(), "0");
    }
}

/// Who takes too much memory is killed, whoever is beside it isn't, and the program says so, whatever the
/// exit code.
#[test]
fn memory_runs_out_for_one_and_not_for_its_neighbour() {
    let _attack = tried("");
    let folder = folder();
    let root = armed_root(folder.path(), &[]);
    let this = progress().to_str().unwrap();
    let take = format!("{this} attacker memory 209715200");
    for package in steps() {
        let mut neighbour = started(package, &root, &["-m", "100m"], "echo ready; cat");
        let limits = ["--memory", "100M", "--memory-swap", "100M"];
        let outcome = in_root(
            package,
            &root,
            &[&limits[..], &[this, "attacker", "memory", "209715200"]].concat(),
        );
        assert_eq!(outcome.code, 137, "{package}: {}", outcome.errors);
        let said = outcome.errors.lines().next().unwrap_or_default();
        for word in [
            "memory ran out",
            "limit 100.0 MiB",
            "peak 100.0 MiB",
            "oom_kill 1",
        ] {
            assert!(said.contains(word), "{package}: {said}");
        }
        // The file that it was read from is named.
        assert!(
            said.contains("/ten-steps/")
                && (said.contains("memory.oom_control") || said.contains("memory.events")),
            "{said}"
        );
        // The exit code is the command's.
        let line = format!("{take}; exit 0");
        let outcome = in_root(
            package,
            &root,
            &[&limits[..], &["sh", "-c", &line]].concat(),
        );
        assert_eq!(outcome.code, 0, "{package}");
        assert!(
            outcome.errors.contains("memory ran out"),
            "{}",
            outcome.errors
        );
        neighbour.write_line("still here").unwrap();
        neighbour.read_until("still here\n").unwrap();
        // Enough is enough.
        let outcome = in_root(
            package,
            &root,
            &["-m", "400m", this, "attacker", "memory", "209715200"],
        );
        assert_eq!(
            (outcome.code, outcome.errors.as_str()),
            (0, ""),
            "{package}"
        );
    }
}

/// A group's own account of processor time, in microseconds.
fn used((folder, version): &(PathBuf, Version)) -> u64 {
    match version {
        Version::V1 => {
            let nanos: u64 = fs::read_to_string(folder.join("cpuacct.usage"))
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            nanos / 1000
        }
        Version::V2 => stat(folder, "usage_usec"),
    }
}

fn stat(folder: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(folder.join("cpu.stat")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim().parse().unwrap()
}

/// A quarter of a processor is a quarter of its time: read from the group's own account, over as many
/// periods as it counts. On a busy machine it may get less, but not in a period in which it was throttled, unless the
/// kernel itself comes too late to give out the next: then it is looked at once more.
#[test]
fn a_quarter_of_a_processor() {
    let root = Root::shared();
    for package in steps() {
        let container = started(
            package,
            &root.path(),
            &["--cpus", "0.25"],
            "echo ready; yes >/dev/null & read end",
        );
        let (folder, _) = group(container.first_process(), "cpu").unwrap();
        let account = group(container.first_process(), "cpuacct").unwrap();
        let throttled = || stat(&folder, "nr_throttled");
        let look = || (throttled(), stat(&folder, "nr_periods"), used(&account));
        eventually(|| (throttled() > 2).then_some(())).expect("it is throttled");
        // The share in the periods in which it was throttled, and in all.
        let shares = |_| {
            let before = look();
            eventually(|| (throttled() >= before.0 + 40).then_some(()))
                .expect("it is throttled on");
            let after = look();
            let used = (after.2 - before.2) as f64;
            // A period takes 100 ms.
            let share = |periods: u64| used / (periods as f64 * 100_000.0);
            (share(after.0 - before.0), share(after.1 - before.1))
        };
        let is_right =
            |(of_throttled, of_all): &(f64, f64)| *of_throttled >= 0.22 && *of_all <= 0.28;
        let mut seen = Vec::new();
        let right = (0..5)
            .map(shares)
            .inspect(|shares| seen.push(*shares))
            .any(|shares| is_right(&shares));
        assert!(right, "{package}: {seen:?} of a processor");
    }
}

/// A fork bomb stops at its limit, and the host is well.
#[test]
fn a_fork_bomb_stops_at_its_limit() {
    let _attack = tried("");
    let root = Root::shared();
    for package in steps() {
        let bomb = "echo ready; sh -c 'i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done'; read end";
        let container = started(package, &root.path(), &["--pids-limit", "32"], bomb);
        let (folder, _) = group(container.first_process(), "pids").unwrap();
        let count = |file: &str| -> u64 {
            fs::read_to_string(folder.join(file))
                .unwrap()
                .trim()
                .parse()
                .unwrap()
        };
        // It was refused at least once more.
        let refused = eventually(|| {
            let events = fs::read_to_string(folder.join("pids.events")).unwrap();
            events
                .lines()
                .find_map(|line| line.strip_prefix("max ")?.parse::<u64>().ok())
                .filter(|times| *times > 0)
        });
        assert!(refused.is_some(), "{package}: nothing was refused");
        assert!(
            count("pids.current") <= 32,
            "{package}: {}",
            count("pids.current")
        );
        // The host starts what it likes.
        run(&mut Command::new("true"));
    }
}

/// What it says that it used is what the kernel counted, or close to it.
#[test]
fn statistics() {
    let folder = folder();
    let root = armed_root(folder.path(), &[]);
    let this = progress().to_str().unwrap();
    for package in steps() {
        let outcome = in_root(
            package,
            &root,
            &[
                "--stats",
                "-m",
                "300m",
                "--cpus",
                "0.5",
                this,
                "attacker",
                "memory",
                "104857600",
            ],
        );
        assert_eq!(outcome.code, 0, "{}", outcome.errors);
        let value = |key: &str| {
            let line = outcome
                .errors
                .lines()
                .find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{key} {}", outcome.errors))
                .trim()
                .to_owned()
        };
        let peak = value("memory peak: ");
        // Some kernels don't tell (memory.peak came with Linux 5.19).
        if peak != "this kernel doesn't tell" {
            let peak: f64 = peak.strip_suffix(" MiB").unwrap().parse().unwrap();
            assert!((100.0..150.0).contains(&peak), "{peak}");
        }
        let time: f64 = value("CPU time: ")
            .strip_suffix(" s")
            .unwrap()
            .parse()
            .unwrap();
        assert!(time > 0.001, "{time}");
        assert!(
            value("throttled: ").contains(" periods, "),
            "{}",
            outcome.errors
        );
        value("pids peak: ");
    }
}

/// Each process's own limits: set, and no use against many.
#[test]
fn limits_of_each_process() {
    let root = Root::shared();
    for package in steps() {
        let flags = [
            "--ulimit",
            "nofile=100:200",
            "--ulimit",
            "core=0",
            "--ulimit",
            "nproc=1000",
        ];
        let container = started(package, &root.path(), &flags, "echo ready; read end");
        let limits = fs::read_to_string(container.first_process().file("limits")).unwrap();
        let of = |name: &str| -> Vec<String> {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..]
                .split_whitespace()
                .take(2)
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(of("Max open files"), ["100", "200"]);
        assert_eq!(of("Max core file size"), ["0", "0"]);
        drop(container);
        // Ten processes, each within its limit, take ten times as much.
        let line = "ulimit -v 200000; i=0; while [ $i -lt 10 ]; do sleep 0 & i=$((i+1)); done; wait; echo all";
        assert_eq!(
            in_root(package, &root.path(), &["sh", "-c", line]).output,
            "all\n"
        );
    }
}

/// In a folder that not everybody's PATH has.
fn losetup() -> Command {
    let mut losetup = Command::new("losetup");
    losetup.env("PATH", step01_uts::PATH);
    losetup
}

/// Devices: the usual ones, those that were asked for, and no other; all of them with --privileged.
#[test]
fn devices() {
    let folder = folder();
    let root = Root::shared();
    let disk = folder.path().join("disk");
    fs::write(&disk, [b"canary".as_slice(), &[0; 65536]].concat()).unwrap();
    let made = losetup()
        .args(["--show", "-f"])
        .arg(&disk)
        .output()
        .unwrap();
    let device = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    if device.is_empty() {
        return crate::stage::skip("losetup has no loop device for a scratch disk");
    }
    let number = device.strip_prefix("/dev/loop").unwrap();
    let read = format!(
        "mknod /tmp/disk{number} b 7 {number} && head -c 6 /tmp/disk{number}; code=$?; rm -f /tmp/disk{number}; exit $code"
    );
    let test = || {
        for package in steps() {
            let at = |flags: &[&str], line: &str| {
                in_root(
                    package,
                    &root.path(),
                    &[flags, &["sh", "-c", line]].concat(),
                )
            };
            let refused = at(&[], &read);
            assert!(
                refused.errors.contains("not permitted") && refused.code != 0,
                "{package}: {}",
                refused.errors
            );
            assert_eq!(at(&["--privileged"], &read).output, "canary", "{package}");
            let flag = format!("{device}:/dev/below/disk:r");
            let given = at(
                &["--device", &flag],
                "head -c 6 /dev/below/disk; echo spoilt >/dev/below/disk",
            );
            assert_eq!(given.output, "canary", "{package}: {}", given.errors);
            assert_ne!(given.code, 0, "{package}: written to");
            assert_eq!(
                at(&["--privileged"], &format!("head -c 6 {device}")).output,
                "canary",
                "{package}"
            );
            let usual = "echo x >/dev/null && head -c 4 /dev/zero /dev/urandom >/dev/null && head -c 4 /dev/zero >/dev/full";
            assert!(at(&[], usual).errors.contains("No space left"), "{package}");
        }
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    losetup().arg("-d").arg(&device).status().unwrap();
    outcome.unwrap();
}

/// The container sees its own groups as the topmost, and can't write to them.
#[test]
fn the_container_sees_its_own_groups() {
    let root = Root::shared();
    for package in steps() {
        // Of the two places one is there: version 2 has all in one.
        let line = "echo ready; cd /sys/fs/cgroup; cat cgroup.procs pids/cgroup.procs 2>/dev/null | head -n 1; \
                    echo max >pids.max; echo max >pids/pids.max; read end";
        let container = started(
            package,
            &root.path(),
            &["-m", "64m", "--pids-limit", "50"],
            line,
        );
        let (folder, version) = group(container.first_process(), "pids").unwrap();
        let hosts = fs::read_link("/proc/self/ns/cgroup").unwrap();
        assert_ne!(
            container.first_process().namespace("cgroup").unwrap(),
            hosts.to_string_lossy()
        );
        let file = match version {
            Version::V1 => "root/sys/fs/cgroup/pids/pids.max",
            Version::V2 => "root/sys/fs/cgroup/pids.max",
        };
        let seen = fs::read_to_string(container.first_process().file(file)).unwrap();
        assert_eq!(seen.trim(), "50", "{package}");
        let outcome = container.finish().unwrap();
        assert!(
            outcome.output.contains("\n1\n"),
            "{package}: PID 1 is in its topmost group: {}",
            outcome.output
        );
        assert!(
            outcome.errors.contains("Read-only file system"),
            "{package}: {}",
            outcome.errors
        );
        assert!(!folder.exists());
    }
}

/// Whatever happens nothing is left; what SIGKILL leaves, the next one removes.
#[test]
fn no_group_is_left_behind() {
    let root = Root::shared();
    for package in steps() {
        for arguments in [
            &["true"][..],
            &["no-such-command"],
            &["-u", "nobodyhere", "true"],
            &["--ulimit", "nofile=1:99999999", "true"],
            &["--cpus", "4096", "true"],
            &["--device", "/dev/no-such-device", "true"],
        ] {
            let before = groups();
            in_root(package, &root.path(), arguments);
            let left: Vec<_> = groups().difference(&before).cloned().collect();
            // Other tests have containers too: those are somebody's.
            let left: Vec<_> = left
                .into_iter()
                .filter(|folder| {
                    fs::read_to_string(folder.join("cgroup.procs"))
                        .is_ok_and(|text| text.is_empty())
                })
                .collect();
            let still = eventually(|| {
                left.iter()
                    .all(|folder| {
                        !folder.exists()
                            || fs::read_to_string(folder.join("cgroup.procs"))
                                .is_ok_and(|text| !text.is_empty())
                    })
                    .then_some(())
            });
            assert!(still.is_some(), "{package} {arguments:?}: {left:?}");
        }
        let container = started(
            package,
            &root.path(),
            &["-m", "64m", "--cpuset-cpus", "0"],
            "echo ready; read end",
        );
        let first = container.first_process();
        let folders: BTreeSet<_> = ["memory", "cpu", "pids", "cpuset"]
            .map(|name| group(first, name).unwrap().0)
            .into();
        container.signal(Signal::SIGKILL).unwrap();
        drop(container);
        let emptied = |folder: &PathBuf| {
            fs::read_to_string(folder.join("cgroup.procs")).map_or(true, |text| text.is_empty())
        };
        eventually(|| folders.iter().all(emptied).then_some(())).expect("its processes are gone");
        // While one runs with the same controllers, its own group stays.
        let other = started(
            package,
            &root.path(),
            &["--cpuset-cpus", "0"],
            "echo ready; read end",
        );
        let kept = group(other.first_process(), "pids").unwrap().0;
        in_root(package, &root.path(), &["--cpuset-cpus", "0", "true"]);
        assert!(kept.exists());
        for folder in &folders {
            assert!(!folder.exists(), "{package}: {}", folder.display());
        }
    }
}

/// Groups that somebody made below a container's own go with it, and its exit code stays its command's.
#[test]
fn groups_below_go_too() {
    let root = Root::shared();
    for package in steps() {
        let container = started(package, &root.path(), &[], "echo ready; read end; exit 7");
        let (folder, _) = group(container.first_process(), "pids").unwrap();
        fs::create_dir_all(folder.join("one/below")).unwrap();
        let outcome = container.finish().unwrap();
        assert_eq!(
            (outcome.code, outcome.errors.as_str()),
            (7, ""),
            "{package}"
        );
        assert!(!folder.exists(), "{package}: {}", folder.display());
    }
}

/// Many at once make and sweep beside each other.
#[test]
fn many_at_once() {
    let root = Root::shared();
    for package in steps() {
        let one = || {
            let mut program = Command::new(step(package));
            program.arg("--rootfs").arg(root.path()).args([
                "-m",
                "64m",
                "--cpuset-cpus",
                "0",
                "true",
            ]);
            program.spawn().unwrap()
        };
        let programs: Vec<_> = (0..24).map(|_| one()).collect();
        for mut program in programs {
            assert!(program.wait().unwrap().success(), "{package}");
        }
    }
}

/// The first ones make the group above, too, and in version 2 hand controllers on to it: whoever comes
/// while that goes on finds its files all the same.
#[test]
fn several_are_the_first() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 50;
    let limits = Limits {
        memory: Some(64 << 20),
        cpuset_cpus: Some("0".into()),
        pids: Some(10),
        ..Limits::default()
    };
    let together = Barrier::new(THREADS);
    let lives = || {
        let life = |_| {
            together.wait();
            let mut cgroup = Cgroup::create(&new_id()?, &limits)?;
            let groups = cgroup.groups();
            let (folder, version) = groups.folder("pids").unwrap();
            let most = fs::read_to_string(folder.join("pids.max"))?;
            assert_eq!(most.trim(), "10", "{version:?}");
            cgroup.remove()
        };
        // All of them, so that the others don't wait for this one.
        let failures = (0..ROUNDS).filter_map(|round| life(round).err());
        failures.map(|error| format!("{error:#}")).collect()
    };
    let failures: Vec<String> = scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(lives)).collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended.flat_map(|failures: Vec<_>| failures).collect()
    });
    assert_eq!(failures, [""; 0]);
}

#[test]
fn what_cannot_be_is_said_in_a_line() {
    let root = Root::shared();
    for (arguments, words) in [
        (&["--memory", "1"][..], &["--memory", "6m"][..]),
        (&["--memory", "lots"], &["--memory", "lots", "64m"]),
        (
            &["--memory", "99999999999g"],
            &["--memory", "more than there can be"],
        ),
        (&["--memory-swap", "1g"], &["--memory-swap", "--memory"]),
        (
            &["-m", "64m", "--memory-swap", "32m"],
            &["--memory-swap", "can't be less"],
        ),
        (
            &["--cpus", "4096"],
            &["--cpus 4096", "processors", "0.01 to"],
        ),
        (&["--cpus", "-1"], &["--cpus"]),
        (&["--cpus", "0.001"], &["--cpus", "0.01"]),
        (
            &["--cpuset-cpus", "4095"],
            &["--cpuset-cpus 4095", "no processor 4095", "it has 0"],
        ),
        (&["--cpuset-cpus", "a-b"], &["--cpuset-cpus a-b", "0-2,4"]),
        (&["--cpu-shares", "1"], &["--cpu-shares", "2 to 262144"]),
        (&["--pids-limit", "many"], &["--pids-limit", "1 to"]),
        (&["--ulimit", "nofile"], &["--ulimit", "NAME=SOFT"]),
        (&["--ulimit", "nofiles=1"], &["--ulimit", "nofile,"]),
        (
            &["--ulimit", "nofile=1:99999999"],
            &["--ulimit nofile=1:99999999", "EPERM"],
        ),
        (
            &["--device", "/dev/no-such-device"],
            &["--device /dev/no-such-device", "No such file"],
        ),
        (
            &["--device", "/etc/passwd:/dev/x"],
            &["--device /etc/passwd", "no device"],
        ),
        (
            &["--device", "/dev/null:/etc/x"],
            &["--device", "below /dev"],
        ),
    ] {
        for package in steps() {
            let outcome = in_root(package, &root.path(), &[arguments, &["true"]].concat());
            assert_eq!(
                outcome.code, 125,
                "{package} {arguments:?}: {}",
                outcome.errors
            );
            for word in words {
                assert!(
                    outcome.errors.contains(word),
                    "{package} {arguments:?}: {}",
                    outcome.errors
                );
            }
        }
    }
    for unlimited in [
        &["--cpus", "0"][..],
        &["--pids-limit", "-1"],
        &["--pids-limit", "0"],
        &["--cpu-shares", "0"],
        &["-m", "64m", "--memory-swap", "-1"],
    ] {
        for package in steps() {
            let outcome = in_root(package, &root.path(), &[unlimited, &["true"]].concat());
            assert_eq!(
                outcome.code, 0,
                "{package} {unlimited:?}: {}",
                outcome.errors
            );
        }
    }
}

/// A machine without a controller: what needs it is refused by name, what doesn't runs.
#[test]
fn a_controller_that_is_missing_is_named() {
    let root = Root::shared();
    for package in steps() {
        let line = "for mount in $(grep -E 'cgroup' /proc/self/mountinfo | cut -d ' ' -f 5 | sort -r); do umount -l $mount; done
            \"$0\" --rootfs \"$1\" -m 64m true; echo $?
            \"$0\" --rootfs \"$1\" true; echo $?
            \"$0\" --rootfs \"$1\" --privileged true; echo $?";
        // Without rules for devices a container is refused unless somebody wants it privileged.
        Command::new("unshare")
            .args(["-m", "sh", "-c", line])
            .arg(step(package))
            .arg(root.path())
            .assert()
            .stdout("125\n125\n0\n")
            .complains("--memory: this machine has no memory controller")
            .complains("devices controller");
    }
}

/// The last group takes the one above along, so that the machine's hierarchies are as they were. Here each hierarchy
/// is covered by a group of its own, in which nobody else has any.
#[test]
fn the_last_one_takes_the_one_above_along() {
    let root = Root::shared();
    let state = folder();
    let script = r#"
        places=$(while read -r _ _ _ _ at rest; do
            case $rest in *' - cgroup '* | *' - cgroup2 '*) echo "$at" ;; esac; done </proc/self/mountinfo)
        mine=ten-steps-alone-$$
        count() { find $places -name ten-steps | wc -l; }
        set -e
        trap 'set +e; for at in $places; do umount "$at"; rmdir "$at/$mine/ten-steps" "$at/$mine"; done 2>/dev/null' EXIT
        for at in $places; do
            for name in cpu cpuset memory pids io; do
                [ -e "$at/tasks" ] || echo "+$name" >"$at/cgroup.subtree_control" || :
            done 2>/dev/null
            mkdir "$at/$mine"
            for file in cpuset.cpus cpuset.mems; do
                [ ! -e "$at/tasks" ] || [ ! -e "$at/$file" ] || cat "$at/$file" >"$at/$mine/$file"
            done
            mount --bind "$at/$mine" "$at"
        done
        coproc container { "$@" -i sh -c 'echo ready; read -r end'; }
        pid=$container_PID
        read -r word <&"${container[0]}"
        [ "$(count)" -gt 0 ] && echo "$word, and they are there"
        echo end >&"${container[1]}"
        wait "$pid"
        echo "$(count) left""#;
    let rootfs = root.path();
    for package in steps().iter().chain(&["step10-exec"]) {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c", script]);
        command.arg("bash").arg(step(package));
        if *package == "step10-exec" {
            command
                .args(["run", "--rm", "--state-dir"])
                .arg(state.path());
        }
        let ran = command.arg("--rootfs").arg(&rootfs).assert();
        ran.stdout("ready, and they are there\n0 left\n");
    }
}
