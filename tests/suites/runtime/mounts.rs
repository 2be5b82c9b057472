//! The mounts of config.json, in the mount table of the container's process.

use crate::stage::bundle::{Bundle, has, inside, mount_at, part, push};
use crate::stage::mount_apart;
use nix::mount::{MsFlags, mount, umount};
use progress::host::evidence::Process;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

/// A mount of a new filesystem.
fn tmpfs(at: &str, options: &[&str]) -> Value {
    json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// A bind mount.
fn bind(source: &str, at: &str, options: &[&str]) -> Value {
    json!({"destination": at, "type": "none", "source": source, "options": options})
}

/// Adds these mounts behind the usual ones.
fn with(mounts: impl IntoIterator<Item = Value>) -> impl FnOnce(&mut Value) {
    let mounts: Vec<_> = mounts.into_iter().collect();
    move |config| {
        for mount in mounts {
            push(&mut config["mounts"], mount);
        }
    }
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A later mount is on top of an earlier one.
#[test]
fn mounts_are_made_in_order() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("source")).unwrap();
    fs::write(bundle.path("source/file"), "canary").unwrap();
    let first = bundle.begin(with([
        tmpfs("/srv", &["size=1m"]),
        tmpfs("/srv/a", &["size=2m"]),
        bind("source", "/srv/a/b", &["bind"]),
        tmpfs("/mnt", &["size=3m"]),
        bind("source", "/mnt", &["bind"]),
        bind("source", "/opt", &["bind"]),
        tmpfs("/opt", &["size=4m"]),
    ]));
    let mut targets: Vec<_> = first
        .mounts()
        .unwrap()
        .into_iter()
        .map(|mount| mount.target)
        .collect();
    targets.retain(|target| {
        ["/srv", "/mnt", "/opt"]
            .iter()
            .any(|top| target.starts_with(top))
    });
    assert_eq!(targets.len(), 7, "{targets:?}");
    let there = |path: &str| fs::read_to_string(inside(first, path)).ok();
    assert_eq!(there("/srv/a/b/file").as_deref(), Some("canary"));
    assert_eq!(there("/mnt/file").as_deref(), Some("canary"));
    assert_eq!(there("/opt/file"), None);
    bundle.end();
}

#[test]
fn the_usual_mounts() {
    let bundle = Bundle::new();
    let first = bundle.begin(|_| {});
    for (target, kind, options) in [
        ("/proc", "proc", &[][..]),
        ("/dev", "tmpfs", &["nosuid"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", &["nosuid", "nodev", "noexec", "ro"]),
    ] {
        let found = mount_at(first, target);
        assert_eq!(found.filesystem, kind, "{target}");
        for option in options {
            assert!(has(&found, option), "{found}");
        }
    }
    // Nothing of the host's is left, and nobody hears of what is mounted.
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for mount in first.mounts().unwrap() {
        assert!(
            !mount.tags.iter().any(|tag| tag.starts_with("shared:")),
            "{mount}"
        );
    }
    bundle.end();
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), host);
}

/// Each option alone, on a filesystem of its own and on a bind mount.
#[test]
fn options_of_a_mount() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("source")).unwrap();
    let words: [(&str, &[&str], &[&str]); 16] = [
        ("ro", &["ro"], &["rw"]),
        ("rw", &["rw"], &["ro"]),
        ("nosuid", &["nosuid"], &["nodev", "noexec"]),
        ("nodev", &["nodev"], &["nosuid", "noexec"]),
        ("noexec", &["noexec"], &["nosuid", "nodev"]),
        ("noatime", &["noatime"], &["relatime"]),
        ("relatime", &["relatime"], &["noatime"]),
        ("strictatime", &[], &["relatime", "noatime"]),
        ("nodiratime", &["nodiratime"], &["noatime"]),
        ("nosymfollow", &["nosymfollow"], &[]),
        ("defaults", &["rw"], &["nosuid", "nodev", "noexec"]),
        ("suid", &[], &["nosuid"]),
        ("dev", &[], &["nodev"]),
        ("exec", &[], &["noexec"]),
        ("atime", &[], &["noatime"]),
        ("silent", &["rw"], &[]),
    ];
    let mut mounts = Vec::new();
    for (word, ..) in words {
        mounts.push(tmpfs(&format!("/srv/new/{word}"), &[word]));
        mounts.push(bind(
            "source",
            &format!("/srv/bound/{word}"),
            &["bind", word],
        ));
    }
    // Of two that contradict each other the later one holds.
    mounts.push(tmpfs(
        "/srv/later",
        &["ro", "nosuid", "rw", "suid", "noexec"],
    ));
    mounts.push(bind("source", "/srv/both", &["bind", "rw", "ro"]));
    let first = bundle.begin(with(mounts));
    for (word, on, off) in words {
        for place in ["new", "bound"] {
            let found = mount_at(first, &format!("/srv/{place}/{word}"));
            for option in on {
                assert!(has(&found, option), "{word}: {found}");
            }
            for option in off {
                assert!(!has(&found, option), "{word}: {found}");
            }
        }
    }
    let later = mount_at(first, "/srv/later");
    assert!(
        has(&later, "rw") && has(&later, "noexec") && !has(&later, "nosuid"),
        "{later}"
    );
    assert!(has(&mount_at(first, "/srv/both"), "ro"));
    bundle.end();
    // Those of the filesystem itself.
    let first = bundle.begin(with([
        tmpfs(
            "/srv/sized",
            &["size=64k", "mode=1770", "uid=12", "gid=34", "nr_inodes=100"],
        ),
        tmpfs("/srv/lazy", &["lazytime"]),
        json!({"destination": "/srv/named", "type": "tmpfs", "source": "a name"}),
    ]));
    let sized = mount_at(first, "/srv/sized");
    for option in ["size=64k", "mode=1770", "uid=12", "gid=34", "nr_inodes=100"] {
        assert!(
            sized.super_options.split(',').any(|each| each == option),
            "{sized}"
        );
    }
    let found = fs::metadata(inside(first, "/srv/sized")).unwrap();
    assert_eq!(
        (found.mode() & 0o7777, found.uid(), found.gid()),
        (0o1770, 12, 34)
    );
    assert_eq!(mount_at(first, "/srv/named").source, "a name");
    bundle.end();
}

/// A source is relative to the bundle; what is missing at the mount point is made, a directory or a file.
#[test]
fn bind_mounts() {
    mount_apart();
    let bundle = Bundle::new();
    let none = None::<&str>;
    let source = bundle.path("source");
    fs::create_dir_all(source.join("below")).unwrap();
    fs::write(source.join("file"), "canary").unwrap();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
    for folder in [source.clone(), source.join("below")] {
        mount(Some("tmpfs"), &folder, Some("tmpfs"), flags, none).unwrap();
        let _ = fs::create_dir(folder.join("below"));
        fs::write(folder.join("file"), "canary").unwrap();
    }
    let absolute = bundle.text("source");
    let first = bundle.begin(with([
        bind("source", "/srv/bind", &["bind"]),
        bind(&absolute, "/srv/rbind", &["rbind"]),
        bind("source/file", "/srv/new/file", &["bind", "ro"]),
        bind("source", "/srv/ro", &["rbind", "ro"]),
        bind("source", "/srv/rro", &["rbind", "rro"]),
        bind("source", "/srv/rest", &["rbind", "rnosuid", "rnodev", "rnoexec", "rnosymfollow", "rstrictatime"]),
        json!({"destination": "/srv/typed", "type": "bind", "source": "source", "options": ["rbind"]}),
        json!({"destination": "/srv/untyped", "source": "source", "options": ["bind"]}),
    ]));
    let below = |name: &str| {
        let target = format!("/srv/{name}/below");
        let mounts = first.mounts().unwrap();
        mounts
            .into_iter()
            .find(|mount| mount.target == Path::new(&target))
    };
    for (name, has_below) in [
        ("bind", false),
        ("rbind", true),
        ("typed", true),
        ("untyped", false),
    ] {
        assert_eq!(below(name).is_some(), has_below, "{name}");
        let found = mount_at(first, &format!("/srv/{name}"));
        // It is the mount of the host, with its flags.
        assert!(
            has(&found, "nosuid") && has(&found, "noatime") && has(&found, "rw"),
            "{found}"
        );
    }
    let file = fs::read_to_string(inside(first, "/srv/new/file")).unwrap();
    assert_eq!(file, "canary");
    assert!(has(&mount_at(first, "/srv/new/file"), "ro"));
    // Without an r the option is for the topmost mount.
    assert!(has(&mount_at(first, "/srv/ro"), "ro") && has(&below("ro").unwrap(), "rw"));
    assert!(has(&mount_at(first, "/srv/rro"), "ro") && has(&below("rro").unwrap(), "ro"));
    for mount in [mount_at(first, "/srv/rest"), below("rest").unwrap()] {
        for option in ["nosuid", "nodev", "noexec", "nosymfollow"] {
            assert!(has(&mount, option), "{mount}");
        }
        assert!(
            !has(&mount, "noatime") && !has(&mount, "relatime"),
            "{mount}"
        );
    }
    // What is read-only in there isn't so on the host.
    fs::write(source.join("below/file"), "other").unwrap();
    bundle.end();
    assert!(bundle.path("rootfs/srv/new/file").is_file());
    assert!(bundle.path("rootfs/srv/rbind").is_dir());
}

/// Who hears of whose mounts.
#[test]
fn propagation() {
    mount_apart();
    let bundle = Bundle::new();
    let none = None::<&str>;
    let source = bundle.path("source");
    fs::create_dir(&source).unwrap();
    mount(
        Some("tmpfs"),
        &source,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    mount(none, &source, none, MsFlags::MS_SHARED, none).unwrap();
    fs::create_dir(source.join("later")).unwrap();
    let words = [
        "private",
        "rprivate",
        "slave",
        "rslave",
        "shared",
        "rshared",
        "unbindable",
        "",
    ];
    let first =
        bundle.begin(with(words.map(|word| {
            bind("source", &format!("/srv/x{word}"), &["rbind", word])
        })));
    let this = Process(nix::unistd::gettid());
    let group = mount_at(this, source.to_str().unwrap()).tags[0].clone();
    let number = group.strip_prefix("shared:").unwrap();
    mount(
        Some("tmpfs"),
        &source.join("later"),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    for word in words {
        let tags = mount_at(first, &format!("/srv/x{word}")).tags;
        let wanted = match word.trim_start_matches('r') {
            "private" => vec![],
            "slave" => vec![format!("master:{number}")],
            "shared" => vec![group.clone()],
            "unbindable" => vec!["unbindable".to_owned()],
            // Whatever it is, the host hears of nothing.
            _ => {
                assert!(!tags.contains(&group), "{tags:?}");
                continue;
            }
        };
        assert_eq!(tags, wanted, "{word}");
        let target = format!("/srv/x{word}/later");
        let hears = first
            .mounts()
            .unwrap()
            .iter()
            .any(|mount| mount.target == Path::new(&target));
        assert_eq!(
            hears,
            word.ends_with("slave") || word.ends_with("shared"),
            "{word}"
        );
    }
    bundle.ok(&["delete", "--force", &bundle.id]);
    umount(&source.join("later")).unwrap();
    umount(&source).unwrap();
    bundle.is_clean();
}

/// A directory that a new filesystem covers gives it its mode, unless one is said, and with tmpcopyup all that is in it.
#[test]
fn what_a_new_filesystem_takes_over() {
    let bundle = Bundle::new();
    let data = bundle.path("rootfs/srv/data");
    let deep = bundle.put("/srv/data/deep/er/file", "canary");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o1711)).unwrap();
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o4640)).unwrap();
    fs::set_permissions(data.join("deep"), fs::Permissions::from_mode(0o2750)).unwrap();
    chown(&deep, Some(12), Some(34)).unwrap();
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o4640)).unwrap();
    symlink("deep/er/file", data.join("link")).unwrap();
    lchown(data.join("link"), Some(56), Some(78)).unwrap();
    let data = "/srv/data";
    let first = bundle.begin(with([tmpfs(data, &[])]));
    assert_eq!(mode(inside(first, data)), 0o1711);
    assert_eq!(fs::read_dir(inside(first, data)).unwrap().count(), 0);
    bundle.end();
    let first = bundle.begin(with([tmpfs(data, &["mode=700"])]));
    assert_eq!(mode(inside(first, data)), 0o700);
    bundle.end();
    let first = bundle.begin(with([
        tmpfs(data, &["tmpcopyup", "nosuid"]),
        tmpfs("/srv/none/there", &["tmpcopyup"]),
    ]));
    assert!(has(&mount_at(first, data), "nosuid"));
    assert_eq!(mode(inside(first, data)), 0o1711);
    let file = inside(first, "/srv/data/deep/er/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "canary");
    let found = fs::metadata(&file).unwrap();
    assert_eq!(
        (found.mode() & 0o7777, found.uid(), found.gid()),
        (0o4640, 12, 34)
    );
    assert_eq!(mode(inside(first, "/srv/data/deep")), 0o2750);
    let link = inside(first, "/srv/data/link");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("deep/er/file"));
    assert_eq!(fs::symlink_metadata(&link).unwrap().uid(), 56);
    // It is a copy.
    fs::write(&file, "other").unwrap();
    assert_eq!(fs::read_to_string(deep).unwrap(), "canary");
    bundle.end();
}

/// The container sees its own groups, and only these, with a cgroup namespace and without one.
#[test]
fn control_groups() {
    let bundle = Bundle::new();
    for (kinds, options) in [
        (&["pid", "cgroup"][..], &["ro", "nosuid"][..]),
        (&["pid"], &["ro", "nosuid"]),
        (&["pid", "cgroup"], &["nosuid"]),
    ] {
        let first = bundle.begin(|config| {
            part(config, kinds);
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["type"] != "cgroup");
            let groups = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
            mounts.push(groups);
        });
        let is_ro = options.contains(&"ro");
        let mounts = first.mounts().unwrap();
        let groups: Vec<_> = mounts
            .iter()
            .filter(|mount| mount.filesystem.starts_with("cgroup"))
            .collect();
        assert!(!groups.is_empty(), "{kinds:?}");
        for mount in groups {
            let name = mount.root.file_name().unwrap_or_default().to_string_lossy();
            assert_eq!(name, bundle.id, "{kinds:?}: {mount}");
            assert_eq!(has(mount, "ro"), is_ro, "{mount}");
            assert!(has(mount, "nosuid"), "{mount}");
            let members = fs::read_to_string(
                inside(first, mount.target.to_str().unwrap()).join("cgroup.procs"),
            );
            let members = members.unwrap();
            assert!(
                members.lines().any(|pid| pid == first.0.to_string()),
                "{mount}: {members}"
            );
        }
        let own = bundle.ok(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
        for line in own.lines() {
            let (controllers, path) = line.split_once(':').unwrap().1.split_once(':').unwrap();
            // A hybrid machine has no controllers in version 2, and a container no group there.
            if controllers.is_empty()
                && !bundle
                    .groups()
                    .iter()
                    .any(|group| group.join("cgroup.type").exists())
            {
                continue;
            }
            let wanted = match kinds.contains(&"cgroup") {
                true => path == "/",
                false => path.ends_with(&bundle.id),
            };
            assert!(wanted, "{kinds:?}: {own}");
        }
        bundle.end();
    }
}

/// Filesystems that are made of something that the host has.
#[test]
fn filesystems_of_the_host() {
    let bundle = Bundle::new();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(bundle.path(name)).unwrap();
    }
    fs::write(bundle.path("lower/file"), "canary").unwrap();
    let options = ["lower", "upper", "work"].map(|name| format!("{name}dir={}", bundle.text(name)));
    let first = bundle.begin(with([
        json!({"destination": "/srv/layers", "type": "overlay", "source": "overlay", "options": options}),
    ]));
    assert_eq!(mount_at(first, "/srv/layers").filesystem, "overlay");
    let file = inside(first, "/srv/layers/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "canary");
    fs::write(&file, "other").unwrap();
    bundle.end();
    assert_eq!(
        fs::read_to_string(bundle.path("lower/file")).unwrap(),
        "canary"
    );
    assert_eq!(
        fs::read_to_string(bundle.path("upper/file")).unwrap(),
        "other"
    );
}

/// No link of the root leads a mount out of it, nor away from where the container and we look for /proc.
#[test]
fn links_of_the_root() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("source")).unwrap();
    let root = bundle.path("rootfs");
    symlink("../../../../../../../../tmp", root.join("srv-out")).unwrap();
    symlink("/var", root.join("srv-var")).unwrap();
    let first = bundle.begin(with([
        tmpfs("/srv-out/new", &[]),
        bind("source", "/srv-var/../srv-var/bound", &["bind"]),
    ]));
    mount_at(first, "/tmp/new");
    mount_at(first, "/var/bound");
    assert!(!Path::new("/tmp/new").exists());
    bundle.end();

    for name in ["proc", "sys"] {
        let there = root.join(name);
        fs::remove_dir(&there).unwrap();
        symlink("tmp", &there).unwrap();
        bundle.refuses(|_| {}, &["mounts[", &format!("/{name}"), "link"]);
        fs::remove_file(&there).unwrap();
        fs::create_dir(&there).unwrap();
    }
}

/// What a container's /proc says is the kernel's, but for files that only tell of the machine.
#[test]
fn nothing_covers_proc() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("source")).unwrap();
    fs::write(bundle.path("file"), "canary").unwrap();
    symlink("/proc/self", bundle.path("rootfs/srv-self")).unwrap();
    for (mount, said) in [
        (bind("source", "/proc", &["bind"]), "/proc"),
        (tmpfs("/proc", &[]), "/proc"),
        (tmpfs("/proc/tty", &[]), "/proc"),
        (bind("source", "/proc/self/attr", &["bind"]), "/proc"),
        (bind("file", "/proc/self/uid_map", &["bind"]), "/proc"),
        (bind("file", "/srv-self/environ", &["bind"]), "/proc"),
        (
            bind("file", "/proc/../proc/sys/kernel/hostname", &["bind"]),
            "/proc",
        ),
    ] {
        bundle.refuses(with([mount.clone()]), &["mounts[", said]);
    }
    for mount in [bind("source", "/proc", &["bind"]), tmpfs("/proc", &[])] {
        let alone = |config: &mut Value| config["mounts"] = json!([mount]);
        bundle.refuses(alone, &["mounts[0]", "only a procfs"]);
    }
    let first = bundle.begin(with([bind("file", "/proc/uptime", &["bind"])]));
    assert_eq!(
        fs::read_to_string(inside(first, "/proc/uptime")).unwrap(),
        "canary"
    );
    bundle.end();
}

/// A /dev that is somebody else's stays as it is; one of the container's own may be for reading only in the end.
#[test]
fn whose_dev_it_is() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("dev")).unwrap();
    fs::write(bundle.path("dev/file"), "canary").unwrap();
    let only = |mount: Value| {
        move |config: &mut Value| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
            mounts.push(mount);
        }
    };
    // What is masked is hidden beneath the device null.
    let masked = |config: &mut Value| {
        only(bind("dev", "/dev", &["bind"]))(config);
        config["linux"]["maskedPaths"] = json!(["/etc/passwd"]);
    };
    bundle.refuses(masked, &["linux.maskedPaths", "/dev/null"]);
    let first = bundle.begin(|config| {
        only(bind("dev", "/dev", &["bind"]))(config);
        config["linux"]["maskedPaths"] = json!([]);
    });
    assert_eq!(
        fs::read_to_string(inside(first, "/dev/file")).unwrap(),
        "canary"
    );
    bundle.end();
    let names = fs::read_dir(bundle.path("dev")).unwrap().flatten();
    let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["file"]);

    let first = bundle.begin(only(tmpfs("/dev", &["ro", "mode=755"])));
    assert!(has(&mount_at(first, "/dev"), "ro"));
    assert!(inside(first, "/dev/null").exists());
    let error = fs::write(inside(first, "/dev/new"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    bundle.end();
}

/// A procfs over a procfs, and something else over a sysfs: what lies on top is what counts, and links of the kernel's own
/// lead to what they mean.
#[test]
fn windows_that_are_covered() {
    let bundle = Bundle::new();
    let first = bundle.begin(|config| {
        for (kind, target) in [("proc", "/proc"), ("tmpfs", "/sys")] {
            let mount = json!({"destination": target, "type": kind, "source": kind});
            push(&mut config["mounts"], mount);
        }
        config["linux"]["maskedPaths"] = json!(["/proc/mounts", "/proc/keys", "/sys/firmware"]);
    });
    assert_eq!(mount_at(first, "/sys").filesystem, "tmpfs");
    let procs = first.mounts().unwrap();
    let procs = procs
        .iter()
        .filter(|mount| mount.target == Path::new("/proc"));
    assert_eq!(procs.count(), 2);
    assert_eq!(fs::read_to_string(inside(first, "/proc/keys")).unwrap(), "");
    assert_eq!(
        fs::read_to_string(inside(first, "/proc/1/mounts")).unwrap(),
        ""
    );
    bundle.end();
}
