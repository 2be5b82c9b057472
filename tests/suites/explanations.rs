//! Why a command doesn't start: one root for each way to break one, and roots made to do harm.

use crate::stage::{Root, folder, our_lines, redact, run, script, step04, transcript};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use progress::container::eventually;
use progress::host::{Propagation, exit_code, on_pretend_host};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// A copy of the shared root, to be broken.
struct Broken {
    folder: TempDir,
}

impl Broken {
    fn new() -> Broken {
        let folder = folder();
        Root::shared().copy(&folder.path().join("root"));
        Broken { folder }
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    /// Writes a file of the root.
    fn write(&self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn step(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(step04());
        let program = program.arg("--rootfs").arg(self.root()).args(arguments);
        program
            .env_remove("RUST_BACKTRACE")
            .env_remove("FOREIGN")
            .output()
            .unwrap()
    }

    /// What running `command` says, and that `--why` foresees the same.
    #[track_caller]
    fn told(&self, command: &[&str]) -> String {
        let ran = self.step(command);
        let foreseen = self.step(&[&["--why"], command].concat());
        assert_eq!(
            exit_code(ran.status),
            exit_code(foreseen.status),
            "{ran:?} {foreseen:?}"
        );
        let said = String::from_utf8_lossy(&ran.stderr);
        let evidence = |text: &str| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with("  ") || line.starts_with("help:"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let why = String::from_utf8_lossy(&foreseen.stdout);
        assert_eq!(evidence(&said), evidence(&why));
        let text = transcript(&command.join(" "), &ran);
        our_lines(&redact(&text, &[(&self.root(), "ROOT")]))
    }
}

/// Every kind of break.sh, but the one that mounts.
#[test]
fn each_kind_of_break_is_explained() {
    let mut told = String::new();
    for kind in [
        "missing-loader",
        "dangling-loader-link",
        "missing-library",
        "bad-shebang",
        "crlf-shebang",
        "no-shebang",
        "wrong-machine",
        "not-executable",
        "symlink-out",
    ] {
        let broken = Broken::new();
        let command = run(script("break.sh").arg(kind).arg(broken.root()));
        let mut text = broken.told(&[command.trim()]);
        // Which library that is depends on the machine's own ls.
        let needed = text.lines().find_map(|line| line.split_once(" needs "));
        if let Some((_, library)) = needed {
            text = text.replace(&library.to_owned(), "LIBRARY");
        }
        told += &format!("# {kind}\n{text}");
    }
    insta::assert_snapshot!(told);
}

/// The mount is made on a pretend host, and gone with it.
#[test]
fn a_noexec_mount_is_explained() {
    let broken = Broken::new();
    let shell = "command=$(\"$1\" noexec-mount \"$2\" 2>/dev/null) || exit 98
        \"$3\" --rootfs \"$2\" \"$command\"; code=$?
        \"$3\" --why --rootfs \"$2\" \"$command\"; [ $? = $code ] || exit 97
        umount \"$2/mnt/noexec\"; exit $code";
    let script = progress::programs::workspace().join("rootfs-scripts/break.sh");
    let root = broken.root();
    let command = [
        "sh",
        "-c",
        shell,
        "sh",
        script.to_str().unwrap(),
        root.to_str().unwrap(),
    ];
    let output = on_pretend_host(crate::stage::progress(), Propagation::Private, &command)
        .arg(step04())
        .output()
        .unwrap();
    insta::assert_snapshot!(redact(
        &transcript("/mnt/noexec/tool", &output),
        &[(&root, "ROOT")]
    ));
}

#[test]
fn what_else_goes_wrong() {
    let broken = Broken::new();
    broken.write("usr/bin/empty", "", 0o755);
    broken.write("usr/bin/damaged", "\x7fELF and no more", 0o755);
    broken.write("usr/bin/windows", b"MZ\x90\0", 0o755);
    broken.write("usr/bin/marked", "\u{feff}#!/bin/sh\n", 0o755);
    broken.write("usr/bin/nobody", "#!\n", 0o755);
    broken.write(
        "usr/bin/endless",
        format!("#!/{}\n", "x".repeat(300)),
        0o755,
    );
    broken.write("usr/bin/by-env", "#!/usr/bin/env pyhton3\n", 0o755);
    broken.write(
        "usr/bin/by-env-crlf",
        "#!/usr/bin/env sh\r\necho hello\r\n",
        0o755,
    );
    broken.write("usr/bin/itself", "#!/usr/bin/itself\n", 0o755);
    broken.write("usr/bin/plain-interpreter", "#!/etc/passwd\n", 0o755);
    symlink("circle", broken.root().join("usr/bin/circle")).unwrap();
    run(Command::new("mkfifo").arg(broken.root().join("usr/bin/fifo")));
    fs::set_permissions(
        broken.root().join("usr/bin/fifo"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let mut told = String::new();
    for command in [
        "sl",
        "ls -la",
        "/usr/bin/cta",
        "/etc",
        "/bin/ls/",
        "/no/such/program",
        "empty",
        "damaged",
        "windows",
        "marked",
        "nobody",
        "endless",
        "by-env",
        "by-env-crlf",
        "itself",
        "plain-interpreter",
        "circle",
        "fifo",
    ] {
        told += &broken.told(&[command]);
    }
    insta::assert_snapshot!(told);
}

/// A library may be there and yet be no use: a link that leads nowhere, a file for another machine.
#[test]
fn a_library_that_is_no_use() {
    let mut told = String::new();
    for how in ["dangling", "foreign", "text"] {
        let broken = Broken::new();
        let libraries = run(Command::new("find")
            .arg(broken.root())
            .args(["-name", "libc.so.6"]));
        let libc = Path::new(libraries.trim());
        match how {
            "dangling" => {
                fs::remove_file(libc).unwrap();
                symlink("libc-2.31.so", libc).unwrap();
            }
            "foreign" => {
                let mut bytes = fs::read(libc).unwrap();
                bytes[18] = 2;
                fs::write(libc, bytes).unwrap();
            }
            _ => fs::write(libc, "GROUP ( libc.so.6 )\n").unwrap(),
        }
        told += &format!("# {how}\n");
        let why = broken.step(&["--why", "/bin/true"]);
        told += &redact(
            &transcript("--why /bin/true", &why),
            &[(&broken.root(), "ROOT")],
        );
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_whole_root_would_start() {
    let broken = Broken::new();
    let why = broken.step(&["--why", "cat"]);
    assert_eq!(exit_code(why.status), 0);
    insta::assert_snapshot!(redact(&transcript("--why cat", &why), &[]));
    // Neither `..` nor a link with `..` in it leads astray; a relative path begins at the workdir.
    symlink(
        "../../usr/bin/../bin/cat",
        broken.root().join("usr/bin/winding"),
    )
    .unwrap();
    for command in [
        &["/usr/../usr/bin/./cat"][..],
        &["winding"],
        &["-w", "/usr/bin", "./cat"],
    ] {
        let why = broken.step(&[&["--why"], command].concat());
        assert!(why.status.success(), "{why:?}");
        assert!(
            broken
                .step(&[command, &["/etc/passwd"]].concat())
                .status
                .success(),
            "{command:?}"
        );
    }
    // A shell that ends with 127 for a reason of its own gets no explanation.
    let ran = broken.step(&["sh", "-c", "exit 127"]);
    assert_eq!(
        (exit_code(ran.status), ran.stderr.len()),
        (127, 0),
        "{ran:?}"
    );
}

/// `--why` for everyone: no root, and nothing run.
#[test]
fn why_needs_no_privilege() {
    let broken = Broken::new();
    broken.write("usr/bin/trap", "#!/bin/sh\ntouch /tmp/ran\n", 0o755);
    let program = broken.folder.path().join("step04");
    fs::copy(step04(), &program).unwrap();
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ])
        .arg(&program)
        .args(["--why", "--rootfs"])
        .arg(broken.root())
        .arg("trap")
        .output()
        .unwrap();
    assert_eq!(exit_code(output.status), 0, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("trap would start"));
    assert!(!broken.root().join("tmp/ran").exists());
}

/// Nothing that a root says reaches the terminal as a command to it.
#[test]
fn what_a_root_says_is_shown_and_not_obeyed() {
    let broken = Broken::new();
    broken.write("usr/bin/loud", "#!/bin/\x1b]0;owned\x07\x1b[2Jsh\n", 0o755);
    symlink("/\x1b[31mred", broken.root().join("usr/bin/red")).unwrap();
    for command in ["loud", "red"] {
        let told = broken.told(&[command]);
        assert!(!told.contains('\x1b') && told.contains("\\u{1b}"), "{told}");
    }
}

/// Links that lead out of the root are followed inside it, however they go about it.
#[test]
fn links_never_lead_out() {
    let broken = Broken::new();
    let outside = broken.folder.path().join("outside");
    fs::write(&outside, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755)).unwrap();
    let root = broken.root();
    symlink(&outside, root.join("usr/bin/absolute")).unwrap();
    symlink("../../../outside", root.join("usr/bin/relative")).unwrap();
    symlink("../../../../../../../../..", root.join("up")).unwrap();
    for command in [
        "absolute",
        "relative",
        &format!("/up{}", outside.display()),
        "/../outside",
    ] {
        let why = broken.step(&["--why", command]);
        assert_eq!(exit_code(why.status), 127, "{command}: {why:?}");
        // And the kernel agrees.
        assert_eq!(exit_code(broken.step(&[command]).status), 127, "{command}");
    }
}

/// A directory that turns into a link and back while its path is followed: the kernel keeps us in.
#[test]
fn a_root_that_changes_under_our_feet_does_not_lead_out() {
    let broken = Broken::new();
    let outside = broken.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    let (door, trap) = (broken.root().join("door"), broken.root().join("trap"));
    fs::create_dir(&door).unwrap();
    symlink(&outside, &trap).unwrap();
    let root = step04_pivot_root::root::Root::at(&broken.root()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flags = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, &door, AT_FDCWD, &trap, flags).unwrap();
            }
        });
        let path = Path::new("/door/secret");
        let escaped = (0..20_000).any(|_| root.follow(Path::new("/"), path).end.is_ok());
        done.store(true, Ordering::Relaxed);
        assert!(!escaped, "a path led out of the root");
    });
}

/// Damaged programs, thousands of them: an explanation each time, never a panic or a hang.
#[test]
fn damaged_programs_are_explained_too() {
    let broken = Broken::new();
    let whole = fs::read(broken.root().join("usr/bin/true")).unwrap();
    let program = broken.root().join("usr/bin/fuzzed");
    let root = step04_pivot_root::root::Root::at(&broken.root()).unwrap();
    // xorshift: the same numbers in each run, so that a failure can be looked into.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut started = 0;
    for round in 0..3000 {
        let mut bytes = whole.clone();
        // Mostly in the headers, where offsets and sizes are; sometimes the end is missing.
        for _ in 0..1 + random(8) {
            let place = if random(4) == 0 { bytes.len() } else { 1024 };
            let at = random(place);
            bytes[at] = [0, 0xff, 0x7f, random(256) as u8][random(4)];
        }
        if random(4) == 0 {
            bytes.truncate(random(whole.len()));
        }
        fs::write(&program, &bytes).unwrap();
        if round == 0 {
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let explanation = step04_pivot_root::enoent::explain(&root, "/usr/bin/fuzzed", &[], "/");
        started += usize::from(explanation.fault.is_none());
        assert!(!explanation.report().is_empty());
    }
    // Neither all nor none: the damage is worth something.
    assert!(
        (1..3000).contains(&started),
        "{started} of 3000 would start"
    );
}

/// Random bytes as a script's first lines.
#[test]
fn damaged_scripts_are_explained_too() {
    let broken = Broken::new();
    let root = step04_pivot_root::root::Root::at(&broken.root()).unwrap();
    let program = broken.root().join("usr/bin/fuzzed");
    let parts: [&[u8]; 12] = [
        b"#!",
        b"/bin/sh",
        b"/usr/bin/env",
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"\0",
        b"\xff\xfe",
        b"../",
        b"ls",
        b"/usr/bin/fuzzed",
    ];
    let mut state = 1_u64;
    for _ in 0..3000 {
        let mut bytes = b"#!".to_vec();
        for _ in 0..6 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            bytes.extend_from_slice(parts[(state >> 33) as usize % parts.len()]);
        }
        fs::write(&program, &bytes).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let explanation = step04_pivot_root::enoent::explain(&root, "/usr/bin/fuzzed", &[], "/");
        assert!(!explanation.report().is_empty());
    }
}

/// A program that needs a thousand libraries, each of which needs it back, and a fifo as a loader.
#[test]
fn a_crafted_root_takes_no_time() {
    let broken = Broken::new();
    let true_ = fs::read(broken.root().join("usr/bin/true")).unwrap();
    let text = String::from_utf8_lossy(&true_).into_owned();
    let at = text.find("/lib64/ld-").or_else(|| text.find("/lib/ld-"));
    let Some(_) = at else { return };
    // The loader is a fifo: whoever opens it for reading waits for ever.
    let loader =
        run(Command::new("find")
            .arg(broken.root())
            .args(["-name", "ld-linux*", "-type", "f"]));
    let loader = loader.lines().next().unwrap().to_owned();
    fs::remove_file(&loader).unwrap();
    run(Command::new("mkfifo").arg(&loader));
    let mut why = Command::new(step04())
        .args(["--why", "--rootfs"])
        .arg(broken.root())
        .arg("/bin/true")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = eventually(|| why.try_wait().unwrap());
    let _ = why.kill();
    let status = ended.expect("--why hangs on a fifo");
    assert_eq!(exit_code(status), 126);
}
