//! What is said about a container: at whose cost, and what a terminal makes of it.

use super::tried;
use crate::stage::bench::Bench;
use crate::stage::dock::Dock;
use crate::stage::{Printed, armed_root, folder, have, run, step04, write_program};
use progress::host::container::eventually;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// An ELF program that asks for the loader `loader` and for `libraries`, to be found in `directories`.
fn elf(loader: &str, libraries: usize, directories: &[String]) -> Vec<u8> {
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    const INTERPRETER: u32 = 3;
    let mut strings = vec![0];
    let mut place = |text: &str| {
        let at = strings.len() as u64;
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at
    };
    let mut entries: Vec<(u64, u64)> = (0..libraries)
        .map(|number| (1, place(&format!("libno{number}.so"))))
        .collect();
    entries.push((15, place(&directories.join(":"))));
    let loader_at = place(loader);
    let header = 64 + 3 * 56;
    let table = header + 16 * (entries.len() + 2);
    entries.extend([(5, table as u64), (0, 0)]);
    let whole = table + strings.len();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let machine: u16 = if cfg!(target_arch = "aarch64") {
        183
    } else {
        62
    };
    file.extend(3_u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for word in [0_u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 3, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let loader = (table as u64 + loader_at, loader.len() as u64 + 1);
    let dynamic = (header as u64, 16 * entries.len() as u64);
    for (kind, (offset, size)) in [
        (INTERPRETER, loader),
        (LOAD, (0, whole as u64)),
        (DYNAMIC, dynamic),
    ] {
        file.extend(kind.to_le_bytes());
        file.extend(4_u32.to_le_bytes());
        for word in [offset, offset, offset, size, size, 4096] {
            file.extend(word.to_le_bytes());
        }
    }
    for (tag, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend(strings);
    file
}

/// A root in which a program's libraries would be looked for in very many places, and whose loader gives up with 127.
fn bomb(folder: &Path) -> std::path::PathBuf {
    let root = armed_root(folder, &["sleep"]);
    let detour = "a/../".repeat(810);
    fs::create_dir(root.join("a")).unwrap();
    symlink("/nowhere", root.join("l0")).unwrap();
    for number in 1..38 {
        symlink(
            format!("{detour}l{}", number - 1),
            root.join(format!("l{number}")),
        )
        .unwrap();
    }
    let directories: Vec<String> = (0..60).map(|number| format!("/l37/{number}")).collect();
    write_program(&root.join("bomb"), elf("/ld-linux.so", 1000, &directories));
    // A loader that ends with 127: exit_group(127), without a library.
    let gives_up = "void _start(void) { __asm__ volatile(\"syscall\" :: \"a\"(231), \"D\"(127)); __builtin_unreachable(); }";
    super::compile(
        gives_up,
        &["-nostdlib", "-static-pie", "-fPIE"],
        &root.join("ld-linux.so"),
    );
    root
}

/// A program whose explanation would be as long as its libraries are many, times the places where they are looked for,
/// times the length of the path at which it lies.
#[test]
fn an_explanation_is_no_longer_than_anybody_reads() {
    if !cfg!(target_arch = "x86_64") || !have("gcc", "gcc") {
        return;
    }
    let folder = folder();
    let root = bomb(folder.path());
    let deep = format!("{}/", "d".repeat(200)).repeat(19);
    fs::create_dir_all(root.join(&deep)).unwrap();
    let origin = "$ORIGIN/".repeat(500);
    let plain: Vec<String> = (0..60)
        .map(|number| format!("/{number}{}", "x".repeat(60)))
        .collect();
    for directories in [vec![origin], plain] {
        let _attack = tried("");
        let path = format!("/{deep}bomb");
        write_program(
            &root.join(&path[1..]),
            elf("/ld-linux.so", 1000, &directories),
        );
        let mut asked = Command::new("sh");
        asked
            .args(["-c", "ulimit -v 200000; exec \"$@\"", "sh"])
            .arg(step04())
            .args(["--why", "--rootfs"])
            .arg(&root)
            .arg(&path);
        let asked = crate::stage::dock::ended(&mut asked);
        let said = asked.printed() + &asked.errors();
        assert!(said.contains("libno0.so"), "{said}");
        assert!(said.len() < 400_000, "it says {} bytes", said.len());
        assert!(said.lines().all(|line| line.len() < 4000));
    }
}

/// Files of the kernel's are none: who reads some of them takes what is in them from whoever is to have it.
#[test]
fn no_file_of_the_kernels_is_read() {
    let _attack = tried("");
    let root = step04_pivot_root::root::Root::at(Path::new("/")).unwrap();
    assert!(fs::metadata("/proc/version").unwrap().is_file());
    assert_eq!(root.text("/proc/version", 100), b"");
    let trail = root.follow(Path::new("/"), Path::new("/proc/version"));
    assert!(trail.end.unwrap().open().is_err());
}

/// A program about which there is more to find out than anybody has time for: whoever asks is told so, and a monitor
/// doesn't even begin.
#[test]
fn an_explanation_has_an_end() {
    if !cfg!(target_arch = "x86_64") || !have("gcc", "gcc") || !have("strace", "strace") {
        return;
    }
    let _attack = [(); 3].map(|()| tried(""));
    let dock = Dock::new();
    let root = bomb(dock.folder.path());
    let asked = crate::stage::dock::ended(
        Command::new(step04())
            .args(["--why", "--rootfs"])
            .arg(&root)
            .arg("/bomb"),
    );
    asked.code(125).prints("more to look at");

    // The command ends with 127, over and over, and nobody is attached.
    let image = root.to_str().unwrap();
    let words = [
        "run",
        "-d",
        "--name",
        "box",
        "--restart",
        "on-failure:3",
        "--image",
        image,
        "/bomb",
    ];
    let id = dock.ok(&words).trim().to_owned();
    eventually(|| (dock.record(&id)["state"]["phase"] == "exited").then_some(()))
        .expect("its monitor is busy");
    assert_eq!(dock.record(&id)["state"]["exit_code"], 127);
    dock.ok(&["rm", "box"]);

    // With somebody attached: he looks, and says so. Of the monitor there is no look-up inside of the root.
    write_program(&root.join("lost"), elf("/ld-linux.so", 1, &["/x".into()]));
    let log = dock.folder.path().join("calls");
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-e", "trace=execve,execveat,openat2", "-o"])
        .arg(&log);
    let words = ["run", "--rm", "--image", image, "/lost"];
    let untraced = dock.command(&words);
    traced.arg(untraced.get_program()).args(untraced.get_args());
    traced.env("TEN_STEPS_STATE", &dock.state);
    crate::stage::dock::ended(&mut traced)
        .code(127)
        .complains("libno0.so");
    let calls = fs::read_to_string(&log).unwrap();
    let looks = |pid: &str| {
        let of = |line: &&str| {
            line.starts_with(pid) && line.contains("RESOLVE_IN_ROOT") && line.contains("libno0")
        };
        calls.lines().filter(of).count()
    };
    let pid = |word: &str| {
        let line = calls
            .lines()
            .find(|line| line.contains("execve") && line.contains(word));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let (caller, monitor) = (pid("\"run\""), pid("ten-steps-monitor"));
    assert!(looks(&caller) > 0, "nobody has looked: {calls}");
    assert_eq!(looks(&monitor), 0, "the monitor has looked");

    // And nobody attached, where the command can't be executed: what to type is noted.
    dock.ok(&[
        "create",
        "--name",
        "box",
        "--image",
        image,
        "/bin/sleep",
        "1000",
    ]);
    let id = dock.id("box");
    fs::create_dir_all(dock.container(&id).join("upper/bin")).unwrap();
    fs::write(dock.container(&id).join("upper/bin/sleep"), "#!/no/such\n").unwrap();
    dock.run(&["start", "box"]).failure();
    let noted = dock.record(&id)["state"]["error"].to_string();
    assert!(noted.contains("start -a"), "{noted}");
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

/// What turns a terminal's colours on, its title, and a line that looks like one of ours.
const EVIL: &str = "x\u{1b}[31m\u{9b}1m\u{7}\rhelp: rm -rf ~\nhelp: run this";

/// Everything there on standard error is for people: no letter of it is one that a terminal obeys, and no line is one
/// that a container has written.
#[track_caller]
fn is_harmless(what: &str, errors: &str) {
    let obeyed = |letter: char| letter.is_control() && letter != '\n';
    assert!(!errors.contains(obeyed), "{what}: {errors:?}");
    assert!(
        !errors
            .lines()
            .any(|line| line.starts_with("help: run this")),
        "{what}: {errors:?}"
    );
    assert!(errors.contains("\\u{1b}"), "{what} isn't named: {errors:?}");
}

/// Names of a container's, and of an image's, in what is said of them.
#[test]
fn names_that_a_terminal_would_obey() {
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &[]);
    let at = |name: &str| root.join(name);
    symlink(EVIL, at("link")).unwrap();
    fs::create_dir(at(EVIL.trim_start_matches('/'))).unwrap_or(());
    fs::create_dir_all(at("etc")).unwrap();
    fs::write(
        at("etc/passwd"),
        "ro\u{1b}[31mot:x:0:0::/:/bin/sh\nbad\u{1b}[1m:x:y:z::/:\n",
    )
    .unwrap();
    symlink(format!("/proc/{EVIL}"), at("toproc")).unwrap();
    symlink(format!("{EVIL}/b"), at("dangling")).unwrap();
    fs::write(at("script"), format!("#!/{EVIL}\n")).unwrap();
    run(Command::new("chmod").arg("755").arg(at("script")));
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("loop")).unwrap();
    symlink(
        format!("/loop/{}", EVIL.replace('\n', " ")),
        at("loop").join(EVIL.replace('\n', " ")),
    )
    .unwrap();
    let image = root.to_str().unwrap();
    dock.ok(&[
        "run", "-d", "--name", "box", "--image", image, "sleep", "1000",
    ]);
    let volume = |target: &str| format!("{}:{target}", dock.folder.path().display());
    let (over_loop, out) = (volume("/loopy"), dock.folder.path().join("out"));
    symlink(format!("/loop/{}", EVIL.replace('\n', " ")), at("loopy")).unwrap();
    let out = out.to_str().unwrap();
    let box_loop = format!("box:/loop/{}/x", EVIL.replace('\n', " "));
    for words in [
        &["exec", "-u", "nobody", "box", "true"][..],
        &["exec", "-u", "bad\u{1b}[1m", "box", "true"],
        &["cp", &box_loop, out],
        &["run", "--rm", "--image", image, "-v", &over_loop, "true"],
        &["run", "--rm", "--image", image, "--tmpfs", "/loopy", "true"],
        &["run", "--rm", "--image", image, "/script"],
        &["run", "--rm", "--image", image, "/dangling"],
        &["exec", "box", "/script"],
        &["run", "--rm", "--image", image, EVIL],
    ] {
        let _attack = tried("");
        let ran = dock.run(words);
        assert_ne!(ran.get_output().status.code(), Some(0), "{words:?}");
        is_harmless(&format!("{words:?}"), &ran.errors());
    }
    dock.ok(&["rm", "-f", "box"]);

    // Entries of an archive.
    let bench = Bench::new();
    let file = bench.path("evil.tar");
    let mut builder = tar::Builder::new(fs::File::create(&file).unwrap());
    let mut header = tar::Header::new_gnu();
    let name = format!("{EVIL}/../x");
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
    builder.finish().unwrap();
    let _attack = tried("");
    let outcome = bench.run(&["--image", file.to_str().unwrap()], "true");
    is_harmless("an entry", &outcome.errors);

    // A link of a root in the place of a directory.
    let _attack = tried("");
    let broken = folder();
    let root = broken.path().join("root");
    fs::create_dir(&root).unwrap();
    symlink(EVIL, root.join("proc")).unwrap();
    let told = Command::new(step04())
        .args(["--rootfs"])
        .arg(&root)
        .arg("true")
        .output()
        .unwrap();
    is_harmless("a directory", &String::from_utf8_lossy(&told.stderr));
    dock.is_empty();
}

/// Words that are longer than a message, or than a number: each is told as it is.
#[test]
fn words_that_are_too_long() {
    let _attack = [(); 2].map(|()| tried(""));
    let dock = Dock::new();
    let long = "a".repeat(70_000);
    for words in [&["--rm"][..], &["--rm", "-d"]] {
        let ran = dock.run_in(words, &[&long]);
        let code = ran.get_output().status.code();
        assert!(matches!(code, Some(126 | 127)), "{code:?}");
        ran.complains("execve(");
    }
    let id = dock.start(&[], &["sleep", "1000"]);
    let ran = dock.run(&["exec", &id, &long]);
    assert!(matches!(ran.get_output().status.code(), Some(126 | 127)));
    for signal in ["RTMIN+2147483647", "RTMAX-2147483648", "99999999999"] {
        let ran = dock.run(&["kill", "-s", signal, &id]).code(125);
        assert!(!ran.errors().contains("panicked"), "{ran}");
    }
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// A container that says nothing at great length doesn't get a processor of its monitor's for it.
#[test]
fn short_lines_cost_the_monitor_little() {
    let _attack = tried("");
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &["yes"]);
    let image = root.to_str().unwrap();
    let words = [
        "run",
        "-d",
        "--cpus",
        "0.2",
        "--log-max-size",
        "1m",
        "--image",
        image,
        "yes",
        "",
    ];
    let id = dock.ok(&words).trim().to_owned();
    let monitor = dock.process(&id, "monitor");
    // SAFETY: asks for a number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    // utime and stime: proc_pid_stat(5).
    let used = || {
        let stat = fs::read_to_string(monitor.file("stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let times = fields.split(' ').skip(11).take(2);
        times.map(|time| time.parse::<f64>().unwrap()).sum::<f64>() / ticks
    };
    let (before, since) = (used(), Instant::now());
    // A busy machine only makes it less.
    let share = eventually(|| {
        let elapsed = since.elapsed().as_secs_f64();
        let share = (used() - before) / elapsed;
        (elapsed > 2.0).then_some(share)
    });
    let share = share.unwrap();
    assert!(share < 0.6, "its monitor takes {share:.2} of a processor");
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}
