//! Step 8: layers, volumes, archives.

use crate::stage::{Root, folder, have, run, script, step};
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::signal::Signal;
use progress::container::{Container, Outcome, eventually, run as run_program};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

const STEP: &str = "step08-overlay";

/// A state folder, and images beside it.
struct Bench {
    folder: TempDir,
    root: Root,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            folder: folder(),
            root: Root::shared(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self, flags: &[&str], command: &[&str]) -> Vec<OsString> {
        let mut arguments = vec!["--state-dir".into(), self.path("state").into()];
        arguments.extend(flags.iter().chain(command).map(OsString::from));
        arguments
    }

    /// Runs on the flags' own images.
    fn bare(&self, flags: &[&str], command: &[&str]) -> Outcome {
        run_program(step(STEP), &self.arguments(flags, command)).unwrap()
    }

    /// Runs with the flags' images above the usual root.
    fn run(&self, flags: &[&str], line: &str) -> Outcome {
        let root = self.root.path();
        let flags = [flags, &["--image", root.to_str().unwrap()]].concat();
        self.bare(&flags, &["sh", "-c", line])
    }

    /// Nothing of a container is left.
    #[track_caller]
    fn is_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.path("state/containers"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let half = self.path("state/images/new");
        assert!(!half.exists(), "half an image is left");
    }
}

fn layer(path: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

#[test]
fn a_hundred_layers_and_odd_names() {
    let bench = Bench::new();
    let mut flags = Vec::new();
    for number in 0..100 {
        let path = bench.path(&format!("layer {number}:with,odd\\{number}\"name"));
        layer(
            &path,
            &[
                ("srv/top", &format!("{number}\n")),
                (&format!("srv/{number}"), "x"),
            ],
        );
        flags.extend(["--image".to_owned(), path.to_str().unwrap().to_owned()]);
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let outcome = bench.run(&flags, "cat /srv/top; ls /srv | wc -l");
    assert_eq!(
        (outcome.output.as_str(), outcome.code),
        ("0\n101\n", 0),
        "{}",
        outcome.errors
    );
    let many: Vec<_> = std::iter::repeat_n(&flags[..2], 201)
        .flatten()
        .copied()
        .collect();
    let outcome = bench.bare(&many, &["true"]);
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("the kernel takes 200"),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}

/// Many volumes: files and directories, below each other, made where they are missing, never through a
/// link out of the root.
#[test]
fn volumes() {
    let bench = Bench::new();
    layer(
        &bench.path("a"),
        &[("file", "a\n"), ("below/x", "covered\n")],
    );
    layer(&bench.path("b"), &[("file", "b\n")]);
    let (a, b) = (bench.path("a"), bench.path("b"));
    let image = bench.path("image");
    layer(&image, &[("etc/x", "")]);
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, image.join("link")).unwrap();
    symlink(
        "/../../../../../../../..".to_owned() + outside.to_str().unwrap(),
        image.join("climb"),
    )
    .unwrap();
    symlink("/proc/1/root", image.join("magic")).unwrap();
    let flag = |source: &Path, target: &str| format!("{}:{target}", source.display());
    let volumes = [
        // The deeper one is named first.
        flag(&b, "/data/below"),
        flag(&a, "/data"),
        flag(&a.join("file"), "/very/deep/down/file:ro"),
        flag(&b, "/link/inside"),
        flag(&b, "/climb/inside"),
    ];
    let mut flags: Vec<&str> = volumes
        .iter()
        .flat_map(|volume| ["-v", volume.as_str()])
        .collect();
    flags.extend(["--image", image.to_str().unwrap()]);
    let line = "cat /data/file /data/below/file /very/deep/down/file /link/inside/file /climb/inside/file; \
                echo more >>/data/below/file; echo spoilt >/very/deep/down/file";
    let outcome = bench.run(&flags, line);
    assert_eq!(outcome.output, "a\nb\na\nb\nb\n", "{}", outcome.errors);
    assert!(
        outcome.errors.contains("Read-only file system"),
        "{}",
        outcome.errors
    );
    assert_eq!(fs::read_to_string(b.join("file")).unwrap(), "b\nmore\n");
    assert_eq!(fs::read_to_string(a.join("file")).unwrap(), "a\n");
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "a volume led out of the root"
    );
    // A magic link is read like any other, and leads to the container's root.
    let magic = flag(&b, "/magic/x");
    let outcome = bench.run(&["-v", &magic, "--image", image.to_str().unwrap()], "ls /x");
    assert_eq!(outcome.output, "file\n", "{}", outcome.errors);
    for (target, words) in [
        (flag(&b, "/etc/passwd"), "no directory"),
        (flag(&a.join("file"), "/etc"), "a directory"),
    ] {
        let outcome = bench.run(&["-v", &target, "--image", image.to_str().unwrap()], "true");
        assert_eq!(outcome.code, 125, "{target}: {}", outcome.errors);
        assert!(
            outcome.errors.contains(words),
            "{target}: {}",
            outcome.errors
        );
    }
    bench.is_clean();
}

/// A mount that the host makes later is seen through an rslave or rshared volume, and not otherwise; one that
/// the container makes is seen by the host through rshared only.
#[test]
fn propagation_means_what_it_says() {
    let bench = Bench::new();
    for (option, sees, is_seen) in [
        ("", false, false),
        (":rslave", true, false),
        (":rshared", true, true),
    ] {
        let line = "set -e; mount -t tmpfs v \"$1\"; mount --make-shared \"$1\"; mkdir \"$1/theirs\" \"$1/ours\"
            mkfifo \"$1/go\" \"$1/done\"
            \"$2\" --privileged --state-dir \"$3\" --image \"$4\" -v \"$1:/v$5\" sh -c 'echo ready >/v/done; read go </v/go; \
            if [ -e /v/theirs/x ]; then echo sees; fi; mount -t tmpfs t /v/ours && touch /v/ours/x; echo done >/v/done; read go </v/go' &
            read ready <\"$1/done\"; mount -t tmpfs t \"$1/theirs\"; touch \"$1/theirs/x\"; echo go >\"$1/go\"
            read ready <\"$1/done\"; if [ -e \"$1/ours/x\" ]; then echo is seen; fi; echo go >\"$1/go\"; wait $!";
        let place = bench.path("v");
        fs::create_dir_all(&place).unwrap();
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", line, "sh"])
            .args([&place, step(STEP), &bench.path("state"), &bench.root.path()])
            .arg(option)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{option}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            (said.contains("sees"), said.contains("is seen")),
            (sees, is_seen),
            "{option}: {said}"
        );
    }
    bench.is_clean();
}

#[test]
fn tmpfs_and_read_only() {
    let bench = Bench::new();
    let flags = [
        "--read-only",
        "--tmpfs",
        "/run/x:size=64k,mode=700",
        "--tmpfs",
        "/fast:exec",
    ];
    let outcome = bench.run(&flags, "cut -d ' ' -f 5,6 /proc/self/mountinfo | grep -E '^(/|/run/x|/fast) ' | sort; echo x >/x; head -c 100000 /dev/zero >/run/x/y; echo x >/dev/shm/x");
    let lines: Vec<_> = outcome.output.lines().collect();
    assert_eq!(lines.len(), 3, "{}", outcome.output);
    assert!(lines[0].starts_with("/ ro"), "{}", lines[0]);
    assert_eq!(lines[2], "/run/x rw,nosuid,nodev,noexec,relatime");
    assert_eq!(lines[1], "/fast rw,nosuid,nodev,relatime");
    assert!(
        outcome.errors.contains("/x: Read-only"),
        "{}",
        outcome.errors
    );
    assert!(
        outcome.errors.contains("No space left"),
        "{}",
        outcome.errors
    );
    assert!(!outcome.errors.contains("/dev/shm"), "{}", outcome.errors);
    bench.is_clean();
}

/// What was kept is there the next time, removals too, and the work directory has gone.
#[test]
fn changes_are_kept_on_demand() {
    let bench = Bench::new();
    let kept = bench.path("kept");
    let keep = ["--keep", kept.to_str().unwrap()];
    assert_eq!(
        bench
            .run(&keep, "echo one >/one; rm /etc/group; mkdir /new")
            .code,
        0
    );
    let outcome = bench.run(
        &keep,
        "cat /one; ls /etc/group; ls -d /new; echo two >>/one",
    );
    assert_eq!(outcome.output, "one\n/new\n", "{}", outcome.errors);
    assert_eq!(fs::read_to_string(kept.join("one")).unwrap(), "one\ntwo\n");
    let names: Vec<_> = fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().all(|name| !name.contains("work")), "{names:?}");
    // Without it nothing stays.
    assert_eq!(bench.run(&[], "ls /one").code, 2);
    bench.is_clean();
}

/// What SIGKILL leaves, the next run removes, but not what somebody uses.
#[test]
fn the_next_run_sweeps() {
    let bench = Bench::new();
    let root = bench.root.path();
    let started = || {
        let flags = ["-i", "--image", root.to_str().unwrap()];
        Container::start(
            step(STEP),
            &bench.arguments(
                &flags,
                &[
                    "sh",
                    "-c",
                    "echo ready; read end; cat /etc/passwd >/dev/null && echo whole",
                ],
            ),
        )
        .unwrap()
    };
    let killed = started();
    let mut other = started();
    let containers = || {
        fs::read_dir(bench.path("state/containers"))
            .unwrap()
            .count()
    };
    assert_eq!(containers(), 2);
    let first = killed.first_process();
    let namespace = first.namespace("pid").unwrap();
    killed.signal(Signal::SIGKILL).unwrap();
    drop(killed);
    eventually(|| match first.namespace("pid") {
        Ok(own) if own == namespace => None,
        _ => Some(()),
    })
    .expect("it is gone");
    assert_eq!(bench.run(&[], "true").code, 0);
    assert_eq!(containers(), 1, "one was left, and one is in use");
    other.write_line("").unwrap();
    assert_eq!(other.finish().unwrap().output, "ready\nwhole\n");
    bench.is_clean();
}

/// A root as a list: each path with all that a file is, but for times of access and change.
fn listing(root: &Path) -> Vec<String> {
    fn describe(root: &Path, path: &Path, lines: &mut Vec<String>) {
        let found = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().display();
        let kind = found.file_type();
        let content = match kind {
            _ if kind.is_symlink() => fs::read_link(path).unwrap().display().to_string(),
            _ if kind.is_file() => {
                let sum = run(Command::new("sha256sum").arg("--").arg(path));
                format!(
                    "{} {}",
                    found.len(),
                    sum.split_once("  ").unwrap().0.trim_start_matches('\\')
                )
            }
            _ => String::new(),
        };
        let attributes = step08_overlay::attributes::attributes(path).unwrap();
        let mut attributes: Vec<_> = attributes
            .iter()
            .map(|(key, value)| format!("{}={value:?}", key.to_string_lossy()))
            .collect();
        attributes.sort();
        let links = if kind.is_dir() { 0 } else { found.nlink() };
        lines.push(format!(
            "{name} {:o} {}:{} {}.{:09} {links} {} {content} {attributes:?}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime(),
            found.mtime_nsec(),
            found.rdev(),
        ));
        if kind.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            entries.sort();
            for entry in entries {
                describe(root, &entry, lines);
            }
        }
    }
    let mut lines = Vec::new();
    describe(root, root, &mut lines);
    // Touched by what was mounted in them.
    lines.retain(|line| {
        !["proc ", "sys ", "dev ", "etc ", " "]
            .iter()
            .any(|name| line.starts_with(name))
    });
    lines.retain(|line| {
        !line.starts_with("etc/hosts ")
            && !line.starts_with("etc/hostname ")
            && !line.starts_with("etc/resolv.conf ")
    });
    lines
}

/// A root that has one of everything.
fn odd_root(root: &Path) {
    Root::shared().copy(root);
    let at = |name: &str| root.join(name);
    fs::create_dir(at("odd")).unwrap();
    let shell = "cd \"$0/odd\"; mkfifo fifo; mknod char c 4 5; mknod block b 6 7; echo x >file; ln file hard; ln -s /nowhere dangling; ln -s file soft; ln soft hardsoft 2>/dev/null
        chown 1234:5678 file; chown -h 77:88 soft; chmod 4751 file; mkdir -m 1777 sticky; mkdir -m 0 closed; echo hidden >closed/file
        truncate -s 5000000 sparse; printf data | dd of=sparse bs=1 seek=3000000 conv=notrunc 2>/dev/null
        touch -d '1969-07-20 20:17:40.123456789 UTC' old; touch -d '2100-01-01 00:00:00.5 UTC' new
        touch \"$(printf 'new\\nline')\" \"$(printf 'not\\377utf8')\" 'with space' \"$(printf '%0200d' 1)\"
        mkdir -p \"$(printf '%0100d' 2)/$(printf '%0100d' 3)\"; ln -s \"$(printf '%0200d' 4)\" longlink; : >empty
        chown 4000000000:4000000000 new";
    run(Command::new("sh").args(["-c", shell]).arg(root));
    let set = |name: &str, key: &str, value: &[u8]| {
        let directory = fs::File::open(at("odd")).unwrap();
        step08_overlay::attributes::set_attribute(&directory, name.as_ref(), key.as_ref(), value)
            .unwrap();
    };
    // cap_net_raw=ep
    set(
        "empty",
        "security.capability",
        &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    set("file", "user.colour", b"red\0and more");
    set("soft", "trusted.link", b"on the link itself");
    set("hard", "user.lines", b"one\ntwo\n");
    let name = OsString::from_vec(vec![b'o', 0xff, b'd']);
    fs::write(at("odd").join(name), "").unwrap();
}

/// Out and in again, in every kind of archive: the same, file by file; and a Debian as well, where debootstrap
/// is there.
#[test]
fn a_root_survives_its_archive() {
    // A tmpfs has no attributes of users before Linux 6.6.
    if crate::vm::inside() {
        return;
    }
    let bench = Bench::new();
    let mut roots = vec![bench.path("odd")];
    odd_root(&roots[0]);
    if !crate::stage::nested() && have("debootstrap", "debootstrap") {
        let debian = bench.path("debian");
        run(script("debian.sh").arg(&debian));
        roots.push(debian);
    }
    for root in roots {
        let before = listing(&root);
        assert!(before.len() > 50);
        if root.ends_with("debian") {
            let flags = [
                "--image",
                root.to_str().unwrap(),
                "-u",
                "daemon",
                "-m",
                "64m",
                "-t",
            ];
            let outcome = bench.bare(
                &flags,
                &[
                    "bash",
                    "-c",
                    "id -un; dpkg -l bash | tail -n 1 | cut -c 1-2",
                ],
            );
            assert_eq!(outcome.output, "daemon\r\nii\r\n", "{}", outcome.errors);
        }
        for ending in ["tar", "tar.gz", "tar.zst"] {
            let archive = bench.path(&format!("saved.{ending}"));
            let flags = [
                "--image",
                root.to_str().unwrap(),
                "-v",
                "/etc:/volume",
                "--tmpfs",
                "/temporary",
                "--commit",
                archive.to_str().unwrap(),
            ];
            // A quarter of a gigabyte is compressed: it is busy for long, and not because it hangs.
            let output = Command::new(step(STEP))
                .args(bench.arguments(&flags, &["sh", "-c", "exit 3"]))
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            let outcome = bench.bare(
                &["--image", archive.to_str().unwrap()],
                &["sh", "-c", "ls /volume /temporary /proc/1/exe"],
            );
            assert_eq!(outcome.code, 0, "{}", outcome.errors);
            let images = fs::read_dir(bench.path("state/images")).unwrap().flatten();
            let image = images
                .map(|entry| entry.path())
                .find(|path| path.to_string_lossy().contains("sha256-"))
                .unwrap();
            let mut after = listing(&image);
            // What the volumes were mounted on is there, and empty.
            after.retain(|line| !line.starts_with("volume ") && !line.starts_with("temporary "));
            let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
            let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
            assert!(
                lost.is_empty() && new.is_empty(),
                "{ending}: {lost:#?} became {new:#?}"
            );
            if root.ends_with("odd") {
                let sparse = fs::metadata(image.join("odd/sparse")).unwrap();
                assert!(
                    sparse.blocks() * 512 < 1_000_000,
                    "{} blocks",
                    sparse.blocks()
                );
            }
            fs::remove_dir_all(bench.path("state/images")).unwrap();
            // Somebody else's tar reads it, too.
            run(Command::new("tar")
                .arg("-tf")
                .arg(&archive)
                .args(["--force-local"])
                .env("LC_ALL", "C"))
            .lines()
            .next()
            .unwrap();
        }
    }
    bench.is_clean();
}

/// Everything that steps 5 to 8 do, at once, on a root of one static program, and with a directory of the
/// host's in it.
#[test]
fn all_of_it_on_busybox() {
    if !have("busybox", "busybox-static") {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("busybox");
    run(script("busybox.sh").arg(&root));
    let line = "id -u && hostname && cat /proc/self/cgroup | wc -l && mount | grep -c overlay && cat /data/file && grep CapEff /proc/self/status";
    let data = bench.path("data");
    layer(&data, &[("file", "data\n")]);
    let volume = format!("{}:/data:ro", data.display());
    for (flags, uid, capabilities) in [
        (&[][..], "0", "00000000a80425fb"),
        (&["-u", "65534"], "65534", "0000000000000000"),
    ] {
        let all = [
            flags,
            &[
                "--image",
                root.to_str().unwrap(),
                "-v",
                &volume,
                "-m",
                "64m",
                "--cpus",
                "0.5",
                "--pids-limit",
                "20",
                "--init",
                "--read-only",
                "--tmpfs",
                "/tmp",
                "-t",
            ],
        ]
        .concat();
        let outcome = bench.bare(&all, &["sh", "-c", line]);
        assert_eq!(outcome.code, 0, "{} {}", outcome.output, outcome.errors);
        let lines: Vec<_> = outcome.output.lines().map(str::trim_end).collect();
        assert_eq!(
            (lines[0], lines[1], lines[3], lines[4]),
            (uid, "container", "1", "data"),
            "{}",
            outcome.output
        );
        assert!(
            lines[5].ends_with(capabilities) || crate::vm::inside(),
            "{}",
            lines[5]
        );
    }
    bench.is_clean();
}

/// Changes of several layers and of a container, with removals, are one root in the archive.
#[test]
fn a_commit_has_what_the_container_saw() {
    let bench = Bench::new();
    let (low, high) = (bench.path("low"), bench.path("high"));
    layer(
        &low,
        &[
            ("srv/low", "low"),
            ("srv/both", "low"),
            ("srv/gone/x", "low"),
            ("srv/replaced/x", "low"),
        ],
    );
    layer(&high, &[("srv/both", "high")]);
    let archive = bench.path("merged.tar");
    let flags = [
        "--image",
        high.to_str().unwrap(),
        "--image",
        low.to_str().unwrap(),
        "--commit",
        archive.to_str().unwrap(),
    ];
    let outcome = bench.run(&flags, "rm -r /srv/gone /srv/replaced; mkdir /srv/replaced; echo new >/srv/replaced/y; chmod 700 /srv/low");
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let outcome = bench.bare(
        &["--image", archive.to_str().unwrap()],
        &[
            "sh",
            "-c",
            "cd /srv; cat both replaced/y; ls . replaced; stat -c %a low",
        ],
    );
    assert_eq!(
        outcome.output, "highnew\n.:\nboth\nlow\nreplaced\n\nreplaced:\ny\n700\n",
        "{}",
        outcome.errors
    );
    // A command that never ran changes nothing, and saves nothing.
    let never = bench.path("never.tar");
    assert_eq!(
        bench
            .run(
                &[
                    "--commit",
                    never.to_str().unwrap(),
                    "--ulimit",
                    "nofile=1:99999999"
                ],
                "true"
            )
            .code,
        125
    );
    assert!(!never.exists());
    let nowhere = bench.run(&["--commit", "/no/such/folder/x.tar"], "true");
    assert_eq!(nowhere.code, 125);
    assert!(
        nowhere.errors.contains("/no/such/folder"),
        "{}",
        nowhere.errors
    );
    bench.is_clean();
}

/// A disk that is full: an error, and no half an archive. The container's own exit code isn't lost on the way.
#[test]
fn an_archive_that_does_not_fit() {
    let bench = Bench::new();
    let small = bench.path("small");
    fs::create_dir(&small).unwrap();
    let line = "mount -t tmpfs -o size=1m s \"$1\" && \"$2\" --state-dir \"$3\" --image \"$4\" --commit \"$1/x.$5\" true; echo code $?; ls -A \"$1\"";
    for ending in ["tar", "tar.gz", "tar.zst"] {
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", line, "sh"])
            .args([&small, step(STEP), &bench.path("state"), &bench.root.path()])
            .arg(ending)
            .output()
            .unwrap();
        let (said, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(said, "code 125\n", "{ending}: {errors}");
        assert!(
            errors.contains("--commit") && errors.contains("No space left"),
            "{ending}: {errors}"
        );
        assert!(!errors.contains("panicked"), "{errors}");
    }
    bench.is_clean();
}

/// An archive of our own making, entry by entry.
fn archive(path: &Path, entries: &[(&str, EntryType, &str)]) {
    let mut builder = Builder::new(fs::File::create(path).unwrap());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(if *kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_entry_type(*kind);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let is_link = *kind == EntryType::Symlink || *kind == EntryType::Link;
        let data = if is_link { "" } else { content };
        header.set_size(data.len() as u64);
        // Past the library, which has scruples about such names.
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        if is_link {
            raw.linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.finish().unwrap();
}

/// Names that lead out, links that are written through: refused or kept inside, and nothing half-made stays.
#[test]
fn hostile_archives() {
    use EntryType::{Directory, Link, Regular, Symlink};
    let bench = Bench::new();
    let canary = bench.path("canary");
    fs::write(&canary, "whole").unwrap();
    let outside = bench.folder.path().to_str().unwrap().to_owned();
    let victim = canary.to_str().unwrap().to_owned();
    let file = bench.path("hostile.tar");
    let attempt = || bench.run(&["--image", file.to_str().unwrap()], "true");
    let refused = |what: &str, words: &str| {
        let outcome = attempt();
        assert_eq!(outcome.code, 125, "{what}");
        assert!(outcome.errors.contains(words), "{what}: {}", outcome.errors);
        assert!(
            outcome.errors.starts_with("step08-overlay: --image "),
            "{what}: {}",
            outcome.errors
        );
        let images = fs::read_dir(bench.path("state/images")).unwrap().flatten();
        let left: Vec<_> = images
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().starts_with("sha256"))
            .collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        bench.is_clean();
    };
    archive(&file, &[("../../canary", Regular, "spoilt")]);
    refused("a name with ..", "..");
    archive(
        &file,
        &[
            ("d", Directory, ""),
            ("d/../../../canary", Regular, "spoilt"),
        ],
    );
    refused("a name with .. further on", "..");
    archive(&file, &[("x", Link, "../../../../canary")]);
    refused("a hard link out", "..");
    archive(&file, &[("x", Link, &victim)]);
    refused("a hard link to an absolute path", "hard link");
    // By a link: what is written through it stays inside the image.
    let inside = format!("{}/canary", outside.trim_start_matches('/'));
    archive(
        &file,
        &[
            ("way", Symlink, &outside),
            ("way/canary", Regular, "spoilt"),
        ],
    );
    refused("a link to a directory that the image hasn't", "way");
    archive(
        &file,
        &[
            (&outside[1..], Directory, ""),
            ("way", Symlink, &outside),
            ("way/canary", Regular, "inside"),
            (&victim, Regular, "absolute"),
        ],
    );
    let outcome = attempt();
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let images: Vec<_> = fs::read_dir(bench.path("state/images"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let image = images
        .iter()
        .find(|path| path.to_string_lossy().contains("sha256"))
        .unwrap();
    assert_eq!(fs::read_to_string(image.join(&inside)).unwrap(), "absolute");
    fs::remove_dir_all(bench.path("state/images")).unwrap();
    // A file is put in the place of a link, never through it.
    archive(
        &file,
        &[("canary", Symlink, &victim), ("canary", Regular, "mine")],
    );
    assert_eq!(attempt().code, 0);
    fs::remove_dir_all(bench.path("state/images")).unwrap();
    archive(&file, &[("d", Symlink, "/etc"), ("d", Directory, "")]);
    refused("a directory in the place of a link", "something else");
    archive(&file, &[("d", Directory, ""), ("d", Regular, "x")]);
    refused(
        "a file in the place of a directory",
        "directory of that name",
    );
    archive(&file, &[("a", Symlink, "a"), ("a/b", Regular, "x")]);
    refused("a link in a circle", "ELOOP");
    assert_eq!(fs::read_to_string(&canary).unwrap(), "whole");
    assert!(bench.folder.path().join("hostile.tar").exists());
}

/// Nobody but root gets near a setuid program or a device that an archive brought.
#[test]
fn images_are_roots_own() {
    if crate::vm::inside() {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("odd");
    odd_root(&root);
    let file = bench.path("odd.tar");
    run(Command::new("tar")
        .args(["--numeric-owner", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&file)
        .arg("."));
    assert_eq!(
        bench
            .bare(&["--image", file.to_str().unwrap()], &["true"])
            .code,
        0
    );
    for name in ["state/images", "state/containers"] {
        assert_eq!(
            fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777,
            0o700,
            "{name}"
        );
    }
}

/// Cut off, damaged, something else, too large: said, and gone.
#[test]
fn damaged_archives() {
    let bench = Bench::new();
    let root = bench.root.path();
    let whole = bench.path("whole.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&whole)
        .arg("."));
    let bytes = fs::read(&whole).unwrap();
    let file = bench.path("damaged");
    let gzipped = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let attempt = |flags: &[&str], text: &[u8]| {
        fs::write(&file, text).unwrap();
        bench.bare(
            &[flags, &["--image", file.to_str().unwrap()]].concat(),
            &["true"],
        )
    };
    let mut flipped = gzipped(&bytes);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let zipped = gzipped(&bytes);
    let mut header = bytes.clone();
    header[512 * 3 + 5] ^= 0x7f;
    // An entry further on begins at a block: there is none of it, and all before it is whole.
    let boundary = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let boundary = boundary.next_multiple_of(512);
    for (what, text, words) in [
        (
            "cut off in the middle",
            &bytes[..bytes.len() / 2],
            "cut off",
        ),
        ("cut off between two entries", &bytes[..boundary], "cut off"),
        ("cut off, compressed", &zipped[..zipped.len() - 100], ""),
        ("without its checksum", &zipped[..zipped.len() - 8], ""),
        ("damaged, compressed", &flipped[..], ""),
        ("empty", &[], "it is empty"),
        ("zeros", &[0; 10240], "nothing is in it"),
        (
            "text",
            b"hello, this is no archive at all\n",
            "it is no tar archive",
        ),
        ("zip", b"PK\x03\x04 and so on", "zip"),
        ("xz", b"\xfd7zXZ\0 and so on", "unxz"),
        ("bzip2", b"BZh9 and so on", "bunzip2"),
        ("zstd", b"\x28\xb5\x2f\xfd and so on", ""),
    ] {
        let outcome = attempt(&[], text);
        assert_eq!(outcome.code, 125, "{what}: {}", outcome.errors);
        assert!(
            outcome.errors.contains(words) && outcome.errors.contains("damaged"),
            "{what}: {}",
            outcome.errors
        );
        assert!(
            !outcome.errors.contains("panicked"),
            "{what}: {}",
            outcome.errors
        );
        bench.is_clean();
    }
    let outcome = attempt(&["--image-limit", "1m"], &zipped);
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("--image-limit"),
        "{}",
        outcome.errors
    );
    assert_eq!(attempt(&[], &zipped).code, 0);
    bench.is_clean();
}

/// Ten gigabytes of zeros in ten megabytes, and a file that says it is larger than any disk.
#[test]
fn a_bomb_is_bounded() {
    let bench = Bench::new();
    let file = bench.path("bomb.tar");
    let mut header = Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(1 << 62);
    header.set_cksum();
    fs::write(&file, [header.as_bytes(), &[0; 4096][..]].concat()).unwrap();
    let attempt = || {
        bench.bare(
            &["--image-limit", "64m", "--image", file.to_str().unwrap()],
            &["true"],
        )
    };
    let outcome = attempt();
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("--image-limit"),
        "{}",
        outcome.errors
    );
    // Said to be small, file after file.
    let mut encoder = GzEncoder::new(fs::File::create(&file).unwrap(), Compression::fast());
    header.set_size(1 << 20);
    header.set_cksum();
    for number in 0..100 {
        header.set_path(format!("bomb{number}")).unwrap();
        header.set_cksum();
        encoder.write_all(header.as_bytes()).unwrap();
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap();
    let outcome = attempt();
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("--image-limit"),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}

/// Many small entries: a hundred thousand here; the count is bounded, and nothing is quadratic.
#[test]
fn many_small_entries() {
    let bench = Bench::new();
    let file = bench.path("many.tar");
    let mut builder = Builder::new(std::io::BufWriter::new(fs::File::create(&file).unwrap()));
    let count = if crate::vm::inside() { 5_000 } else { 100_000 };
    for number in 0..count {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(1);
        builder
            .append_data(
                &mut header,
                format!("srv/{}/{number}", number % 100),
                &b"x"[..],
            )
            .unwrap();
    }
    builder.into_inner().unwrap().into_inner().unwrap();
    let outcome = bench.run(&["--image", file.to_str().unwrap()], "ls /srv/7 | wc -l");
    assert_eq!(
        outcome.output,
        format!("{}\n", count / 100),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}

/// The same archive under two names is one image; a changed one is another; eight at once unpack it once.
#[test]
fn an_archive_is_unpacked_once() {
    let bench = Bench::new();
    let file = bench.path("image.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(bench.root.path())
        .arg("-cf")
        .arg(&file)
        .arg("."));
    let image = ["--image", file.to_str().unwrap()];
    let programs: Vec<_> = (0..8)
        .map(|_| {
            Command::new(step(STEP))
                .args(bench.arguments(&image, &["true"]))
                .spawn()
                .unwrap()
        })
        .collect();
    for mut program in programs {
        assert!(program.wait().unwrap().success());
    }
    let images = || -> Vec<_> {
        let entries = fs::read_dir(bench.path("state/images")).unwrap().flatten();
        let found =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("sha256-"));
        found
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().ino()))
            .collect()
    };
    let first = images();
    assert_eq!(first.len(), 1);
    let copy = bench.path("copy.tar");
    fs::copy(&file, &copy).unwrap();
    assert_eq!(
        bench
            .bare(&["--image", copy.to_str().unwrap()], &["true"])
            .code,
        0
    );
    assert_eq!(images(), first);
    // Each container has its own changes above it.
    assert_eq!(bench.bare(&image, &["sh", "-c", "rm /bin/cat"]).code, 0);
    assert_eq!(bench.bare(&image, &["cat", "/dev/null"]).code, 0);
    run(Command::new("tar")
        .arg("-C")
        .arg(bench.root.path())
        .arg("-cf")
        .arg(&file)
        .args(["--exclude=./tmp", "."]));
    assert_eq!(bench.bare(&image, &["true"]).code, 0);
    assert_eq!(images().len(), 2);
    bench.is_clean();
}

/// Frames and checksums of zstd, as its own tool makes them.
#[test]
fn zstd_is_read_as_a_whole() {
    if !have("zstd", "zstd") {
        return;
    }
    let bench = Bench::new();
    let shell = "set -e; cd \"$0\"; tar -C \"$1\" -cf whole.tar .; split -n 2 whole.tar part; zstd -q --check partaa partab
        printf '\\120\\052\\115\\030\\004\\000\\000\\000skip' >skip; cat partaa.zst skip partab.zst >frames.tar.zst
        zstd -q --check whole.tar -o damaged.tar.zst; size=$(stat -c %s damaged.tar.zst)
        printf '\\377\\377\\377' | dd of=damaged.tar.zst bs=1 seek=$((size - 4)) conv=notrunc 2>/dev/null";
    run(Command::new("sh")
        .args(["-c", shell])
        .arg(bench.folder.path())
        .arg(bench.root.path()));
    let outcome = bench.bare(
        &["--image", bench.path("frames.tar.zst").to_str().unwrap()],
        &["true"],
    );
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let outcome = bench.bare(
        &["--image", bench.path("damaged.tar.zst").to_str().unwrap()],
        &["true"],
    );
    assert_eq!(outcome.code, 125);
    assert!(outcome.errors.contains("checksum"), "{}", outcome.errors);
    bench.is_clean();
}

/// Headers that would fill the memory before a byte is unpacked.
#[test]
fn names_are_bounded() {
    let bench = Bench::new();
    let file = bench.path("names.tgz");
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let mut encoder = GzEncoder::new(fs::File::create(&file).unwrap(), Compression::fast());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(300 << 20);
        header.set_cksum();
        encoder.write_all(header.as_bytes()).unwrap();
        for _ in 0..30 {
            encoder.write_all(&vec![b'x'; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap();
        let outcome = bench.bare(&["--image", file.to_str().unwrap()], &["true"]);
        assert_eq!(outcome.code, 125);
        assert!(
            outcome.errors.contains("more than 1 MiB") && outcome.errors.len() < 1000,
            "{} bytes",
            outcome.errors.len()
        );
        bench.is_clean();
    }
}

/// A command that memory ran out for has changed something, too.
#[test]
fn a_commit_survives_the_lack_of_memory() {
    let bench = Bench::new();
    let archive = bench.path("oom.tar");
    let line = "echo saved >/saved; tail /dev/zero; exit 0";
    let outcome = bench.run(
        &[
            "-m",
            "16m",
            "--memory-swap",
            "16m",
            "--commit",
            archive.to_str().unwrap(),
        ],
        line,
    );
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert!(
        outcome.errors.contains("memory ran out"),
        "{}",
        outcome.errors
    );
    let outcome = bench.bare(&["--image", archive.to_str().unwrap()], &["cat", "/saved"]);
    assert_eq!(outcome.output, "saved\n", "{}", outcome.errors);
    bench.is_clean();
}

/// The container's root is like its image's, whatever the caller's umask; its state may be named from where one
/// stands, or by a link; and nobody needs to be root to ask why.
#[test]
fn callers_of_all_kinds() {
    let bench = Bench::new();
    let image = bench.path("image");
    bench.root.copy(&image);
    let shell = "chmod 1777 \"$2\"; chown 12:34 \"$2\"; cd \"$3\"; umask 077
        \"$1\" --state-dir state --image image -u 4711 sh -c 'stat -c \"%a %u:%g\" /; cat /etc/hosts >/dev/null && echo hosts'
        ln -s state link; \"$1\" --state-dir link --image image --commit out.tar sh -c 'echo x >/x'; echo $?; ls state/containers
        \"$1\" --state-dir state --image out.tar -u 4711 stat -c '%a %u:%g' / /x";
    let output = Command::new("sh")
        .args(["-c", shell, "sh"])
        .args([step(STEP), &image, bench.folder.path()])
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(
        said, "1777 12:34\nhosts\n0\n1777 12:34\n644 0:0\n",
        "{errors}"
    );
    bench.is_clean();
    let copy = crate::stage::copy_of(STEP, bench.folder.path());
    let output = crate::stage::as_nobody(&copy)
        .args(["--why", "--state-dir"])
        .arg(bench.path("state"))
        .arg("--image")
        .arg(&image)
        .arg("ls")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// One container at a time changes a directory that is kept, and what a crash has left beside it goes.
#[test]
fn a_kept_directory_is_one_containers() {
    let bench = Bench::new();
    let (root, kept) = (bench.root.path(), bench.path("kept"));
    let flags = [
        "-i",
        "--image",
        root.to_str().unwrap(),
        "--keep",
        kept.to_str().unwrap(),
    ];
    let started = || {
        Container::start(
            step(STEP),
            &bench.arguments(&flags, &["sh", "-c", "echo ready; read end"]),
        )
        .unwrap()
    };
    let first = started();
    let outcome = bench.bare(&flags, &["true"]);
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("another container is using it"),
        "{}",
        outcome.errors
    );
    let process = first.first_process();
    let namespace = process.namespace("pid").unwrap();
    first.signal(Signal::SIGKILL).unwrap();
    drop(first);
    eventually(|| match process.namespace("pid") {
        Ok(own) if own == namespace => None,
        _ => Some(()),
    });
    assert_eq!(bench.bare(&flags, &["true"]).code, 0);
    let names: Vec<_> = fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| !name.contains(".work-")),
        "{names:?}"
    );
    bench.is_clean();
}

/// Volumes and tmpfs together, each below what it is below; and a link of the root's that leads to /proc.
#[test]
fn mounts_go_from_the_top_down() {
    let bench = Bench::new();
    layer(&bench.path("v"), &[("file", "v\n")]);
    let volume = format!("{}:/data/sub", bench.path("v").display());
    let outcome = bench.run(
        &[
            "-v", &volume, "--tmpfs", "/a/b", "--tmpfs", "/data", "--tmpfs", "/a",
        ],
        "cat /data/sub/file; cut -d ' ' -f 5 /proc/self/mountinfo | grep -E '^/(a|data)' | sort",
    );
    assert_eq!(
        outcome.output, "v\n/a\n/a/b\n/data\n/data/sub\n",
        "{}",
        outcome.errors
    );
    let image = bench.path("image");
    layer(&image, &[("x", "")]);
    symlink("/proc", image.join("way")).unwrap();
    let through = format!("{}:/way", bench.path("v").display());
    for flag in [["-v", through.as_str()], ["--tmpfs", "/way"]] {
        let outcome = bench.run(
            &[&flag[..], &["--image", image.to_str().unwrap()]].concat(),
            "true",
        );
        assert_eq!(outcome.code, 125);
        assert!(
            outcome.errors.contains("leads to /proc"),
            "{}",
            outcome.errors
        );
    }
    bench.is_clean();
}

/// A state folder that can't be written is said to be so, at once.
#[test]
fn a_state_folder_that_is_full_or_read_only() {
    let bench = Bench::new();
    let place = bench.path("state");
    fs::create_dir(&place).unwrap();
    let line = "mount -t tmpfs -o nr_inodes=3 s \"$1\" && mkdir \"$1/containers\" \"$1/images\"; timeout 20 \"$2\" --state-dir \"$1\" --image \"$3\" true; echo $?
        mount -o remount,ro \"$1\"; timeout 20 \"$2\" --state-dir \"$1\" --image \"$3\" true; echo $?";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", line, "sh"])
        .args([&place, step(STEP), &bench.root.path()])
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(said, "125\n125\n", "{errors}");
    assert!(
        errors.contains("No space left") && errors.contains("Read-only"),
        "{errors}"
    );
}

#[test]
fn what_cannot_be_is_said_in_a_line() {
    let bench = Bench::new();
    for (arguments, words) in [
        (
            &["-v", "/no/such/place:/x"][..],
            &["-v /no/such/place:/x", "mkdir -p"][..],
        ),
        (&["-v", "/etc"], &["--volume", "SRC:DST"]),
        (&["-v", "/etc:x"], &["--volume", "absolute"]),
        (&["-v", "/etc:/"], &["--volume", "the root itself"]),
        (&["-v", "/etc:/x:rx"], &["--volume", "rx", "rprivate"]),
        (&["-v", "/etc:/proc/sys"], &["--volume", "/proc"]),
        (&["--tmpfs", "x"], &["--tmpfs", "absolute"]),
        (
            &["--tmpfs", "/x:colour=red"],
            &["--tmpfs", "colour=red", "size"],
        ),
        (&["--tmpfs", "/x:size=lots"], &["--tmpfs /x", "EINVAL"]),
        (&["--image", "/no/such/image"], &["--image /no/such/image"]),
        (&["--image", "/dev/null"], &["--image /dev/null", "neither"]),
        (&["--image", "/"], &["--image /", "own root"]),
        (&["--commit", "x.zip"], &["--commit", ".tar.zst"]),
        (
            &["--image", "/etc", "--rootfs", "/etc"],
            &["--image", "--rootfs"],
        ),
    ] {
        let outcome = bench.bare(arguments, &["true"]);
        assert_eq!(outcome.code, 125, "{arguments:?}: {}", outcome.errors);
        for word in words {
            assert!(
                outcome.errors.contains(word),
                "{arguments:?}: {}",
                outcome.errors
            );
        }
        bench.is_clean();
    }
}

/// `--why` looks through layers as it does into a directory, and leaves nothing.
#[test]
fn why_sees_all_layers() {
    let bench = Bench::new();
    let image = bench.path("script");
    layer(&image, &[("bin/odd", "#!/no/such/interpreter\n")]);
    fs::set_permissions(image.join("bin/odd"), fs::Permissions::from_mode(0o755)).unwrap();
    let root = bench.root.path();
    let flags = [
        "--why",
        "--image",
        image.to_str().unwrap(),
        "--image",
        root.to_str().unwrap(),
    ];
    let outcome = bench.bare(&flags, &["/bin/odd"]);
    assert_eq!(outcome.code, 127);
    assert!(
        outcome.output.contains("install /no/such/interpreter"),
        "{}",
        outcome.output
    );
    assert_eq!(bench.bare(&flags, &["ls"]).code, 0);
    let outcome = bench.bare(&flags[1..], &["/bin/odd"]);
    assert!(
        outcome.errors.contains("install /no/such/interpreter"),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}
