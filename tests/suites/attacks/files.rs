//! Trees that are too deep, names that are exchanged, and files that are written beside others.

use super::{exchanging, tried};
use crate::stage::bench::Bench;
use crate::stage::dock::{Dock, STEP};
use crate::stage::{Printed, armed_root, mount_apart, progress, run, script, step};
use assert_cmd::assert::Assert;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::Pid;
use progress::host::container::eventually;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// More than a process has descriptors, and deeper than its stack.
const DEEP: usize = 25_000;

/// A subcommand of the small Docker, with as many descriptors as an ordinary process may have: fewer than there are levels.
fn with_few(dock: &Dock, words: &[&str]) -> Assert {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 1024; exec \"$0\" \"$@\""])
        .arg(step(STEP))
        .args(words)
        .env("TEN_STEPS_STATE", &dock.state);
    crate::stage::dock::ended(&mut command)
}

/// Directories that go at the end whatever has come of them: where a library removes them, the stack ends first.
struct Deep(PathBuf);

impl Drop for Deep {
    fn drop(&mut self) {
        let _ = Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}

/// Makes directories within each other below `folder`, with a file in the last one.
fn deep(folder: &Path, levels: usize) -> Deep {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut here: OwnedFd = File::open(folder).unwrap().into();
    for _ in 0..levels {
        mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
        here = openat(&here, "d", flags, Mode::empty()).unwrap();
    }
    openat(
        &here,
        "file",
        OFlag::O_CREAT | OFlag::O_WRONLY,
        Mode::S_IRUSR,
    )
    .unwrap();
    Deep(folder.join("d"))
}

/// Directories within each other that a container has made: all of it goes, and its exit code comes.
#[test]
fn a_tree_deeper_than_there_are_descriptors() {
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &[]);
    let image = root.to_str().unwrap();
    let levels = (DEEP / 5).to_string();
    let dig = [progress().to_str().unwrap(), "attacker", "dig", &levels];
    let _attack = [(); 3].map(|()| tried(""));
    let words = [&["run", "--rm", "--image", image], &dig[..]].concat();
    with_few(&dock, &words).code(7);
    dock.is_empty();

    let words = [&["run", "--name", "one", "--image", image], &dig[..]].concat();
    with_few(&dock, &words).code(7);
    let words = [&["run", "--name", "two", "--image", image], &dig[..]].concat();
    with_few(&dock, &words).code(7);
    with_few(&dock, &["rm", "one"]).success();
    with_few(&dock, &["prune", "-f"]).success();
    dock.is_empty();
}

/// The same in the root of steps without layers, and in a layer of step 8; wide trees go as well.
#[test]
fn trees_are_removed_by_their_owners() {
    let bench = Bench::new();
    let left = bench.path("state/running/left");
    fs::create_dir_all(left.join("upper/wide")).unwrap();
    let _deep = deep(&left.join("upper"), DEEP);
    for number in 0..3000 {
        fs::create_dir_all(left.join(format!("upper/wide/{number}/1/2"))).unwrap();
        fs::write(left.join(format!("upper/wide/{number}/1/2/3")), "").unwrap();
    }
    let _attack = tried("");
    let outcome = bench.run(&[], "true");
    assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
    bench.is_clean();
}

/// Saving, copying, comparing and unpacking say that it is too deep, and where.
#[test]
fn too_deep_is_said() {
    let dock = Dock::new();
    dock.run_in(&["--name", "box"], &["true"]).success();
    let id = dock.id("box");
    let _deep = deep(&dock.container(&id).join("upper"), 1000);
    let archive = dock.folder.path().join("saved.tar");
    let out = dock.folder.path().join("out");
    for words in [
        &["commit", "box", archive.to_str().unwrap()][..],
        &["cp", "box:/d", out.to_str().unwrap()],
        &["diff", "box"],
    ] {
        let _attack = tried("");
        let ran = with_few(&dock, words).code(125);
        ran.complains("deeper than 200 directories")
            .complains("/d/d/d");
    }
    assert!(!archive.exists());
    let image = dock.folder.path().join("deep.tar");
    let top = dock.folder.path().join("top");
    fs::create_dir(&top).unwrap();
    let _also = deep(&top, 1000);
    run(Command::new("tar")
        .arg("-C")
        .arg(&top)
        .arg("-cf")
        .arg(&image)
        .arg("."));
    let _attack = tried("");
    let image = image.to_str().unwrap();
    with_few(&dock, &["run", "--rm", "--image", image, "true"])
        .code(125)
        .complains("deeper than 200 directories")
        .complains("d/d/d");
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

/// What can't be removed costs no exit code, and keeps `prune` from no other.
#[test]
fn what_cannot_be_removed_costs_nothing_else() {
    let _attack = tried("");
    let dock = Dock::new();
    mount_apart();
    // Whatever the machine's own disk is: this filesystem has files that nobody may remove.
    fs::create_dir(&dock.state).unwrap();
    let (tmpfs, none) = (Some("tmpfs"), None::<&str>);
    mount(tmpfs, &dock.state, tmpfs, MsFlags::empty(), none).unwrap();
    let ids: Vec<String> = ["stuck", "loose"]
        .map(|name| {
            dock.run_in(&["--name", name], &["sh", "-c", "echo >/file; exit 3"])
                .code(3);
            dock.id(name)
        })
        .into();
    let stuck = dock.container(&ids[0]).join("upper/file");
    let held = nail(&stuck);
    let line = "echo >/file; read line; exit 5";
    let words = dock.words(
        &["run", "--rm", "-i", "--name", "short"],
        &[],
        &["sh", "-c", line],
    );
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut foreground = dock
        .command(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let short = eventually(|| {
        let found = dock.run(&["inspect", "-f", "{{.Id}}", "short"]);
        let id = found.printed().trim().to_owned();
        dock.container(&id)
            .join("upper/file")
            .exists()
            .then_some(id)
    });
    let file = dock.container(&short.unwrap()).join("upper/file");
    let short = nail(&file);
    drop(foreground.stdin.take());
    let mut errors = String::new();
    foreground
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(foreground.wait().unwrap().code(), Some(5), "{errors}");
    assert!(errors.contains("prune"), "{errors}");

    let pruned = dock.run(&["prune", "-f"]).code(125);
    pruned.prints(&ids[1]);
    assert!(
        !dock.container(&ids[1]).exists(),
        "one keeps prune from the other"
    );
    for held in [held, short] {
        set_flags(&held, 0);
        drop(held);
    }
    dock.ok(&["prune", "-f"]);
    assert_eq!(
        fs::read_dir(dock.state.join("containers")).unwrap().count(),
        0
    );
    umount2(&dock.state, MntFlags::MNT_DETACH).unwrap();
}

/// Has nobody be able to remove the file, or everybody again: chattr(1). The file stays open, wherever it goes.
fn nail(path: &Path) -> File {
    const IMMUTABLE: libc::c_long = 0x10;
    let file = File::open(path).unwrap();
    set_flags(&file, IMMUTABLE);
    file
}

fn set_flags(file: &File, flags: libc::c_long) {
    // FS_IOC_SETFLAGS for a long.
    const SET: libc::c_ulong = 0x4008_6602;
    // SAFETY: the kernel reads one number.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), SET, &raw const flags) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// A container that shares a root exchanges a directory with a link to a directory of the host's, while the root is
/// saved.
#[test]
fn nothing_of_the_host_gets_into_an_archive() {
    let _attack = tried("CVE-2018-15664");
    let dock = Dock::new();
    let root = dock.folder.path().join("root");
    dock.root.copy(&root);
    let treasure = dock.folder.path().join("treasure");
    fs::create_dir_all(treasure.join("below")).unwrap();
    fs::write(treasure.join("below/canary"), "of the host\n").unwrap();
    fs::create_dir_all(root.join("srv/way/below")).unwrap();
    symlink(&treasure, root.join("srv/link")).unwrap();
    let words = [
        "create",
        "--name",
        "box",
        "--rootfs",
        root.to_str().unwrap(),
        "true",
    ];
    dock.ok(&words);
    let archive = dock.folder.path().join("saved.tar");
    let (way, link) = (root.join("srv/way"), root.join("srv/link"));
    let taken = exchanging(&way, &link, || {
        // The control: who looks at a path, and then opens it.
        let lost = (0..200_000).any(|_| {
            let plain = fs::symlink_metadata(&way).is_ok_and(|found| found.is_dir());
            plain && way.join("below/canary").exists()
        });
        assert!(lost, "the control has taken nothing");
        let mut taken = 0;
        for _ in 0..60 {
            let saved = dock.run(&["commit", "box", archive.to_str().unwrap()]);
            if saved.get_output().status.success() {
                let listed = run(Command::new("tar").arg("-tf").arg(&archive));
                taken += u32::from(listed.contains("canary"));
            }
        }
        taken
    });
    assert_eq!(taken, 0, "some of 60 archives have a file of the host's");
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

/// Names that may be used while an archive is made are links to a file of the host's; and nothing of it stays when the
/// one who makes it is killed.
#[test]
fn an_archive_is_written_beside_nothing() {
    let _attack = [(); 2].map(|()| tried(""));
    let dock = Dock::new();
    dock.run_in(&["--name", "box"], &["true"]).success();
    let shelf = dock.folder.path().join("shelf");
    fs::create_dir(&shelf).unwrap();
    let canary = dock.folder.path().join("canary");
    fs::write(&canary, "whole").unwrap();
    let archive = shelf.join("saved.tar");
    let archive = archive.to_str().unwrap();
    // As it was named once, by the number of the process that will write it.
    let mut command = Command::new("sh");
    let line = "ln -s \"$0\" \"$1/.saved.tar.$$\"; exec \"$2\" commit box \"$1/saved.tar\"";
    command
        .args(["-c", line])
        .args([&canary, &shelf])
        .arg(step(STEP));
    command.env("TEN_STEPS_STATE", &dock.state);
    crate::stage::dock::ended(&mut command).success();
    assert_eq!(fs::read_to_string(&canary).unwrap(), "whole");
    assert!(fs::metadata(archive).unwrap().len() > 1000);
    // A link to it is replaced, and not followed.
    fs::remove_file(archive).unwrap();
    symlink(&canary, archive).unwrap();
    dock.ok(&["commit", "box", archive]);
    assert_eq!(fs::read_to_string(&canary).unwrap(), "whole");
    assert_eq!(
        fs::metadata(archive).unwrap().permissions().mode() & 0o777,
        0o600
    );

    // Killed whenever it is at work.
    fs::remove_file(archive).unwrap();
    let before = fs::read_dir(&shelf).unwrap().count();
    for name in ["saved.tar", "saved.tar.gz", "saved.tar.zst"] {
        let file = shelf.join(name);
        let mut program = dock.command(&["commit", "box", file.to_str().unwrap()]);
        let mut program = program.stderr(Stdio::null()).spawn().unwrap();
        let notes = dock.state.join("saving");
        eventually(|| {
            let noted = fs::read_dir(&notes).is_ok_and(|mut notes| notes.next().is_some());
            (noted || program.try_wait().unwrap().is_some()).then_some(())
        });
        program.kill().unwrap();
        program.wait().unwrap();
        dock.ok(&["prune", "-f"]);
        let _ = fs::remove_file(&file);
        assert_eq!(
            fs::read_dir(&shelf).unwrap().count(),
            before,
            "something is left"
        );
        assert_eq!(fs::read_dir(&notes).unwrap().count(), 0);
        // It was removed, too.
        dock.run_in(&["--name", "box"], &["true"]).success();
    }
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

/// Somebody kills `commit`, and its container runs: it isn't frozen for ever. Not even when its monitor is killed, too.
#[test]
fn a_killed_commit_freezes_nobody() {
    let dock = Dock::new();
    let large = dock.folder.path().join("large");
    dock.root.copy(&large);
    let noise = File::create(large.join("noise")).unwrap();
    std::io::copy(
        &mut File::open("/dev/urandom").unwrap().take(64 << 20),
        &mut &noise,
    )
    .unwrap();
    let archive = dock.folder.path().join("saved.tar.gz");
    for monitor_too in [false, true] {
        let _attack = tried("");
        let words = [
            "run",
            "-d",
            "--image",
            large.to_str().unwrap(),
            "sleep",
            "1000",
        ];
        let id = dock.ok(&words).trim().to_owned();
        let (first, monitor) = (dock.process(&id, "process"), dock.process(&id, "monitor"));
        let mut command = dock.command(&["commit", &id, archive.to_str().unwrap()]);
        let mut program = command.stderr(Stdio::null()).spawn().unwrap();
        let frozen = || dock.status(&id).0 == "paused";
        eventually(|| frozen().then_some(())).expect("it isn't saved while it stands still");
        if monitor_too {
            kill(monitor.0, Signal::SIGKILL).unwrap();
        }
        kill(Pid::from_raw(program.id() as i32), Signal::SIGKILL).unwrap();
        program.wait().unwrap();
        if monitor_too {
            dock.ok(&["prune", "-f"]);
            assert!(first.is_ending(), "it is frozen for ever");
            assert!(!dock.container(&id).exists(), "prune leaves it");
        } else {
            eventually(|| (!frozen()).then_some(())).expect("it is frozen for ever");
            dock.ok(&["exec", &id, "true"]);
            dock.ok(&["rm", "-f", &id]);
        }
    }
    dock.is_empty();
}

/// A root whose directories are links to the host's: what breaks it breaks nothing else.
#[test]
fn what_breaks_a_root_stays_in_it() {
    mount_apart();
    let folder = crate::stage::folder();
    let outside = folder.path().join("outside");
    let kinds = [
        "bad-shebang",
        "crlf-shebang",
        "no-shebang",
        "wrong-machine",
        "not-executable",
        "symlink-out",
        "noexec-mount",
    ];
    for kind in kinds {
        let _attack = tried("");
        let root = armed_root(folder.path(), &[]);
        let _ = fs::remove_dir_all(&outside);
        fs::create_dir_all(outside.join("noexec")).unwrap();
        for name in ["greet", "tool", "foreign"] {
            fs::write(outside.join(name), "whole").unwrap();
        }
        fs::create_dir_all(root.join("usr/local")).unwrap();
        let _ = fs::remove_dir_all(root.join("usr/local/bin"));
        let _ = fs::remove_dir_all(root.join("mnt"));
        symlink(&outside, root.join("usr/local/bin")).unwrap();
        symlink(&outside, root.join("mnt")).unwrap();
        let before = fs::metadata(&outside).unwrap();
        let broken = script("break.sh").arg(kind).arg(&root).output().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(outside.to_str().unwrap()),
            "{kind} mounts on the host"
        );
        if kind == "noexec-mount" && broken.status.success() {
            let place = format!("{}{}", root.display(), outside.join("noexec").display());
            umount2(place.as_str(), MntFlags::MNT_DETACH).unwrap();
        }
        let after = fs::metadata(&outside).unwrap();
        assert_eq!(
            (before.ctime(), before.ctime_nsec()),
            (after.ctime(), after.ctime_nsec()),
            "{kind}"
        );
        for name in ["greet", "tool", "foreign"] {
            assert_eq!(
                fs::read_to_string(outside.join(name)).unwrap(),
                "whole",
                "{kind}"
            );
        }
        fs::remove_dir_all(&root).unwrap();
    }
}

/// Names of a root that a shell would understand otherwise: with a newline at their end, or what echo(1) makes something
/// of.
#[test]
fn what_breaks_a_root_takes_names_as_they_are() {
    for (name, link) in [
        ("out\n", "/out\n/."),
        ("out\\c", "/out\\c"),
        ("\\056\\056", "/\\056\\056"),
    ] {
        let _attack = tried("");
        let folder = crate::stage::folder();
        let root = armed_root(folder.path(), &[]);
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        fs::create_dir(root.join(name)).unwrap();
        fs::create_dir_all(root.join("usr/local")).unwrap();
        let _ = fs::remove_dir_all(root.join("usr/local/bin"));
        symlink(link, root.join("usr/local/bin")).unwrap();
        run(script("break.sh").arg("no-shebang").arg(&root));
        assert!(root.join(name).join("greet").exists(), "{name:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{name:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "{name:?}");
    }
}

/// Somebody has a lease on a file, and gives it up as late as can be: nobody waits for that.
#[test]
fn nobody_waits_for_a_lease() {
    let dock = Dock::new();
    let root = dock.folder.path().join("root");
    dock.root.copy(&root);
    let leased = File::create(root.join("leased")).unwrap();
    drop(leased);
    let leased = File::open(root.join("leased")).unwrap();
    let rootfs = root.to_str().unwrap();
    dock.ok(&["create", "--name", "box", "--rootfs", rootfs, "true"]);
    // Not among libc's: fcntl(2), linux/fcntl.h.
    const F_SETSIG: libc::c_int = 10;
    // SAFETY: each takes a number. Of the lease's end we are told by a signal that nobody hears.
    unsafe {
        assert_eq!(libc::fcntl(leased.as_raw_fd(), F_SETSIG, libc::SIGURG), 0);
        let set = libc::fcntl(leased.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK);
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
    let path = |name: &str| dock.folder.path().join(name).display().to_string();
    for words in [
        &["commit", "box", &path("saved.tar")][..],
        &["cp", "box:/leased", &path("copy")],
    ] {
        let _attack = tried("");
        dock.fails(words).complains("lease");
    }
    drop(leased);
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

/// A setuid program that a container has made isn't one that the host's users reach.
#[test]
fn nobody_reaches_a_root() {
    let _attack = tried("CVE-2021-41091");
    let folder = crate::stage::folder();
    let state = folder.path().join("state");
    // As an earlier version has left it.
    fs::create_dir_all(state.join("roots")).unwrap();
    fs::set_permissions(state.join("roots"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(step("step04-pivot-root"));
    command.env("TEN_STEPS_STATE", &state);
    run(command.args(["sh", "-c", "cp /bin/sh /bin/trap; chmod 4755 /bin/trap"]));
    let dock = Dock::new();
    dock.run_in(
        &["--name", "box"],
        &["sh", "-c", "echo >/trap; chmod 4755 /trap"],
    )
    .success();
    let id = dock.id("box");
    let trap = state.join("roots/default/bin/trap");
    assert_eq!(
        fs::metadata(&trap).unwrap().permissions().mode() & 0o7777,
        0o4755
    );
    for path in [trap, dock.container(&id).join("upper/trap")] {
        assert!(path.exists());
        let mut nobody = Command::new("setpriv");
        nobody
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "ls",
                "-l",
            ])
            .arg(&path);
        let told = nobody.output().unwrap();
        assert!(!told.status.success(), "{}", path.display());
    }
    dock.ok(&["rm", "box"]);
}
