//! What the suites have in common: the programs, a root filesystem, and what is redacted.

pub mod bench;
pub mod bundle;
pub mod clients;
pub mod depot;
pub mod dock;
pub mod engine;
pub mod quay;
pub mod redaction;
pub mod times;

use assert_cmd::assert::{Assert, OutputAssertExt};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;
use progress::host::{CHANGED, Propagation, exit_code, on_pretend_host};
use progress::programs::{Programs, workspace};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::{env, fs};
use tempfile::TempDir;
use times::{begin, say};

/// The packages of the steps, in order.
pub const STEPS: [&str; 12] = [
    "step01-uts",
    "step02-pid",
    "step03-mount",
    "step04-pivot-root",
    "step05-tty",
    "step06-caps",
    "step07-cgroups",
    "step08-overlay",
    "step09-detach",
    "step10-exec",
    "step11-pull",
    "step12-oci",
];

/// Those whose program runs a command and nothing else; the others have subcommands.
pub const DIRECT: &[&str] = STEPS.split_at(8).0;

/// The program that calls the functions of a package's exercises one by one, beside the program of our solution.
pub fn probe(package: &str) -> PathBuf {
    let examples = step(package).with_file_name("examples");
    examples.join(format!("{package}-probe"))
}

/// What every step takes to run a command in `root` that reads its input, as far as it has such flags.
pub fn usual(package: &str, root: &Path) -> Vec<String> {
    let mut flags = Vec::new();
    if package >= "step04" {
        flags.extend(["--rootfs".to_owned(), root.display().to_string()]);
    }
    if package >= "step05" {
        flags.push("-i".into());
    }
    flags
}

/// The checker.
pub fn progress() -> &'static Path {
    begin();
    Path::new(env!("CARGO_BIN_EXE_progress"))
}

/// The program of a step.
pub fn step(package: &str) -> &'static Path {
    begin();
    static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
        // Whoever runs the suites in the background has these ignored, and so would the programs.
        for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: SIG_DFL installs no handler.
            unsafe { signal(ignored, SigHandler::SigDfl).unwrap() };
        }
        match env::var_os(BIN_DIR) {
            Some(folder) => Programs::in_directory(folder.as_ref()).unwrap(),
            None => Programs::build(&[]).unwrap(),
        }
    });
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests start containers, which takes root: install sudo and run `cargo test` again"
    );
    PROGRAMS.path(package).unwrap()
}

/// The program of the newest step that has a root filesystem of its own.
pub fn step04() -> &'static Path {
    step("step04-pivot-root")
}

/// The variables by which `.ci/run` says how cargo builds. Who loses them builds all of it once more.
pub const HOW_CARGO_BUILDS: [&str; 2] = ["CARGO_INCREMENTAL", "CARGO_PROFILE_DEV_DEBUG"];

/// A folder that everybody may enter, which goes away at the end.
pub fn folder() -> TempDir {
    begin();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A root filesystem of this machine's programs, shared by the tests that run at the same time and
/// change nothing in it. The last of them takes it away.
pub struct Root(Arc<TempDir>);

impl Root {
    pub fn shared() -> Root {
        static SHARED: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
        Root::in_common(&SHARED)
    }

    /// Another one, to whose files other names are given. Who reads a file meanwhile sees that as a change: tar(1) does, of
    /// an archive's root.
    pub fn for_links() -> Root {
        static SHARED: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
        Root::in_common(&SHARED)
    }

    fn in_common(shared: &Mutex<Weak<TempDir>>) -> Root {
        // A test that failed while it held the lock has spoilt nothing.
        let mut shared = shared
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(root) = shared.upgrade() {
            return Root(root);
        }
        let folder = Arc::new(folder());
        run(script("from-host.sh")
            .arg("--small")
            .arg(folder.path().join("root")));
        *shared = Arc::downgrade(&folder);
        Root(folder)
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("root")
    }

    /// A copy that a test may break, at `to`.
    pub fn copy(&self, to: &Path) {
        run(Command::new("cp").arg("-a").arg(self.path()).arg(to));
    }
}

/// A root of Debian that the tests of a run have in common, and change nothing in; `None`: there is none to be had.
pub fn debian() -> Option<PathBuf> {
    static MADE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        if !have("debootstrap", "debootstrap") {
            return None;
        }
        let folder = folder().keep();
        let root = folder.join("debian");
        *FOLDER.lock().unwrap() = Some(folder);
        // SAFETY: `remove` takes nothing, and unwinds into nobody.
        unsafe { libc::atexit(remove) };
        let made = script("debian.sh").arg(&root).output().unwrap();
        let said = || String::from_utf8_lossy(&made.stderr).into_owned();
        if !made.status.success() {
            skip(&format!("no Debian could be fetched: {}", said()));
        } else {
            // Nothing that debootstrap logged is left.
            let beside = fs::read_dir(root.parent().unwrap()).unwrap();
            assert_eq!(beside.count(), 1);
        }
        made.status.success().then_some(root)
    });
    static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);
    extern "C" fn remove() {
        if let Some(folder) = FOLDER.lock().ok().and_then(|mut folder| folder.take()) {
            let _ = fs::remove_dir_all(folder);
        }
    }
    begin();
    MADE.clone()
}

/// A root with this checker in it, for attacks, and whatever else is named in `programs`.
pub fn armed_root(folder: &Path, programs: &[&str]) -> PathBuf {
    let root = folder.join("armed");
    let common = [
        "sh", "cat", "ls", "id", "sleep", "rm", "mkdir", "mknod", "head", "grep", "stat", "tty",
        "stty", "mount", "true", "echo", "env", "touch", "wc", "chmod", "ln", "cp",
    ];
    run(script("from-host.sh")
        .arg(&root)
        .args(common)
        .args(programs)
        .arg(progress()));
    root
}

/// Gives this thread a mount namespace of its own, in which whatever it starts is, too: what is mounted here nobody else
/// sees, who looks meanwhile whether the host stays as it was. See unshare(2), mount_namespaces(7).
pub fn mount_apart() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, flags, none).unwrap();
}

/// A file that is held, and neither opened nor followed: O_PATH in open(2).
pub fn held(path: &Path) -> OwnedFd {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).unwrap()
}

/// A script of rootfs-scripts/.
pub fn script(name: &str) -> Command {
    begin();
    Command::new(workspace().join("rootfs-scripts").join(name))
}

/// Another user, without a capability, who runs `program`, which has to lie where they can reach it.
pub fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command.env_remove("RUST_BACKTRACE");
    command
}

/// A copy in `folder` of the program of a step, for everybody.
pub fn copy_of(package: &str, folder: &Path) -> PathBuf {
    let copy = folder.join(package);
    copy_program(step(package), &copy);
    copy
}

/// Copies a program, which can be executed at once. Had we opened the copy ourselves, a process that another test
/// starts at this moment could still have it open for writing: ETXTBSY.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    run(Command::new("cp").arg(from.as_ref()).arg(to.as_ref()));
}

/// Writes a program that can be executed at once, as [`copy_program`] does.
pub fn write_program(path: &Path, bytes: impl AsRef<[u8]>) {
    assert_cmd::Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .write_stdin(bytes.as_ref())
        .assert()
        .success();
}

/// Runs a command that must succeed, and returns its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    command.stdin(Stdio::null()).assert().success().printed()
}

/// What a run printed, beside what [`Assert`] itself looks at.
pub trait Printed {
    /// All of its standard output.
    fn printed(&self) -> String;
    /// All of its standard error.
    fn errors(&self) -> String;
    /// Fails unless `words` are on its standard output.
    fn prints(&self, words: &str) -> &Self;
    /// Fails unless `words` are on its standard error.
    fn complains(&self, words: &str) -> &Self;
}

impl Printed for Assert {
    fn printed(&self) -> String {
        String::from_utf8_lossy(&self.get_output().stdout).into_owned()
    }

    fn errors(&self) -> String {
        String::from_utf8_lossy(&self.get_output().stderr).into_owned()
    }

    #[track_caller]
    fn prints(&self, words: &str) -> &Assert {
        assert!(
            self.printed().contains(words),
            "standard output lacks {words:?}\n{self}"
        );
        self
    }

    #[track_caller]
    fn complains(&self, words: &str) -> &Assert {
        assert!(
            self.errors().contains(words),
            "standard error lacks {words:?}\n{self}"
        );
        self
    }
}

/// Runs a shell script on a pretend host that must be the same afterwards.
#[track_caller]
pub fn on_host(propagation: Propagation, shell: &str, arguments: &[&str]) -> Assert {
    let command = [&["bash", "-c", shell, "bash"], arguments].concat();
    let mut host = on_pretend_host(progress(), propagation, &command);
    // What a container shows mustn't depend on who runs the tests.
    host.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    let ran = host.assert();
    assert_ne!(exit_code(ran.get_output().status), CHANGED, "{ran}");
    ran
}

/// Whether `tool` is installed. Without it a test is skipped aloud on a person's machine, and fails
/// where CI is true.
pub fn have(tool: &str, package: &str) -> bool {
    begin();
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(tool).is_file());
    if !found {
        skip(&format!(
            "{tool} isn't installed: apt-get install {package}"
        ));
    }
    found
}

/// Says that a test can't run here, and why.
pub fn skip(reason: &str) {
    assert!(
        env::var("CI").as_deref() != Ok("true"),
        "under CI this test has to run: {reason}"
    );
    say(&format!("SKIPPED: {reason}"));
}

/// Set in the virtual machine with the second kernel.
pub const INSIDE: &str = "TEN_STEPS_SECOND_KERNEL";

/// Where the programs of the steps are in there: there is no cargo.
pub const BIN_DIR: &str = "TEN_STEPS_BIN_DIR";

/// Whether we are in there.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Set while the suites run for the sake of one of their own tests.
pub const NESTED: &str = "TEN_STEPS_NESTED";

/// Whether that is so: what the outer run tests anyway is left out.
pub fn nested() -> bool {
    begin();
    env::var_os(NESTED).is_some()
}
