//! Step 7: control groups, how they are found, made and removed; what they limit is in `limits`.

use crate::stage::{DIRECT, Printed, Root, folder, step};
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
use step07_cgroups::cgroup::group::{new_id, remove_group};
use step07_cgroups::limits::{Limits, Other};
use step07_cgroups::{Cgroup, Version, find};

pub fn steps() -> &'static [&'static str] {
    &DIRECT[6..]
}

pub fn in_root(package: &str, root: &Path, arguments: &[&str]) -> RunOutcome {
    let root = ["--rootfs", root.to_str().unwrap()];
    run_program(step(package), &[&root[..], arguments].concat()).unwrap()
}

pub fn started(package: &str, root: &Path, flags: &[&str], line: &str) -> Container {
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

/// What is said by data: any file of any controller, one that a container has no group for otherwise among them.
#[test]
fn a_setting_of_any_controller() {
    let other = |controller: &str, file: &str, value: &str| Other {
        controller: controller.into(),
        file: file.into(),
        value: value.into(),
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut wanted = vec![other("pids", "pids.max", "77")];
    let (_, version) = find("blkio", &mounts, &own).unwrap();
    if version == Version::V1 && own.contains(":blkio:") {
        wanted.push(other("blkio", "cgroup.clone_children", "1"));
    }
    let limits = |others| Limits {
        others,
        ..Limits::default()
    };
    let id = new_id().unwrap();
    let cgroup = Cgroup::create(&id, &limits(wanted.clone())).unwrap();
    let folders: Vec<_> = wanted
        .iter()
        .map(|other| {
            let (top, _) = find(&other.controller, &mounts, &own).unwrap();
            let folder = top.join("ten-steps").join(&id);
            let text = fs::read_to_string(folder.join(&other.file)).unwrap();
            assert_eq!(text.trim(), other.value, "{other:?}");
            folder
        })
        .collect();
    drop(cgroup);
    assert!(folders.iter().all(|folder| !folder.exists()), "{folders:?}");
    let wrong = Cgroup::create(
        &new_id().unwrap(),
        &limits(vec![other("pids", "pids.nothing", "1")]),
    );
    let said = format!("{:#}", wrong.err().unwrap());
    assert!(
        said.contains("pids.nothing") && said.contains("the pids controller"),
        "{said}"
    );
    let wrong = Cgroup::create(
        &new_id().unwrap(),
        &limits(vec![other("pids", "../pids.max", "1")]),
    );
    let said = wrong.err().unwrap().to_string();
    assert!(said.contains("\"../pids.max\" is no file"), "{said}");
    if version == Version::V1 {
        let wrong = Cgroup::create(
            &new_id().unwrap(),
            &limits(vec![other("magic", "magic.max", "1")]),
        );
        let said = format!("{:#}", wrong.err().unwrap());
        assert!(said.contains("no magic controller"), "{said}");
    }
}

/// A group that somebody is in is nobody else's, nor is one with somebody in a group below: nothing of it changes.
#[test]
fn where_somebody_is_already() {
    let path = format!("ten-steps-test-{}", &new_id().unwrap()[..12]);
    let limits = Limits {
        pids: Some(77),
        ..Limits::default()
    };
    let make = || Cgroup::create_at(Path::new(&path), &limits);
    let cgroup = make().unwrap();
    let folders: Vec<_> = cgroup
        .hierarchies()
        .map(|hierarchy| hierarchy.top.join(&path))
        .collect();
    drop(cgroup);
    for inner in [None, Some("inner")] {
        for folder in &folders {
            fs::create_dir_all(folder.join(inner.unwrap_or_default())).unwrap();
        }
        let limited = folders
            .iter()
            .find(|folder| folder.join("pids.max").exists());
        let limited = limited.unwrap();
        let before = fs::read(limited.join("pids.max")).unwrap();
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        let members = limited.join(inner.unwrap_or_default()).join("cgroup.procs");
        fs::write(&members, sleeper.id().to_string()).unwrap();
        let refused = make().err().map(|error| error.to_string());
        let after = fs::read(limited.join("pids.max")).ok();
        let there = fs::read_to_string(&members).ok();
        let id = sleeper.id().to_string();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        for folder in &folders {
            remove_group(folder).unwrap();
        }
        let refused = refused.expect("refused");
        assert!(refused.contains("with processes in it"), "{refused}");
        assert_eq!(after, Some(before));
        assert_eq!(there.as_deref().map(str::trim), Some(&*id));
    }
}

/// Groups at a path of somebody's choice, below groups that aren't ours and stay.
#[test]
fn groups_at_a_given_path() {
    let above = format!("ten-steps-test-{}", &new_id().unwrap()[..12]);
    let path = Path::new(&above).join("inner/most");
    let limits = Limits {
        pids: Some(77),
        cpuset_cpus: Some("0".into()),
        ..Limits::default()
    };
    let cgroup = Cgroup::create_at(&path, &limits).unwrap();
    let folders: Vec<_> = cgroup
        .hierarchies()
        .map(|hierarchy| hierarchy.top.join(&path))
        .collect();
    let text =
        |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    for (file, value) in [("pids.max", "77"), ("cpuset.cpus", "0")] {
        assert!(
            folders
                .iter()
                .any(|folder| text(folder, file).trim() == value),
            "{file}"
        );
    }
    let again = Cgroup::create_at(&path, &limits).err().unwrap().to_string();
    assert!(again.contains("there is such a control group"), "{again}");
    // Somebody moves in by the doors, which need no new view.
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    for folder in &folders {
        fs::write(folder.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    }
    let inside = fs::read_to_string(format!("/proc/{}/cgroup", sleeper.id())).unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(inside.contains(&format!("/{}", path.display())), "{inside}");
    drop(cgroup);
    for folder in folders {
        assert!(!folder.exists(), "{}", folder.display());
        let inner = folder.parent().unwrap();
        fs::remove_dir(inner).unwrap();
        fs::remove_dir(inner.parent().unwrap()).unwrap();
    }
    for wrong in ["", "/x", "../x", "a/../../x", "a/ten-steps/b"] {
        assert!(
            Cgroup::create_at(Path::new(wrong), &limits).is_err(),
            "{wrong}"
        );
    }
}
