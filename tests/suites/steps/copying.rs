//! Step 10: `cp` both ways.

use crate::stage::dock::Dock;
use crate::stage::{Printed, held};
use assert_cmd::assert::OutputAssertExt;
use nix::errno::Errno;
use progress::host::container::eventually;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use step08_overlay::image::xattrs::{attributes, set_attribute};

/// Docker's rules: to a name, into a directory, what is in one.
#[test]
fn both_ways() {
    let dock = Dock::new();
    let id = dock.start(&["--name", "box"], &["sleep", "1000"]);
    let folder = dock.folder.path().join("host");
    fs::create_dir_all(folder.join("tree/below")).unwrap();
    fs::write(folder.join("tree/file"), "text\n").unwrap();
    fs::write(folder.join("tree/below/deep"), "deep\n").unwrap();
    symlink("file", folder.join("tree/link")).unwrap();
    fs::set_permissions(folder.join("tree/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    let host = |name: &str| folder.join(name).display().to_string();
    let inside = |script: &str| dock.ok(&["exec", "box", "sh", "-c", script]);

    dock.ok(&["cp", &host("tree/file"), "box:/tmp/name"]);
    assert_eq!(
        inside("cat /tmp/name; stat -c '%a %u %g' /tmp/name"),
        "text\n4750 0 0\n"
    );
    dock.ok(&["cp", &host("tree/file"), "box:/tmp"]);
    dock.ok(&["cp", &host("tree"), "box:/tmp"]);
    dock.ok(&["cp", &host("tree"), "box:/new"]);
    dock.ok(&["cp", &host("tree/."), "box:/tmp"]);
    assert_eq!(
        inside(
            "cat /tmp/file /tmp/tree/below/deep /new/below/deep /tmp/below/deep; readlink /new/link"
        ),
        "text\ndeep\ndeep\ndeep\nfile\n"
    );
    inside("printf over >/tmp/name");
    dock.ok(&["cp", "box:/tmp/name", &host("back")]);
    let back = fs::metadata(host("back")).unwrap();
    assert_eq!(fs::read_to_string(host("back")).unwrap(), "over");
    assert_eq!(
        (back.mode() & 0o7777, back.uid()),
        (0o750, 0),
        "setuid stays inside"
    );
    dock.ok(&["cp", "box:/new", &folder.display().to_string()]);
    dock.ok(&["cp", "box:/new/.", &host("contents")]);
    assert_eq!(
        fs::read_to_string(host("new/below/deep")).unwrap(),
        "deep\n"
    );
    assert_eq!(
        fs::read_to_string(host("contents/below/deep")).unwrap(),
        "deep\n"
    );
    assert_eq!(
        fs::read_link(host("contents/link")).unwrap(),
        Path::new("file")
    );
    dock.ok(&["cp", "-L", "box:/new/link", &host("followed")]);
    assert!(fs::symlink_metadata(host("followed")).unwrap().is_file());

    dock.fails(&["cp", "box:/nothing", &host("x")])
        .complains("there is no such file");
    dock.fails(&["cp", &host("tree"), "box:/tmp/name"])
        .complains("it is no directory");
    dock.fails(&["cp", &host("back"), "box:/no/such/place"])
        .complains("No such file");
    dock.fails(&["cp", &host("back"), "box:/nowhere/"])
        .complains("no such directory");
    dock.fails(&["cp", &host("a"), &host("b")])
        .complains("neither of the two");
    dock.fails(&["cp", "box:/a", "box:/b"])
        .complains("both are in containers");

    // It needn't run.
    dock.ok(&["stop", "-t", "0", "box"]);
    dock.ok(&["cp", &host("back"), "box:/later"]);
    dock.ok(&["cp", "box:/tmp/below/deep", &host("deep")]);
    dock.ok(&["start", "box"]);
    assert_eq!(inside("cat /later"), "over");
    assert!(dock.process(&id, "process").file("stat").exists());
}

/// A root full of traps leads nowhere else.
#[test]
fn is_not_led_out() {
    let dock = Dock::new();
    let canary = dock.folder.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "of the host\n").unwrap();
    let host = canary.display().to_string();
    dock.start(&["--name", "box", "--cap-add", "MKNOD"], &["sleep", "1000"]);
    let script = format!(
        "ln -s {host} /way; ln -s {host}/secret /file; ln -s /proc/1/root /root/one; mkdir -p /tree; \
         ln -s ../../../../../../../..{host} /tree/up; mknod /tree/pipe p; mknod /tree/zero c 1 5; \
         cp /bin/cat /tree/setuid; chmod 6755 /tree/setuid"
    );
    dock.ok(&["exec", "box", "sh", "-c", &script]);
    let target = dock.folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let to = target.display().to_string();
    // Links mean what they mean in there: nothing.
    for source in [
        "box:/way/secret",
        "box:/tree/up/secret",
        "box:/way/../way/secret",
    ] {
        let why = dock.fails(&["cp", source, &to]).errors();
        assert!(
            why.contains("no such file") || why.contains("No such file"),
            "{why}"
        );
    }
    dock.fails(&["cp", "-L", "box:/file", &to]);
    let copied = dock.run(&["cp", "box:/tree", &to]);
    copied.success().complains("left out: it is no file");
    let tree = target.join("tree");
    assert!(fs::symlink_metadata(tree.join("up")).unwrap().is_symlink());
    let pipe = fs::symlink_metadata(tree.join("pipe")).unwrap();
    assert!(pipe.file_type().is_fifo(), "not opened, but made");
    assert!(!tree.join("zero").exists());
    assert_eq!(
        fs::metadata(tree.join("setuid")).unwrap().mode() & 0o7777,
        0o755
    );
    // And nothing is written through them.
    let bait = dock.folder.path().join("bait");
    fs::write(&bait, "bait\n").unwrap();
    let bait = bait.display().to_string();
    dock.fails(&["cp", &bait, "box:/way/"]);
    dock.run(&["cp", &bait, "box:/file"]);
    dock.run(&["cp", &bait, "box:/tree/up/bait"]);
    assert_eq!(
        fs::read_to_string(canary.join("secret")).unwrap(),
        "of the host\n"
    );
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
}

/// Somebody in there swaps a directory for a link while we copy.
#[test]
fn in_a_race() {
    let dock = Dock::new();
    let canary = dock.folder.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "of the host\n").unwrap();
    let script = format!(
        "mkdir -p /real /spin; echo inside >/real/file; ln -s {} /link; ln -s /real /here; \
         echo up; while :; do ln -sfn /real /here; ln -sfn /link /here; done",
        canary.display()
    );
    dock.start(&["--name", "box"], &["sh", "-c", &script]);
    dock.until_it_says("box", "up");
    let to = dock.folder.path().join("to");
    for _ in 0..100 {
        dock.run(&["cp", "box:/here/file", to.to_str().unwrap()]);
        if let Ok(text) = fs::read_to_string(&to) {
            assert_eq!(text, "inside\n");
        }
    }
}

/// The whole root of a container that runs, with what is mounted in there but not what the kernel makes up.
#[test]
fn of_a_whole_root() {
    let dock = Dock::new();
    dock.start(
        &["--name", "box", "--tmpfs", "/mnt"],
        &["sh", "-c", "echo x >/mnt/file; exec sleep 1000"],
    );
    eventually(|| {
        dock.ok(&["exec", "box", "ls", "/mnt"])
            .contains("file")
            .then_some(())
    })
    .unwrap();
    let out = dock.folder.path().join("out");
    let copied = dock.run(&["cp", "box:/.", &out.display().to_string()]);
    copied.success().complains("it is the kernel's");
    assert_eq!(fs::read_to_string(out.join("mnt/file")).unwrap(), "x\n");
    assert!(out.join("etc/hostname").exists() && !out.join("proc/self").exists());
}

/// FIFOs, what is noted on a file, and capabilities, which go in, and out only when that is asked for.
#[test]
fn keeps_what_there_is() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let folder = dock.folder.path().join("host");
    fs::create_dir(&folder).unwrap();
    let host = |name: &str| folder.join(name).display().to_string();
    nix::unistd::mkfifo(&folder.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::set_permissions(folder.join("fifo"), fs::Permissions::from_mode(0o642)).unwrap();
    fs::write(folder.join("file"), "text\n").unwrap();
    // CAP_NET_RAW, permitted and effective: struct vfs_cap_data in linux/capability.h.
    let net_raw: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let notes = [
        ("user.note", &b"kept"[..]),
        ("security.capability", &net_raw),
    ];
    for (key, value) in notes {
        match set_attribute(&held(&folder.join("file")), key.as_ref(), value) {
            // A tmpfs has no notes before Linux 6.6.
            Err(Errno::ENOTSUP) if key == "user.note" => {}
            set => set.unwrap(),
        }
    }
    let noted = |path: &Path| {
        let mut keys: Vec<_> = attributes(&held(path)).unwrap().into_iter().collect();
        keys.sort();
        keys
    };
    let inside = |name: &str| {
        let pid = dock.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
        Path::new("/proc").join(pid.trim()).join("root").join(name)
    };
    dock.ok(&["cp", &folder.display().to_string(), "box:/tree"]);
    let fifo = fs::metadata(inside("tree/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!(fifo.mode() & 0o7777, 0o642);
    assert_eq!(noted(&inside("tree/file")), noted(&folder.join("file")));
    dock.ok(&["cp", "box:/tree", &host("out")]);
    let keys = |path: &Path| {
        noted(path)
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    let mut notes = keys(&folder.join("file"));
    notes.retain(|key| key != "security.capability");
    assert_eq!(keys(&folder.join("out/file")), notes);
    assert!(
        fs::metadata(folder.join("out/fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    dock.ok(&["cp", "-a", "box:/tree", &host("all")]);
    assert_eq!(noted(&folder.join("all/file")), noted(&folder.join("file")));
}

/// Where a container that doesn't run would have a volume, `cp` has it, too.
#[test]
fn knows_volumes() {
    let dock = Dock::new();
    let volume = dock.folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("old"), "old\n").unwrap();
    let flag = format!("{}:/data", volume.display());
    let id = dock.start(&["--name", "box", "-v", &flag], &["sleep", "1000"]);
    dock.ok(&["stop", "-t", "0", "box"]);
    let host = |name: &str| dock.folder.path().join(name).display().to_string();
    dock.ok(&["cp", "box:/data/old", &host("copy")]);
    assert_eq!(fs::read_to_string(host("copy")).unwrap(), "old\n");
    dock.ok(&["cp", &host("copy"), "box:/data/new"]);
    assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "old\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id), "{mounts}");
    dock.ok(&["rm", "box"]);
    assert!(volume.join("old").exists());
    dock.is_empty();
}

#[test]
fn leaves_alone_what_is_no_file() {
    let dock = Dock::new();
    let volume = dock.folder.path().join("volume");
    fs::write(&volume, "old\n").unwrap();
    let flag = format!("{}:/vol", volume.display());
    dock.start(&["--name", "box", "-v", &flag], &["sleep", "1000"]);
    let host = |name: &str| dock.folder.path().join(name).display().to_string();
    fs::write(host("new"), "new\n").unwrap();
    // A file that something is mounted on stays mounted.
    dock.ok(&["cp", &host("new"), "box:/vol"]);
    assert_eq!(fs::read_to_string(&volume).unwrap(), "new\n");
    assert!(
        dock.ok(&["exec", "box", "cat", "/proc/self/mountinfo"])
            .contains(" /vol ")
    );
    let node = host("node");
    nix::unistd::mkfifo(node.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    dock.fails(&["cp", "box:/vol", &node])
        .complains("stays as it is");
    symlink(host("new"), host("link")).unwrap();
    dock.fails(&["cp", "box:/etc/hostname", &host("link")])
        .complains("that is a link");
    // Names with colons, and without slashes.
    fs::create_dir(host("d")).unwrap();
    fs::write(host("a:b"), "colon\n").unwrap();
    dock.ok(&["cp", &host("a:b"), "box:/tmp/"]);
    assert_eq!(dock.ok(&["exec", "box", "cat", "/tmp/a:b"]), "colon\n");
    dock.ok(&["cp", "box:etc", &host("d")]);
    assert!(Path::new(&host("d/etc/hostname")).exists());
    // Nobody reads what it says: its /work is still there.
    dock.ok(&[
        "exec",
        "box",
        "sh",
        "-c",
        "mkdir /work /t; echo x >/work/thesis; mknod /t/n c 1 3; echo y >/t/y",
    ]);
    dock.ok(&["stop", "-t", "0", "box"]);
    let mut command = dock.command(&["cp", "box:/t/.", &host("out")]);
    let (read, write) = nix::unistd::pipe().unwrap();
    drop(read);
    command.stderr(Stdio::from(write)).assert().success();
    dock.ok(&["start", "box"]);
    assert_eq!(dock.ok(&["exec", "box", "cat", "/work/thesis"]), "x\n");
}
