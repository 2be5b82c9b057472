//! What a hostile container tries, and what has to come of it: nothing. Of each race there is a control, which somebody
//! loses who looks and then acts, as we once did.

use crate::dock::{Dock, STEP, groups_of, monitors};
use crate::stage::{Printed, armed_root, copy_of, folder, have, progress, run, step04};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use progress::attacker::{NO_LUCK, STUCK};
use progress::container::{eventually, in_a_while};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

/// Compiles a program that stands by itself.
fn compile(source: &str, flags: &[&str], to: &Path) {
    let mut gcc = Command::new("gcc")
        .args(["-x", "c", "-O1", "-fno-stack-protector"])
        .args(flags)
        .arg("-o")
        .arg(to)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = gcc.stdin.take().unwrap();
    input.write_all(source.as_bytes()).unwrap();
    drop(input);
    assert!(gcc.wait().unwrap().success());
}

/// Exchanges two names for as long as `meanwhile` takes.
fn exchanging<T>(one: &Path, other: &Path, meanwhile: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flags = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, one, AT_FDCWD, other, flags).unwrap();
            }
        });
        let came = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        done.store(true, Ordering::Relaxed);
        came.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A loader that changes the program which asked for it, by /proc/self/exe: its mode, its times, its capabilities, its
/// owner. Calls the kernel by itself, as there is no library before a loader.
const EVIL_LOADER: &str = r#"
static long call(long n, long a, long b, long c, long d, long e) {
    long r;
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return r;
}
void _start(void) {
    static unsigned capabilities[5] = {0x02000001, 0xfeffffff, 0, 0x1ff, 0};
    const char *program = "/proc/self/exe";
    call(90, (long)program, 06755, 0, 0, 0);
    call(188, (long)program, (long)"security.capability", (long)capabilities, 20, 0);
    call(280, -100, (long)program, 0, 0, 0);
    call(85, (long)"/tmp/the-loader-ran", 0644, 0, 0, 0);
    call(60, 0, 0, 0, 0, 0);
}"#;

/// CVE-2019-5736, by metadata as well as by contents: the host's program, which a container has us execute in there.
#[test]
fn the_hosts_program_is_never_named_in_there() {
    if !cfg!(target_arch = "x86_64") || !have("gcc", "gcc") {
        return;
    }
    let dock = Dock::new();
    let program = copy_of(STEP, dock.folder.path());
    let root = armed_root(dock.folder.path(), &[]);
    fs::write(root.join("bin/trap"), "#!/proc/self/exe\n").unwrap();
    run(Command::new("chmod").arg("755").arg(root.join("bin/trap")));
    let ours = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).env("TEN_STEPS_STATE", &dock.state);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let image = root.to_str().unwrap();
    let sleeper = ["sleep", "1000"];
    // Its monitor executes the same file, which keeps its contents from being written, and no more.
    for name in ["one", "two", "three"] {
        let words = [
            &["run", "-d", "--name", name, "--image", image],
            &sleeper[..],
        ]
        .concat();
        assert!(ours(&words).status.success());
    }
    // From here on whatever asks for a loader in there gets this one.
    let loader = fs::canonicalize("/lib64/ld-linux-x86-64.so.2").unwrap();
    let evil = dock.folder.path().join("loader");
    compile(EVIL_LOADER, &["-nostdlib", "-static-pie", "-fPIE"], &evil);
    for name in ["one", "two", "three"] {
        let at = format!("{name}:{}", loader.display());
        assert!(ours(&["cp", evil.to_str().unwrap(), &at]).status.success());
    }
    let state = || {
        let found = fs::metadata(&program).unwrap();
        let times = (
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        );
        (found.mode(), found.uid(), found.len(), times)
    };
    let before = state();
    ours(&["exec", "one", "trap"]);
    ours(&["exec", "-d", "two", "trap"]);
    let mut at_terminal = pty_process::blocking::Command::new(&program)
        .args(["exec", "-t", "three", "trap"])
        .env("TEN_STEPS_STATE", &dock.state);
    let (_pty, terminal) = pty_process::blocking::open().unwrap();
    at_terminal = at_terminal.stdin(Stdio::null());
    at_terminal.spawn(terminal).unwrap().wait().unwrap();
    for name in ["one", "two", "three"] {
        // It has run, or nothing was tried.
        let first = dock.process(&dock.id(name), "process");
        let ran = || first.file("root/tmp/the-loader-ran").exists().then_some(());
        eventually(ran).unwrap_or_else(|| panic!("{name}: the loader didn't run"));
    }
    assert_eq!(state(), before, "the host's program was changed");
    for name in ["one", "two", "three"] {
        ours(&["rm", "-f", name]);
    }
}

/// A command that takes its own words back while its reader reads: nobody waits for it.
#[test]
fn nobody_waits_for_words_that_were_taken_back() {
    const TURNS: &str = "1000";
    let dock = Dock::new();
    let note = dock.folder.path().join("note");
    let says = |note: &Path, words: &str| fs::read_to_string(note).is_ok_and(|text| text == words);
    // The control: a reader that polls both, and then reads both, and may wait.
    let mut attacker = Command::new(progress())
        .args(["attacker", "take-back", "1000000"])
        .arg(&note)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ends: [Box<dyn ReadEnd>; 2] = [
        Box::new(attacker.stdout.take().unwrap()),
        Box::new(attacker.stderr.take().unwrap()),
    ];
    let (send, number) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        send.send(nix::unistd::gettid()).unwrap();
        loop {
            let mut polled =
                [0, 1].map(|which| PollFd::new(ends[which].as_fd(), PollFlags::POLLIN));
            poll(&mut polled, PollTimeout::NONE).unwrap();
            let ready = polled.map(|each| each.any() == Some(true));
            for (end, ready) in ends.iter_mut().zip(ready) {
                if ready && end.read(&mut [0; 4096]).unwrap() == 0 {
                    return;
                }
            }
        }
    });
    // Where the kernel has it wait: proc_pid_syscall(5).
    let call = format!("/proc/self/task/{}/syscall", number.recv().unwrap());
    let reads = format!("{} ", libc::SYS_read);
    let waits = || {
        let call = fs::read_to_string(&call).unwrap_or_default();
        (says(&note, STUCK) && call.starts_with(&reads)).then_some(())
    };
    let control = in_a_while(waits);
    attacker.kill().unwrap();
    attacker.wait().unwrap();
    reader.join().unwrap();
    control.expect("the control has won nothing");

    let root = armed_root(dock.folder.path(), &[]);
    let root = root.to_str().unwrap();
    let attacker = progress().to_str().unwrap();
    let command = [attacker, "attacker", "take-back", TURNS, "/tmp/note"];
    let words = ["run", "-d", "--name", "box", "--image", root, "sh", "-c"];
    let line = format!("{}; exec sleep 1000", command.join(" "));
    dock.ok(&[&words[..], &[&line]].concat());
    let id = dock.id("box");
    let note = dock.process(&id, "process").file("root/tmp/note");
    in_a_while(|| says(&note, NO_LUCK).then_some(())).expect("the monitor waits");
    // The one who carries what exec's command says.
    fs::remove_file(&note).unwrap();
    dock.run(&[&["exec", "box"], &command[..]].concat())
        .success();
    assert!(says(&note, NO_LUCK), "exec waits");
    dock.ok(&["stop", "-t", "0", "box"]);
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

trait ReadEnd: Read + std::os::fd::AsFd + Send {}
impl<T: Read + std::os::fd::AsFd + Send> ReadEnd for T {}

/// A monitor that answers nobody: whoever ends its container asks the kernel, and whoever only waits is ended by a
/// signal.
#[test]
fn a_monitor_that_never_answers() {
    let dock = Dock::new();
    let ways: [&[&str]; 4] = [
        &["stop", "-t", "0"],
        &["kill"],
        &["rm", "-f"],
        &["restart", "-t", "0"],
    ];
    let ids: Vec<String> = ways
        .iter()
        .map(|_| dock.start(&[], &["sleep", "1000"]))
        .collect();
    let monitors: Vec<_> = ids.iter().map(|id| dock.process(id, "monitor")).collect();
    let firsts: Vec<_> = ids.iter().map(|id| dock.process(id, "process")).collect();
    for monitor in &monitors {
        kill(monitor.0, Signal::SIGSTOP).unwrap();
        eventually(|| monitor.status("State").ok()?.starts_with('T').then_some(())).unwrap();
    }
    let waits = |words: &[&str]| {
        let mut command = dock.command(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    // These wait for ever, unless somebody asks them to end; attach passes a first signal on.
    for words in [["attach", &ids[0]], ["wait", &ids[0]]] {
        let mut program = waits(&words);
        let pid = nix::unistd::Pid::from_raw(program.id() as i32);
        let ended = eventually(|| {
            kill(pid, Signal::SIGTERM).unwrap();
            program.try_wait().unwrap()
        });
        assert!(ended.is_some(), "{words:?} can't be ended");
    }
    let programs: Vec<_> = ways
        .iter()
        .zip(&ids)
        .map(|(words, id)| waits(&[*words, &[id.as_str()]].concat()))
        .collect();
    for (mut program, words) in programs.into_iter().zip(ways) {
        let ended = in_a_while(|| program.try_wait().unwrap());
        assert!(
            ended.is_some_and(|status| status.success()),
            "{words:?}: {ended:?}"
        );
    }
    for gone in monitors.iter().chain(&firsts) {
        assert!(gone.is_ending(), "{gone:?} is still there");
    }
    assert_eq!(dock.status(&ids[3]).0, "running", "restart starts it again");
    dock.ok(&["rm", "-f", &ids[0], &ids[1], &ids[3]]);
    for id in &ids {
        let left = groups_of(id);
        assert!(left.is_empty(), "{left:?}");
    }
    dock.is_empty();
}

/// Words that make no sense cost whoever says them the connection, and the container nothing.
#[test]
fn a_message_without_sense() {
    let dock = Dock::new();
    let id = dock.start(&[], &["sleep", "1000"]);
    let first = dock.process(&id, "process");
    let short = File::open(dock.state.join("run")).unwrap();
    let path = format!("/proc/self/fd/{}/{id}.sock", short.as_raw_fd());
    for words in [
        "{\"Signal\":200}",
        "{\"Signal\":0}",
        "{\"Signal\":-9}",
        "{\"Size\":[1]}",
        "\"Taken\"",
        "\"Started\"",
        "{}",
        "\u{0}",
        "nothing",
    ] {
        let flags = SockFlag::SOCK_CLOEXEC;
        let ours = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(ours.as_raw_fd(), &UnixAddr::new(path.as_str()).unwrap()).unwrap();
        send(ours.as_raw_fd(), words.as_bytes(), MsgFlags::MSG_NOSIGNAL).unwrap();
        // It hangs up, when it has read that.
        let mut polled = [PollFd::new(
            std::os::fd::AsFd::as_fd(&ours),
            PollFlags::empty(),
        )];
        let hung_up = poll(&mut polled, PollTimeout::from(20_000_u16)).unwrap();
        assert_eq!(hung_up, 1, "{words:?} costs nothing");
        assert!(
            !first.is_ending(),
            "{words:?} has cost the container its life"
        );
    }
    dock.ok(&["exec", &id, "true"]);
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// Somebody attaches and is suspended: the command and its log go on, and he reads in the end what he has missed.
#[test]
fn who_lags_behind_is_left_behind() {
    let dock = Dock::new();
    let line = "while :; do echo 0123456789012345678901234567890123456789; done";
    let id = dock.start(&["--log-max-size", "0"], &["sh", "-c", line]);
    let mut command = dock.command(&["attach", "--no-stdin", &id]);
    let mut program = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = program.stdout.take().unwrap();
    output.read_exact(&mut [0; 100]).unwrap();
    let pid = nix::unistd::Pid::from_raw(program.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    // More than all pipes and queues on the way hold together.
    let log = dock.container(&id).join("container.log");
    let length = || fs::metadata(&log).unwrap().len();
    let before = length();
    eventually(|| (length() > before + (8 << 20)).then_some(())).expect("its log waits");
    kill(pid, Signal::SIGCONT).unwrap();
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    let mut errors = String::new();
    program
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(program.wait().unwrap().code(), Some(125), "{errors}");
    assert!(
        errors.contains("left behind") && errors.contains("logs -f"),
        "{errors}"
    );
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// A record whose ID isn't its folder's hides no other, and panics nobody.
#[test]
fn a_record_with_another_id() {
    let dock = Dock::new();
    dock.run_in(&["--name", "good"], &["true"]).success();
    dock.run_in(&["--name", "bad"], &["true"]).success();
    let id = dock.id("bad");
    let file = dock.container(&id).join("config.json");
    let sound = dock.record(&id);
    for (key, value) in [
        ("id", "\"abc\""),
        ("id", "\"\""),
        ("name", "\"../../x\""),
        ("arguments.command", "[]"),
    ] {
        let mut record = sound.clone();
        let mut place = &mut record;
        for part in key.split('.') {
            place = &mut place[part];
        }
        *place = serde_json::from_str(value).unwrap();
        fs::write(&file, record.to_string()).unwrap();
        let listed = dock.run(&["ps", "-a"]).success();
        listed
            .prints("good")
            .complains("`rm -f")
            .complains(&id[..12]);
        for words in [["start", &id], ["logs", &id], ["inspect", &id]] {
            let ran = dock.run(&words);
            assert!(!ran.errors().contains("panicked"), "{ran}");
        }
    }
    dock.ok(&["rm", "-f", &id]);
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

/// A volume below a volume, where somebody else exchanges the way there with a link to /proc: nothing is ever mounted in
/// there.
#[test]
fn a_mount_point_that_is_exchanged() {
    let dock = Dock::new();
    let at = |name: &str| dock.folder.path().join(name);
    let (shared, data) = (at("shared"), at("data"));
    fs::create_dir_all(shared.join("x/sys")).unwrap();
    symlink("/proc", shared.join("y")).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("mark"), "").unwrap();
    let volume = |source: &Path, target: &str| format!("{}:{target}", source.display());
    let outer = volume(&shared, "/v");
    let tmpfs = ["-v", &outer, "--tmpfs", "/v/x/sys"];
    let inner = volume(&data, "/v/x/sys");
    let below = ["-v", &outer, "-v", &inner];
    // By the mount table alone: whatever is below /proc came with the container.
    let look = "cut -d' ' -f5,9- /proc/self/mountinfo | grep '^/proc/sys .*\\(ext4\\|btrfs\\|xfs\\|overlay\\|tmpfs\\)' && exit 3; \
                [ ! -e /proc/sys/mark ] || exit 3; [ -e /proc/sys/kernel/ostype ] || exit 3";
    let (way, link) = (shared.join("x"), shared.join("y"));
    let (started, won) = exchanging(&way, &link, || {
        // The control: who looks at a path, and then uses it.
        let target = shared.join("x/sys");
        let no_links = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let lost = (0..200_000).any(|_| {
            let used = openat2(AT_FDCWD, &target, no_links)
                .and_then(|_looked_at| nix::fcntl::open(&target, OFlag::O_PATH, Mode::empty()));
            let used = used.and_then(|file| fstatfs(&file));
            used.is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
        });
        assert!(lost, "the control has lost nothing");
        let mut counts = (0, 0);
        for flags in [&below, &tmpfs] {
            for _ in 0..60 {
                let words = dock.words(&["run", "--rm"], &flags[..], &["sh", "-c", look]);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                match dock.run(&words).get_output().status.code() {
                    Some(3) => counts.1 += 1,
                    Some(0) => counts.0 += 1,
                    // It met the link, and said so.
                    other => assert_eq!(other, Some(125)),
                }
            }
        }
        counts
    });
    assert!(started > 0, "none of them started");
    assert_eq!(
        won, 0,
        "of {started} some had something mounted over /proc/sys"
    );
    dock.is_empty();
}

/// Volumes and tmpfs over /dev don't take the masks away.
#[test]
fn masks_do_not_depend_on_dev() {
    let dock = Dock::new();
    let empty = dock.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let false_null = dock.folder.path().join("false");
    fs::create_dir(&false_null).unwrap();
    mknod(
        &false_null.join("null"),
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(1, 5),
    )
    .unwrap();
    let volumes = [&empty, &false_null].map(|folder| format!("{}:/dev", folder.display()));
    let look = "for file in /proc/keys /proc/timer_list /proc/interrupts; do
            [ ! -e $file ] || [ -z \"$(head -c 1 $file)\" ] || echo $file; done
        [ -z \"$(ls /sys/firmware 2>&1)\" ] || echo /sys/firmware";
    for flags in [
        &["--tmpfs", "/dev"][..],
        &["-v", &volumes[0]],
        &["-v", &volumes[1]],
        &["-v", &volumes[0], "--tmpfs", "/dev"],
    ] {
        let flags = [flags, &["-i", "--rm"]].concat();
        dock.run_in(&flags, &["sh", "-c", look])
            .success()
            .stdout("");
    }
    dock.is_empty();
}

/// A file that was looked at, and is a device when it is opened to be explained: it isn't opened.
#[test]
fn no_device_is_opened_to_explain() {
    let folder = folder();
    let root = armed_root(folder.path(), &[]);
    fs::create_dir(root.join("x")).unwrap();
    let (tool, device) = (root.join("x/tool"), root.join("x/device"));
    fs::write(&tool, "#!/no/such/interpreter\n").unwrap();
    run(Command::new("chmod").arg("755").arg(&tool));
    let mode = Mode::from_bits_truncate(0o777);
    mknod(&device, SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
    let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
    watch.add_watch(&device, AddWatchFlags::IN_OPEN).unwrap();
    let was_opened = || watch.read_events().is_ok_and(|events| !events.is_empty());
    exchanging(&tool, &device, || {
        // The control: who looks at a path, and then opens it.
        let lost = (0..200_000).any(|_| {
            let plain = fs::symlink_metadata(&tool).is_ok_and(|found| found.is_file());
            plain && File::open(&tool).is_ok() && was_opened()
        });
        assert!(lost, "the control has opened no device");
        while was_opened() {}
        for _ in 0..300 {
            Command::new(step04())
                .args(["--why", "--rootfs"])
                .arg(&root)
                .arg("/x/tool")
                .output()
                .unwrap();
        }
    });
    assert!(!was_opened(), "a device was opened");
}

/// One call of the 32-bit table that stands for many: what it asks for, no filter can see.
#[test]
fn no_socket_by_socketcall() {
    if !cfg!(target_arch = "x86_64") || !have("gcc", "gcc") {
        return;
    }
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &[]);
    let source = r#"
        #include <sys/mman.h>
        int main(int argc, char **argv) {
            unsigned *words = mmap((void *)0x10000000, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            unsigned families[] = {2, 1, 40, 38};
            int opened = 0;
            for (int i = 0; i < 4; i++) {
                long result;
                words[0] = families[i], words[1] = families[i] == 38 ? 5 : 1, words[2] = 0;
                __asm__ volatile("int $0x80" : "=a"(result) : "a"(102), "b"(1), "c"(words) : "memory", "r8", "r9", "r10", "r11");
                opened += (int)result >= 0;
            }
            return opened;
        }"#;
    compile(source, &["-static"], &root.join("sockets"));
    let image = root.to_str().unwrap();
    let sockets = |flags: &[&str]| {
        let words = [&["run", "--rm", "--image", image], flags, &["/sockets"]].concat();
        dock.run(&words).get_output().status.code().unwrap()
    };
    assert_eq!(sockets(&[]), 0);
    assert!(
        sockets(&["--security-opt", "seccomp=unconfined"]) > 0,
        "there is nothing to refuse"
    );
    // And the host's own console, whoever has it.
    let console = "mknod /tmp/console c 5 1 && : </tmp/console";
    dock.run_in(&["--rm"], &["sh", "-c", console])
        .failure()
        .complains("not permitted");
    dock.is_empty();
    assert!(monitors(&dock.state).is_empty());
}
