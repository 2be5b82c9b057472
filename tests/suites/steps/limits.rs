//! Step 7: what a container may use up.

use crate::attacks::tried;
use crate::stage::{Root, armed_root, folder, progress, run};
use crate::steps::groups::{in_root, started, steps};
use progress::checks::step07::group;
use progress::host::container::eventually;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use step07_cgroups::Version;

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
            ("cpu", ("cpu.shares", "2048"), ("cpu.weight", "174")),
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
