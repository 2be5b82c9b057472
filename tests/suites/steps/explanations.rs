//! Why a command doesn't start: one root for each way to break one, and roots made to do harm.

use crate::stage::bench::Bench;
use crate::stage::redaction::{our_lines, redact, transcript};
use crate::stage::{Printed, Root, as_nobody, copy_of, folder, run, script, step04, write_program};
use assert_cmd::assert::{Assert, OutputAssertExt};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use progress::host::container::eventually;
use progress::host::{Propagation, exit_code, on_pretend_host};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
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
        write_program(&path, bytes);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn step(&self, arguments: &[&str]) -> Assert {
        let mut program = Command::new(step04());
        let program = program.arg("--rootfs").arg(self.root()).args(arguments);
        program
            .env_remove("RUST_BACKTRACE")
            .env_remove("FOREIGN")
            .assert()
    }

    /// What running `command` says, and that `--why` foresees the same.
    #[track_caller]
    fn told(&self, command: &[&str]) -> String {
        let ran = self.step(command);
        let foreseen = self.step(&[&["--why"], command].concat());
        let status = foreseen.get_output().status;
        assert_eq!(ran.get_output().status, status, "{ran}{foreseen}");
        let evidence = |text: &str| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with("  ") || line.starts_with("help:"));
            lines.collect::<Vec<_>>().join("\n")
        };
        if status.success() {
            foreseen.prints(" would start");
        } else {
            assert_eq!(evidence(&ran.errors()), evidence(&foreseen.printed()));
        }
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
            let stale = "/LIBRARY isn't there: ld.so.cache is old";
            text = text.replace(&library.to_owned(), "LIBRARY");
            // Nor does it matter in which directory it was.
            let lines = text.lines().map(|line| match line.ends_with(stale) {
                true => "  DIRECTORY/LIBRARY isn't there: ld.so.cache is old",
                false => line,
            });
            text = lines.collect::<Vec<_>>().join("\n") + "\n";
        }
        told += &format!("# {kind}\n{text}");
    }
    insta::assert_snapshot!(told);
}

/// What is said of a program in an image is about the container's own tree: whether the image is a folder or an archive,
/// and whether the program is on a volume, or found by a PATH of the user's own, or from a directory. `--why` foresees the
/// same, and nobody is told to change a file of ours.
#[test]
fn programs_of_images_and_volumes_are_explained() {
    let bench = Bench::new();
    let good = bench.root.path().display().to_string();
    for (kind, is_one_file) in [
        ("missing-loader", false),
        ("dangling-loader-link", false),
        ("missing-library", false),
        ("bad-shebang", true),
        ("crlf-shebang", true),
        ("no-shebang", true),
        ("wrong-machine", true),
        ("not-executable", true),
        ("symlink-out", false),
    ] {
        let broken = Broken::new();
        let command = run(script("break.sh").arg(kind).arg(broken.root()));
        let command = command.trim();
        let folder = broken.root().display().to_string();
        let archive = bench.path("image.tar").display().to_string();
        run(Command::new("tar").args(["-C", &folder, "-cf", &archive, "."]));
        // The command's file alone, which is nothing else's part.
        let volume = bench.path("volume");
        let _ = fs::remove_dir_all(&volume);
        fs::create_dir(&volume).unwrap();
        let found = broken.root().join(command.trim_start_matches('/'));
        let mut ways: Vec<(&str, Vec<&str>, &str)> = vec![
            ("a folder", vec!["--image", &folder], command),
            ("an archive", vec!["--image", &archive], command),
        ];
        let mount = format!("{}:/mnt", volume.display());
        if is_one_file {
            run(Command::new("cp")
                .arg("-a")
                .arg(found)
                .arg(volume.join("it")));
            let image = ["--image", &good, "-v", &mount];
            let with = |more: &[&'static str]| [&image[..], more].concat();
            ways.extend([
                ("a volume", with(&[]), "/mnt/it"),
                (
                    "a volume above a tmpfs",
                    with(&["--tmpfs", "/mnt/tmpfs"]),
                    "/mnt/it",
                ),
                ("PATH", with(&["-e", "PATH=/mnt"]), "it"),
                ("a directory", with(&["-w", "/mnt"]), "./it"),
            ]);
        }
        for (way, flags, command) in ways {
            let ran = bench.bare(&flags, &[command]);
            let foreseen = bench.bare(&[&flags[..], &["--why"]].concat(), &[command]);
            assert_eq!(
                ran.code, foreseen.code,
                "{kind}, {way}: {} {}",
                ran.errors, foreseen.output
            );
            let evidence = |text: &str| -> Vec<String> {
                let is_one = |line: &&str| line.starts_with("  ") || line.starts_with("help:");
                text.lines().filter(is_one).map(str::to_owned).collect()
            };
            let (told, foreseen) = (evidence(&ran.errors), evidence(&foreseen.output));
            assert_eq!(told, foreseen, "{kind}, {way}");
            assert!(
                told.iter().any(|line| line.starts_with("help:")),
                "{kind}, {way}: {told:?}"
            );
            // Neither our own copy of an archive, nor what is below a mount.
            let of_ours = |line: &&String| line.contains("/state/") || line.contains("/proc/");
            assert_eq!(told.iter().find(of_ours), None, "{kind}, {way}");
            if kind == "not-executable" {
                let place = match way {
                    "a folder" => format!("chmod +x {folder}"),
                    "an archive" => format!("chmod +x {command}, in the image"),
                    _ => "chmod +x /mnt/it, in what is mounted there".into(),
                };
                assert!(told.concat().contains(&place), "{way}: {told:?}");
            }
        }
        bench.is_clean();
        fs::remove_dir_all(bench.path("state/images")).unwrap();
    }
    // What is looked for on a tmpfs isn't there, whatever the image has below it; and an image is no command.
    let flags = [
        "--image",
        &good,
        "--tmpfs",
        "/usr/bin:exec",
        "--tmpfs",
        "/bin:exec",
    ];
    for why in [&[][..], &["--why"]] {
        let outcome = bench.bare(&[&flags[..], why].concat(), &["/usr/bin/cat"]);
        assert_eq!(outcome.code, 127, "{}", outcome.errors);
        assert!((outcome.errors + &outcome.output).contains("/cat isn't there"));
    }
    let outcome = bench.bare(&["--image", &good], &["alpine", "sh"]);
    assert!(
        outcome.errors.contains("an image is named by --image"),
        "{}",
        outcome.errors
    );
    // --why makes nothing in a directory that is somebody's own.
    let keep = bench.path("kept");
    fs::create_dir(&keep).unwrap();
    let (kept, volume) = (keep.display().to_string(), format!("{good}:/not/there"));
    let flags = ["--image", &good, "--keep", &kept, "-v", &volume, "--why"];
    assert_eq!(bench.bare(&flags, &["cat"]).code, 0);
    assert_eq!(fs::read_dir(&keep).unwrap().count(), 0);
    let broken = Broken::new();
    let before = run(Command::new("find").arg(broken.root()));
    let (root, volume) = (
        broken.root().display().to_string(),
        format!("{good}:/not/there"),
    );
    let flags = ["--rootfs", &root, "-v", &volume, "--why"];
    assert_eq!(bench.bare(&flags, &["cat"]).code, 0);
    assert_eq!(run(Command::new("find").arg(broken.root())), before);
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
    let ran = on_pretend_host(crate::stage::progress(), Propagation::Private, &command)
        .arg(step04())
        .assert();
    insta::assert_snapshot!(redact(
        &transcript("/mnt/noexec/tool", &ran),
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
    let why = broken.step(&["--why", "cat"]).success();
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
        broken.step(&[&["--why"], command].concat()).success();
        broken.step(&[command, &["/etc/passwd"]].concat()).success();
    }
    // A shell that ends with 127 for a reason of its own gets no explanation.
    broken.step(&["sh", "-c", "exit 127"]).code(127).stderr("");
}

/// `--why` for everyone: no root, and nothing run.
#[test]
fn why_needs_no_privilege() {
    let broken = Broken::new();
    broken.write("usr/bin/trap", "#!/bin/sh\ntouch /tmp/ran\n", 0o755);
    let program = copy_of("step04-pivot-root", broken.folder.path());
    let why = as_nobody(&program)
        .args(["--why", "--rootfs"])
        .arg(broken.root())
        .arg("trap")
        .assert()
        .success();
    assert!(why.printed().starts_with("trap would start"), "{why}");
    assert!(!broken.root().join("tmp/ran").exists());
    // What this user may not look at isn't the root's fault.
    for (path, mode) in [("opt/closed/program", 0o755), ("usr/bin/unreadable", 0o711)] {
        broken.write(path, "#!/bin/sh\n", mode);
    }
    let closed = broken.root().join("opt/closed");
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    for command in ["/opt/closed/program", "unreadable"] {
        as_nobody(&program)
            .args(["--why", "--rootfs"])
            .arg(broken.root())
            .arg(command)
            .assert()
            .code(125)
            .prints("sudo");
    }
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
    write_program(&outside, "#!/bin/sh\n");
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
        broken.step(&["--why", command]).code(127);
        // And the kernel agrees.
        broken.step(&[command]).code(127);
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
        let explanation = step04_pivot_root::why::explain(&root, "/usr/bin/fuzzed", &[], "/");
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
        let explanation = step04_pivot_root::why::explain(&root, "/usr/bin/fuzzed", &[], "/");
        assert!(!explanation.report().is_empty());
    }
}

/// An ELF program of this machine that asks for the loader `loader`, and for nothing else.
fn program_with_loader(root: &Path, loader: &str) -> Vec<u8> {
    let mut bytes = fs::read(root.join("usr/bin/true")).unwrap();
    // The whole string, NUL included, at the end of the file; the header of PT_INTERP points there.
    let place = bytes.len() as u64;
    bytes.extend_from_slice(loader.as_bytes());
    bytes.push(0);
    let number =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let table = number(&bytes, 32) as usize;
    let count = u16::from_le_bytes([bytes[56], bytes[57]]) as usize;
    let header = (0..count)
        .map(|index| table + index * 56)
        .find(|&at| bytes[at] == 3)
        .unwrap();
    bytes[header + 8..header + 16].copy_from_slice(&place.to_le_bytes());
    let length = loader.len() as u64 + 1;
    bytes[header + 32..header + 40].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Runs `--why` on a root that may keep it busy, and says what it ended with.
fn why_ends(broken: &Broken, command: &str) -> u8 {
    let mut why = Command::new(step04())
        .args(["--why", "--rootfs"])
        .arg(broken.root())
        .arg(command)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ended = eventually(|| why.try_wait().unwrap());
    let _ = why.kill();
    exit_code(ended.unwrap_or_else(|| panic!("--why hangs on {command}")))
}

/// Roots made to keep whoever looks at them busy for ever, or to make them fall over.
#[test]
fn a_crafted_root_takes_no_time() {
    let broken = Broken::new();
    let root = broken.root();
    // A loader that asks for itself as its loader. The kernel doesn't look at that, and runs it.
    broken.write(
        "usr/bin/self",
        program_with_loader(&root, "/usr/bin/self"),
        0o755,
    );
    why_ends(&broken, "/usr/bin/self");
    // A loader whose opening would wait for ever.
    run(Command::new("mkfifo").arg(root.join("usr/bin/pipe")));
    broken.write(
        "usr/bin/waits",
        program_with_loader(&root, "/usr/bin/pipe"),
        0o755,
    );
    assert_eq!(why_ends(&broken, "/usr/bin/waits"), 126);
    // Ten thousand long names that are all a little like the one that isn't there.
    for number in 0..5000 {
        let name = format!("usr/sbin/{}{number}", "a".repeat(200));
        fs::write(root.join(name), "").unwrap();
    }
    assert_eq!(why_ends(&broken, &"a".repeat(200)), 127);
    assert_eq!(why_ends(&broken, "aaaa"), 127);
    // A cache of tens of thousands of libraries, each with a name of megabytes.
    let mut cache = b"glibc-ld.so.cache1.1".to_vec();
    let (count, text) = (40_000_u32, 48 + 40_000 * 24);
    cache.extend_from_slice(&count.to_ne_bytes());
    cache.resize(48, 0);
    for _ in 0..count {
        cache.extend_from_slice(&[0; 4]);
        cache.extend_from_slice(&(text as u32).to_ne_bytes());
        cache.extend_from_slice(&(text as u32).to_ne_bytes());
        cache.extend_from_slice(&[0; 12]);
    }
    cache.resize(3_000_000, b'l');
    broken.write("etc/ld.so.cache", cache, 0o644);
    assert_eq!(why_ends(&broken, "ls"), 0);
}

/// A loader that is there and no loader: the kernel's answers, each with a word on it.
#[test]
fn a_loader_that_is_none() {
    let broken = Broken::new();
    let root = broken.root();
    let mut foreign = fs::read(root.join("usr/bin/true")).unwrap();
    foreign[18] = 2;
    for (name, bytes, mode) in [
        ("empty", Vec::new(), 0o755),
        (
            "text",
            "no loader, but as long as the header of one would have to be: sixty-four".into(),
            0o755,
        ),
        ("foreign", foreign, 0o755),
        (
            "forbidden",
            fs::read(root.join("usr/bin/true")).unwrap(),
            0o644,
        ),
    ] {
        broken.write(&format!("usr/lib/{name}-loader"), bytes, mode);
        let program = program_with_loader(&root, &format!("/usr/lib/{name}-loader"));
        broken.write(&format!("usr/bin/{name}"), program, 0o755);
    }
    let mut told = String::new();
    for command in ["empty", "text", "foreign", "forbidden"] {
        told += &broken.told(&[command]);
    }
    insta::assert_snapshot!(told);
}

/// What env makes of its word, and the kernel of a long line.
#[test]
fn lines_that_start_env() {
    let broken = Broken::new();
    broken.write("usr/bin/plain", "echo hello\n", 0o755);
    broken.write("usr/bin/closed", "#!/bin/sh\n", 0o644);
    let mut told = String::new();
    for (name, line) in [
        ("words", "#!/usr/bin/env sh -e"),
        ("split", "#!/usr/bin/env -S sh -e"),
        ("split-absent", "#!/usr/bin/env -S A=b pyhton3 -u"),
        ("by-shell", "#!/usr/bin/env plain"),
        ("by-closed", "#!/usr/bin/env closed"),
        ("blank", "#! /bin/sh"),
        ("nbsp", "#!\u{a0}/bin/sh"),
    ] {
        broken.write(
            &format!("usr/bin/{name}"),
            format!("{line}\nexit 0\n"),
            0o755,
        );
        told += &broken.told(&[name]);
    }
    let long = format!("#!/usr/bin/stat {}\n", "/".repeat(400));
    broken.write("usr/bin/long", long, 0o755);
    broken.step(&["--why", "long"]).success();
    broken.step(&["long"]).success();
    insta::assert_snapshot!(told);
}

/// What would keep any command from starting is said too.
#[test]
fn why_looks_at_what_surrounds_the_command() {
    let broken = Broken::new();
    let file_first = ["--why", "-e", "PATH=/etc/passwd:/bin", "ls"];
    broken.step(&file_first).success();
    broken.step(&["--why", "/bin/ls/../cat"]).code(126);
    broken.step(&["--why", "-w", "/nope", "ls"]).code(125);
    fs::remove_dir(broken.root().join("proc")).unwrap();
    broken.step(&["--why", "ls"]).code(125);
}
