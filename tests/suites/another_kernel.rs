//! A second kernel, on which control groups are of version 2: a small virtual machine, in which the
//! checks of all steps and the suites of steps 5 to 10 run again, and the attacks that this machine's kernel
//! has nothing to attack for.

use crate::stage::{STEPS, folder, have, nested, progress, run, script, skip, step};
use progress::programs::workspace;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set in the virtual machine.
pub const INSIDE: &str = "TEN_STEPS_SECOND_KERNEL";

/// Where the programs of the steps are in there: there is no cargo.
pub const BIN_DIR: &str = "TEN_STEPS_BIN_DIR";

/// Whether we are in there.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// What the suites call.
const PROGRAMS: &[&str] = &[
    "bash",
    "sh",
    "setpriv",
    "unshare",
    "losetup",
    "find",
    "dd",
    "truncate",
    "mkfifo",
    "mktemp",
    "tar",
    "sha256sum",
    "xargs",
    "timeout",
    "sort",
    "ldd",
    "ldconfig",
    "dirname",
    "basename",
    "rmdir",
    "date",
    "printf",
    "expr",
    "awk",
    "tr",
    "cut",
    "seq",
    "nproc",
    "ps",
    "ip",
    "mount",
    "umount",
    "uname",
    "hostname",
    "cat",
    "ls",
    "cp",
    "mv",
    "rm",
    "ln",
    "chmod",
    "chown",
    "mknod",
    "mkdir",
    "touch",
    "head",
    "tail",
    "wc",
    "sed",
    "grep",
    "sleep",
    "kill",
    "id",
    "env",
    "true",
    "false",
    "stat",
    "readlink",
    "tty",
    "stty",
    "yes",
    "chroot",
    "tee",
    "test",
    "uniq",
    "echo",
];

/// The kernel that `tests/vm/fetch` has got: the image, and the folder of its modules.
fn kernel() -> Option<(PathBuf, PathBuf)> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), PathBuf::from);
    let kernel = target.join("vm/kernel");
    let boot = fs::read_dir(kernel.join("boot")).ok()?;
    let image = boot
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("/vmlinuz-"))?;
    let modules = fs::read_dir(kernel.join("lib/modules"))
        .ok()?
        .flatten()
        .next()?
        .path();
    Some((image, modules.join("kernel")))
}

/// An initramfs with the programs, their libraries, and `command` for its init.
fn initramfs(folder: &Path, modules: &Path, command: &str) -> PathBuf {
    let root = folder.join("root");
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    let suites = std::env::current_exe().unwrap();
    let mut programs = vec![suites, progress().to_owned()];
    for package in STEPS {
        programs.push(step(package).to_owned());
    }
    run(script("from-host.sh")
        .arg(&root)
        .args(PROGRAMS)
        .args(&programs));
    // Without what only a debugger reads, they fit.
    for program in &programs {
        run(Command::new("strip").arg(root.join(program.strip_prefix("/").unwrap())));
    }
    fs::create_dir_all(root.join("bin-dir")).unwrap();
    for package in STEPS {
        symlink(step(package), root.join("bin-dir").join(package)).unwrap();
    }
    let scripts = root.join(
        workspace()
            .join("rootfs-scripts")
            .strip_prefix("/")
            .unwrap(),
    );
    fs::create_dir_all(scripts.parent().unwrap()).unwrap();
    run(Command::new("cp")
        .arg("-a")
        .arg(workspace().join("rootfs-scripts"))
        .arg(&scripts));
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
        .unwrap();
    let place = root.join("bin").canonicalize().unwrap();
    let place = if place.starts_with(&root) {
        place
    } else {
        root.join("usr/bin")
    };
    fs::copy(busybox, place.join("busybox")).unwrap();
    fs::copy(workspace().join("tests/vm/init"), root.join("init")).unwrap();
    fs::create_dir(root.join("modules")).unwrap();
    for module in ["fs/overlayfs/overlay.ko", "drivers/block/loop.ko"] {
        let file = modules.join(module);
        fs::copy(&file, root.join("modules").join(file.file_name().unwrap())).unwrap();
    }
    // What the checks are to say lies beside the sources.
    let snapshots = Path::new("tests/suites/snapshots");
    let there = root
        .join(workspace().strip_prefix("/").unwrap())
        .join(snapshots);
    fs::create_dir_all(&there).unwrap();
    for entry in fs::read_dir(workspace().join(snapshots)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), there.join(entry.file_name())).unwrap();
    }
    let environment = format!(
        "export {INSIDE}=yes {BIN_DIR}=/bin-dir TEN_STEPS_NESTED=yes TEN_STEPS_PATIENCE=20 HOME=/root RUST_BACKTRACE=0 \
         INSTA_WORKSPACE_ROOT={}\n",
        workspace().display()
    );
    fs::write(root.join("command"), environment + command).unwrap();
    let archive = folder.join("initramfs");
    let shell = "cd \"$0\" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >\"$1\"";
    run(Command::new("sh")
        .args(["-c", shell])
        .arg(&root)
        .arg(&archive));
    archive
}

/// Boots the kernel with `command` and returns what it printed.
fn boot(command: &str) -> Option<String> {
    if nested() {
        return None;
    }
    if !cfg!(target_arch = "x86_64") {
        skip("the second kernel is for x86-64");
        return None;
    }
    if !have("qemu-system-x86_64", "qemu-system-x86")
        || !have("busybox", "busybox-static")
        || !have("strip", "binutils")
    {
        return None;
    }
    let Some((image, modules)) = kernel() else {
        skip("there is no second kernel: tests/vm/fetch gets it");
        return None;
    };
    let folder = folder();
    let initramfs = initramfs(folder.path(), &modules, command);
    // A machine in software takes all the time that there is, and can wait: other tests can't.
    let output = Command::new("nice")
        .arg("qemu-system-x86_64")
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "4G",
        ])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 loop.max_loop=4"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Some(String::from_utf8_lossy(&output.stdout).replace('\r', ""))
}

#[test]
fn the_second_kernel() {
    let suites = std::env::current_exe().unwrap();
    let filters = "checks::our_solution_holds limits:: privileges:: layers:: commits:: archives:: terminal::a_shell_without_flags \
        terminal::names_are_bound_in terminal::input_is_passed_on faults::commands_that_end_badly signals::nothing_is_inherited \
        lifecycle:: attached:: monitors:: surviving:: joining:: copying:: looking:: crowd::two_hundred";
    let command = format!(
        "{} --color never --test-threads 2 --skip the_hosts_program {filters}\n",
        suites.display()
    );
    let Some(said) = boot(&command) else { return };
    // What matters most comes first: it is long.
    let failures = said
        .split_once("\nfailures:\n")
        .map_or("", |(_, rest)| rest);
    let said = format!("{failures}\nAll of it:\n{said}");
    assert!(said.contains("controllers cpuset cpu "), "{said}");
    assert!(said.contains("second kernel ends with 0\n"), "{said}");
    let running = said.lines().find_map(|line| line.strip_prefix("running "));
    let result = said
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. "));
    let (passed, rest) = result
        .and_then(|line| line.split_once(' '))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(rest.starts_with("passed; 0 failed; 0 ignored;"), "{said}");
    assert_eq!(running, Some(&format!("{passed} tests")[..]), "{said}");
    assert!(passed.parse::<u32>().unwrap() > 60, "{said}");
}
