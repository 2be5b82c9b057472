//! Step 8: a container's root as an archive, and what comes back of it.

use crate::stage::bench::{Bench, STEP, layer};
use crate::stage::{Printed, Root, debian, held, run, step};
use assert_cmd::assert::OutputAssertExt;
use progress::host::registry::digest;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

/// A root as a list: each path with all that a file is, but for times of access and change, and for what is changed by
/// mounting in it.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = everything(root);
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

/// A root as a list: each path with all that a file is, but for times of access and change.
pub fn everything(root: &Path) -> Vec<String> {
    fn describe(root: &Path, path: &Path, lines: &mut Vec<String>) {
        let found = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().display();
        let kind = found.file_type();
        let content = match kind {
            _ if kind.is_symlink() => fs::read_link(path).unwrap().display().to_string(),
            _ if kind.is_file() => {
                let sum = digest(&fs::read(path).unwrap());
                format!("{} {sum}", found.len())
            }
            _ => String::new(),
        };
        let attributes = step08_overlay::image::xattrs::attributes(&held(path)).unwrap();
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
    lines
}

/// A root that has one of everything.
pub fn odd_root(root: &Path) {
    Root::shared().copy(root);
    let at = |name: &str| root.join(name);
    fs::create_dir(at("odd")).unwrap();
    let shell = "cd \"$0/odd\"; mkfifo fifo; mknod char c 4 5; mknod block b 6 7; echo x >file; ln file hard; ln -s /nowhere dangling; ln -s file soft; ln soft hardsoft 2>/dev/null
        chown 1234:5678 file; chown -h 77:88 soft; chmod 4751 file; mkdir -m 1777 sticky; mkdir -m 0 closed; echo hidden >closed/file
        truncate -s 5000000 sparse; printf data | dd of=sparse bs=1 seek=3000000 conv=notrunc 2>/dev/null
        touch -d '1969-07-20 20:17:40.123456789 UTC' old; touch -d '2100-01-01 00:00:00.5 UTC' new
        touch \"$(printf 'new\\nline')\" \"$(printf 'not\\377utf8')\" 'with space' \"$(printf '%0200d' 1)\"
        mkdir -p \"$(printf '%0100d' 2)/$(printf '%0100d' 3)\"; ln -s \"$(printf '%0200d' 4)\" longlink; : >empty
        ln -s ./a//b/. roundabout; ln -s / top
        i=0; while [ $i -lt 60 ]; do printf x | dd of=holes bs=1 seek=$((i * 65536)) conv=notrunc 2>/dev/null; i=$((i+1)); done
        touch -d '1960-01-01 00:00:00 UTC' holes
        chown 4000000000:4000000000 new";
    run(Command::new("sh").args(["-c", shell]).arg(root));
    let set = |name: &str, key: &str, value: &[u8]| {
        let file = held(&at("odd").join(name));
        step08_overlay::image::xattrs::set_attribute(&file, key.as_ref(), value).unwrap();
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
    // What PAX writes otherwise.
    set("closed", "user.a=b%3D", b"x=y");
    let name = OsString::from_vec(vec![b'o', 0xff, b'd']);
    fs::write(at("odd").join(name), "").unwrap();
}

/// Out and in again, in every kind of archive: the same, file by file; and a Debian as well, where debootstrap
/// is there.
#[test]
fn a_root_survives_its_archive() {
    // A tmpfs has no attributes of users before Linux 6.6.
    if crate::stage::inside() {
        return;
    }
    let bench = Bench::new();
    let mut roots = vec![bench.path("odd")];
    odd_root(&roots[0]);
    if !crate::stage::nested() {
        roots.extend(debian());
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
            Command::new(step(STEP))
                .args(bench.arguments(&flags, &["sh", "-c", "exit 3"]))
                .assert()
                .code(3);
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
        let ran = Command::new("unshare")
            .args(["-m", "sh", "-c", line, "sh"])
            .args([&small, step(STEP), &bench.path("state"), &bench.root.path()])
            .arg(ending)
            .assert()
            .stdout("code 125\n");
        ran.complains(&format!("x.{ending}: "))
            .complains("No space left");
        assert!(!ran.errors().contains("panicked"), "{ran}");
    }
    bench.is_clean();
}

/// One file that is written to meanwhile, from outside, spoils none of the others.
#[test]
fn a_file_that_grows_meanwhile() {
    let bench = Bench::new();
    let (image, archive) = (bench.path("image"), bench.path("grown.tar"));
    Root::shared().copy(&image);
    let grows = image.join("grows");
    let is_over = AtomicBool::new(false);
    let refused = scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                fs::write(&grows, vec![1; 16 << 20]).unwrap();
                let mut file = fs::File::options().append(true).open(&grows).unwrap();
                for _ in 0..10_000 {
                    file.write_all(&[2; 100]).unwrap();
                }
            }
        });
        let flags = ["--image", image.to_str().unwrap(), "--commit"];
        let saved = |_| {
            let flags = [&flags[..], &[archive.to_str().unwrap()]].concat();
            let outcome = bench.bare(&flags, &["true"]);
            if outcome.code == 0 {
                run(Command::new("tar").arg("-tf").arg(&archive));
                fs::remove_file(&archive).unwrap();
            } else {
                let why = "grows of the root: somebody wrote to it";
                assert!(outcome.errors.contains(why), "{}", outcome.errors);
                assert!(!archive.exists());
            }
            outcome.code
        };
        let refused = catch_unwind(AssertUnwindSafe(|| {
            (0..50).map(saved).any(|code| code == 125)
        }));
        is_over.store(true, Ordering::Relaxed);
        refused
    });
    assert!(refused.unwrap(), "nobody wrote to it at all");
    bench.is_clean();
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
