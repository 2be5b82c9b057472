//! What somebody tries who sits in a container and means harm: one system call each, and what the
//! kernel says to it. None of them does any, when it works: times are set to what they are, an empty
//! module is loaded, disks are never opened.

use libc::c_long;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{self, MntFlags, MsFlags, umount2};
use nix::sched::{self, CloneFlags, unshare};
use nix::sys::personality::{self, Persona};
use nix::sys::ptrace::{self, Options};
use nix::sys::stat::Mode;
use nix::time::{self, ClockId};
use nix::unistd::{Pid, chdir, chroot, geteuid};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

/// One attack: what the kernel answers, -1 with errno or anything else.
pub type Call = fn() -> c_long;

/// The attacks by name.
pub const CALLS: &[(&str, Call)] = &[
    ("mount", mount),
    ("write-proc-sys", write_proc_sys),
    ("open_by_handle_at", open_by_handle_at),
    ("init_module", init_module),
    ("clock_settime", clock_settime),
    ("unshare-user", unshare_user),
    ("clone-user", clone_user),
    ("keyctl", keyctl),
    ("bpf", bpf),
    ("io_uring_setup", io_uring_setup),
    ("personality", personality),
    ("setns", setns),
    ("ptrace-of-init", ptrace_of_init),
    ("write-sysrq", write_sysrq),
    ("read-kcore", read_kcore),
];

/// Tries each, and prints its name with `works` or the error's name.
pub fn try_all() {
    for (name, call) in CALLS {
        Errno::clear();
        match call() {
            -1 => println!("{name}: {:?}", Errno::last()),
            _ => println!("{name}: works"),
        }
    }
}

/// What nix tells, as the kernel tells it.
fn answer<T>(result: nix::Result<T>) -> c_long {
    match result {
        Ok(_) => 0,
        Err(errno) => {
            errno.set();
            -1
        }
    }
}

fn mount() -> c_long {
    let (target, none) = ("/tmp", None::<&str>);
    let mounted = mount::mount(Some("none"), target, Some("tmpfs"), MsFlags::empty(), none);
    if mounted.is_ok() {
        let _ = umount2(target, MntFlags::MNT_DETACH);
    }
    answer(mounted)
}

/// What is there is written again.
fn rewrite(path: &str) -> c_long {
    let write = || -> std::io::Result<()> {
        let text = fs::read(path)?;
        fs::write(path, text)
    };
    match write() {
        Ok(()) => 0,
        Err(error) => {
            Errno::set_raw(error.raw_os_error().unwrap_or(0));
            -1
        }
    }
}

fn write_proc_sys() -> c_long {
    rewrite("/proc/sys/kernel/threads-max")
}

fn write_sysrq() -> c_long {
    // Asks for its help text.
    match fs::write("/proc/sysrq-trigger", "?") {
        Ok(()) => 0,
        Err(error) => {
            Errno::set_raw(error.raw_os_error().unwrap_or(0));
            -1
        }
    }
}

fn read_kcore() -> c_long {
    let mut head = [0; 4];
    match File::open("/proc/kcore").and_then(|mut kcore| kcore.read(&mut head)) {
        Ok(0) => {
            // Masked: it is empty.
            Errno::ENODATA.set();
            -1
        }
        Ok(_) => 0,
        Err(error) => {
            Errno::set_raw(error.raw_os_error().unwrap_or(0));
            -1
        }
    }
}

/// A file handle is a number that says which file: who may open one needs no path to it.
fn open_by_handle_at() -> c_long {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let mut handle = Handle {
        bytes: 128,
        kind: 0,
        data: [0; 128],
    };
    let mut mount = 0;
    // SAFETY: the kernel writes at most as many bytes as `bytes` says.
    unsafe {
        let path = c"/etc".as_ptr();
        let asked = libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path,
            &raw mut handle,
            &raw mut mount,
            0,
        );
        if asked == -1 {
            return -1;
        }
        let root = libc::open(c"/".as_ptr(), libc::O_RDONLY);
        libc::syscall(
            libc::SYS_open_by_handle_at,
            root,
            &raw mut handle,
            libc::O_RDONLY,
        )
    }
}

/// An empty module is no module: whoever may load one is told ENOEXEC, which counts as working.
fn init_module() -> c_long {
    // SAFETY: no bytes, and an empty string.
    let loaded = unsafe { libc::syscall(libc::SYS_init_module, c"".as_ptr(), 0, c"".as_ptr()) };
    match Errno::last() {
        Errno::ENOEXEC | Errno::EFAULT if loaded == -1 => 0,
        _ => loaded,
    }
}

fn clock_settime() -> c_long {
    let now = ClockId::CLOCK_REALTIME.now();
    answer(now.and_then(|now| time::clock_settime(ClockId::CLOCK_REALTIME, now)))
}

/// In a child: who is in a user namespace of his own can't go back.
fn in_a_child(call: impl Fn() -> c_long) -> c_long {
    // SAFETY: one thread; the child only makes the call and ends.
    unsafe {
        match libc::fork() {
            0 => {
                let status = if call() == -1 { Errno::last_raw() } else { 0 };
                libc::_exit(status)
            }
            child => {
                let mut status = 0;
                libc::waitpid(child, &raw mut status, 0);
                match libc::WEXITSTATUS(status) {
                    0 => 0,
                    errno => {
                        Errno::set_raw(errno);
                        -1
                    }
                }
            }
        }
    }
}

fn unshare_user() -> c_long {
    in_a_child(|| answer(unshare(CloneFlags::CLONE_NEWUSER)))
}

fn clone_user() -> c_long {
    // SAFETY: without CLONE_VM this is fork; the child ends at once.
    unsafe {
        let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as libc::c_ulong;
        let child = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
        if child == 0 {
            libc::_exit(0);
        }
        if child > 0 {
            libc::waitpid(child as i32, std::ptr::null_mut(), 0);
        }
        child
    }
}

fn keyctl() -> c_long {
    const KEYCTL_GET_KEYRING_ID: c_long = 0;
    const KEY_SPEC_SESSION_KEYRING: c_long = -3;
    // SAFETY: takes integers.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_GET_KEYRING_ID,
            KEY_SPEC_SESSION_KEYRING,
            0,
        )
    }
}

fn bpf() -> c_long {
    const BPF_MAP_CREATE: c_long = 0;
    // An array of one element of four bytes.
    let attributes: [u32; 32] = std::array::from_fn(|at| match at {
        0 => 2,
        1 | 2 => 4,
        3 => 1,
        _ => 0,
    });
    // SAFETY: the kernel reads the attributes.
    unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), 72) }
}

fn io_uring_setup() -> c_long {
    let mut parameters = [0_u32; 30];
    // SAFETY: struct io_uring_params has 120 bytes.
    unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) }
}

fn personality() -> c_long {
    in_a_child(|| answer(personality::set(Persona::ADDR_NO_RANDOMIZE)))
}

fn setns() -> c_long {
    let Ok(own) = File::open("/proc/self/ns/uts") else {
        return -1;
    };
    in_a_child(|| answer(sched::setns(&own, CloneFlags::empty())))
}

/// PID 1 of the container is our parent, or its.
fn ptrace_of_init() -> c_long {
    // What this child traces goes on when the child ends.
    in_a_child(|| answer(ptrace::seize(Pid::from_raw(1), Options::empty())))
}

/// Climbs out by a second chroot: chroot(2) under NOTES. Returns whether `marker`, a path of the host,
/// can be seen then.
pub fn climb(marker: &Path) -> bool {
    let _ = fs::create_dir("/tmp/ladder");
    let _ = chroot("/tmp/ladder");
    for _ in 0..64 {
        let _ = chdir("..");
    }
    let _ = chroot(".");
    marker.exists()
}

/// Pushes words into the terminal at standard input, as if they had been typed there: TIOCSTI in
/// ioctl_tty(2). Returns how many bytes the kernel took.
pub fn type_into_the_terminal(words: &str) -> usize {
    let typed = |byte: &u8| {
        // SAFETY: the kernel reads one byte.
        let result = unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const *byte) };
        result == 0
    };
    words.bytes().filter(typed).count()
}

/// Takes `bytes` of memory, and writes to each page of it.
pub fn take_memory(bytes: usize) {
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    println!("took {bytes}");
    std::hint::black_box(&memory);
}

/// Makes `levels` directories within each other, with a file in the last one.
pub fn dig(levels: usize) -> std::io::Result<()> {
    for _ in 0..levels {
        fs::create_dir("d")?;
        chdir("d")?;
    }
    fs::write("file", "")
}

/// The key that [`hold_key`] makes, and [`find_key`] looks for.
const KEY: &std::ffi::CStr = c"ten-steps-attack";

/// Joins the session keyring `name`, or one without a name, puts a key into it, allows everything to everybody, and becomes
/// `command`. Returns only an error. See keyctl(2).
pub fn hold_key(name: &str, command: &[std::ffi::OsString]) -> std::io::Error {
    const JOIN_SESSION_KEYRING: c_long = 1;
    const SETPERM: c_long = 5;
    const SESSION_KEYRING: c_long = -3;
    const ALL: c_long = 0x3f3f_3f3f;
    let name = std::ffi::CString::new(name).unwrap_or_default();
    let pointer = match name.is_empty() {
        true => std::ptr::null(),
        false => name.as_ptr(),
    };
    let what = b"planted";
    // SAFETY: the kernel reads the texts, and the bytes whose number it is given.
    unsafe {
        let keyctl = libc::SYS_keyctl;
        if libc::syscall(keyctl, JOIN_SESSION_KEYRING, pointer) == -1 {
            return std::io::Error::last_os_error();
        }
        let (kind, to) = (c"user".as_ptr(), SESSION_KEYRING);
        let key = libc::syscall(
            libc::SYS_add_key,
            kind,
            KEY.as_ptr(),
            what.as_ptr(),
            what.len(),
            to,
        );
        for each in [key, SESSION_KEYRING] {
            if libc::syscall(keyctl, SETPERM, each, ALL) == -1 {
                return std::io::Error::last_os_error();
            }
        }
    }
    std::process::Command::new(&command[0])
        .args(&command[1..])
        .exec()
}

/// Whether the key is in this process's session keyring: `found`, or why not.
pub fn find_key() -> String {
    const SEARCH: c_long = 10;
    const SESSION_KEYRING: c_long = -3;
    let kind = c"user".as_ptr();
    // SAFETY: the kernel reads two texts.
    let found = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            SEARCH,
            SESSION_KEYRING,
            kind,
            KEY.as_ptr(),
            0,
        )
    };
    match found {
        -1 => format!("{:?}", Errno::last()),
        _ => "found".into(),
    }
}

/// Which user it is in the eyes of the kernel.
pub fn effective_user() -> u32 {
    geteuid().as_raw()
}

/// Takes back what it has written: opens its own standard output and error for reading, waits until the reader of both
/// has taken something of the first, and takes what it was told of in the second. A reader that polls both and then
/// reads both, and may wait, then waits for ever: [`STUCK`] is in the file `note` as long as that seems to be so.
pub fn take_back(turns: usize, note: &Path) -> std::io::Result<()> {
    let [output, error] = [1, 2].map(|number| {
        let path = format!("/proc/self/fd/{number}");
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        nix::fcntl::open(path.as_str(), flags, Mode::empty()).map(File::from)
    });
    let (output, mut error) = (output?, error?);
    let moment = || std::thread::sleep(Duration::from_millis(30));
    for _ in 0..turns {
        while waiting(&output) < 3 * 4096 {
            let _ = std::io::stdout().write_all(&[b'\n'; 4096]);
            let _ = std::io::stdout().flush();
        }
        if waiting(&error) == 0 {
            let _ = std::io::stderr().write_all(b"x");
        }
        let before = waiting(&output);
        for _ in 0..200_000 {
            if waiting(&output) >= before {
                continue;
            }
            if waiting(&error) == 1 && error.read(&mut [0]).is_ok_and(|read| read == 1) {
                let then = waiting(&output);
                moment();
                if then > 0 && then == waiting(&output) {
                    fs::write(note, STUCK)?;
                    while then == waiting(&output) {
                        moment();
                    }
                }
            }
            break;
        }
    }
    fs::write(note, NO_LUCK)
}

/// The reader waits, and will do so for ever, unless it is only slow.
pub const STUCK: &str = "the reader waits";

/// All turns are through.
pub const NO_LUCK: &str = "no luck";

/// How many bytes a pipe holds: FIONREAD in pipe(7).
fn waiting(pipe: &File) -> i32 {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int.
    unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    bytes
}
