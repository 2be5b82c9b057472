//! Getting out: to the host's program, its files, its devices, its kernel.

use super::{compile, exchanging, tried};
use crate::stage::dock::{Dock, STEP, monitors};
use crate::stage::{Printed, armed_root, copy_of, folder, have, run, step04};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use progress::host::container::eventually;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// A loader that changes the program which asked for it, by /proc/self/exe: its mode, its times, its capabilities, its
/// owner. Calls the kernel by itself, as there is no library before a loader.
pub(super) const EVIL_LOADER: &str = r#"
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
    let _attack = tried("CVE-2019-5736");
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

/// A volume below a volume, where somebody else exchanges the way there with a link to /proc: nothing is ever mounted in
/// there.
#[test]
fn a_mount_point_that_is_exchanged() {
    let _attack = tried("CVE-2021-30465");
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
    let _attack = tried("CVE-2025-31133");
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
    let _attack = tried("");
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
    let _attack = tried("");
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
