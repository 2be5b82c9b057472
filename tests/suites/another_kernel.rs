//! A second kernel, an older one, on which control groups are of version 2: a small virtual machine, in which
//! runs again what one of the two can change. All else runs once, on this machine.
//!
//! The suite's name has it begin first: the machine is booted once, and runs beside all others.

use crate::stage::times::{TITLE, say};
use crate::stage::{
    BIN_DIR, INSIDE, STEPS, folder, have, nested, probe, progress, run, script, skip, step,
};
use progress::programs::workspace;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
        // The checks call a learner's functions one by one, too.
        programs.extend(Some(probe(package)).filter(|probe| probe.exists()));
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
    // What the checks are to say lies beside the sources, and so do the book's pages.
    for texts in [
        "tests/suites/course/snapshots",
        "tests/suites/steps/snapshots",
        "book/src",
    ] {
        let texts = workspace().join(texts);
        let there = root.join(texts.strip_prefix("/").unwrap());
        fs::create_dir_all(&there).unwrap();
        for entry in fs::read_dir(texts).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                fs::copy(entry.path(), there.join(entry.file_name())).unwrap();
            }
        }
    }
    let environment = format!(
        "export {INSIDE}=yes {BIN_DIR}=/bin-dir TEN_STEPS_NESTED=yes TEN_STEPS_PATIENCE=60 HOME=/root RUST_BACKTRACE=0 \
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

/// What nobody judges there, and what takes a processor in software most of its time. Code is translated for the address at
/// which it runs: where each process has addresses of its own, all of it again for each. Nobody attacks this machine
/// from outside, nor by what a page held before; and its other clock is a device, which takes an exit to be read.
const QUICK: &str = "norandmaps mitigations=off init_on_alloc=0 tsc=reliable";

/// A processor that does nothing in large words: what is one instruction of a newer one, software does byte by byte.
const PLAINEST: &str = "qemu64";

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
    let output = Command::new("qemu-system-x86_64")
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            PLAINEST,
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
        .arg("-append")
        .arg(format!(
            "console=ttyS0 quiet panic=-1 loop.max_loop=4 {QUICK}"
        ))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Some(String::from_utf8_lossy(&output.stdout).replace('\r', ""))
}

/// What is judged there, by a name or the beginning of some; and what could be otherwise there.
const JUDGED: &[(&str, &[&str])] = &[
    (
        "the checks of the chapters that make groups: a learner's machine has version 2",
        &["course::checks::our_solution_holds_from_chapter_7_on"],
    ),
    (
        "what a reader types by hand: version 2 prints other lines in places, and has rules of its own",
        &["course::book::by_hand_on_version_2_of_control_groups"],
    ),
    (
        "groups: their files, their controllers, who hands them on, and BPF for devices",
        &[
            "steps::groups::a_controller_that_is_missing_is_named",
            "steps::groups::a_setting_of_any_controller",
            "steps::limits::a_fork_bomb_stops_at_its_limit",
            "steps::limits::a_quarter_of_a_processor",
            "steps::limits::devices",
            "steps::groups::groups_at_a_given_path",
            "steps::groups::groups_below_go_too",
            "steps::groups::many_at_once",
            "steps::limits::memory_runs_out_for_one_and_not_for_its_neighbour",
            "steps::groups::no_group_is_left_behind",
            "steps::groups::several_are_the_first",
            "steps::limits::statistics",
            "steps::groups::the_container_sees_its_own_groups",
            "steps::groups::the_last_one_takes_the_one_above_along",
            "steps::groups::where_somebody_is_already",
            "steps::limits::values_are_in_the_files",
            "steps::limits::what_cannot_be_is_said_in_a_line",
            "steps::looking::top_and_stats",
        ],
    ),
    (
        "the freezer, which hears SIGKILL, and the kernel's own word on who ran out of memory",
        &[
            "steps::commits::a_commit_survives_the_lack_of_memory",
            "steps::lifecycle::commit_while_it_runs",
            "steps::lifecycle::inspect_tells_all",
            "steps::lifecycle::it_holds_still_for_a_commit",
            "steps::lifecycle::one_that_is_being_restarted_can_be_stopped",
            "steps::lifecycle::pause_waits_for_a_commit",
            "steps::lifecycle::pause_waits_for_a_stop",
            "steps::lifecycle::policies_start_it_again",
            "steps::lifecycle::the_life_of_a_container",
        ],
    ),
    (
        "groups that somebody left behind",
        &[
            "steps::layers::the_next_run_sweeps",
            "steps::lifecycle::a_start_can_be_given_up",
            "steps::surviving::a_damaged_record_of_one_that_runs",
            "steps::surviving::after_a_power_failure_all_is_put_right",
            "steps::surviving::an_orphan_is_not_forgotten",
            "steps::surviving::boot_starts_what_asked_for_it",
            "steps::surviving::the_truth_after_a_kill",
        ],
    ),
    (
        "who comes in joins a group first",
        &[
            "steps::joining::exit_codes_and_explanations",
            "steps::joining::it_dies_with_the_container",
            "steps::joining::no_device_is_opened_for_the_container",
            "steps::joining::privileged_is_said_so",
            "steps::joining::who_sees_no_groups_does_not_come_in",
            "steps::joining::who_has_groups_of_his_own",
            "steps::joining::whoever_comes_too_late_is_told",
        ],
    ),
    (
        "the kernel's age: overlayfs, the mount API, setns by pidfd",
        &[
            "attacks::files::an_archive_is_written_beside_nothing",
            "steps::commits::a_commit_has_what_the_container_saw",
            "steps::joining::nothing_of_the_host_is_open",
            "steps::layers::a_hundred_layers_and_odd_names",
            "steps::layers::all_of_it_on_busybox",
            "steps::layers::changes_are_kept_on_demand",
            "steps::layers::mounts_go_from_the_top_down",
            "steps::layers::propagation_means_what_it_says",
            "steps::layers::tmpfs_and_read_only",
            "steps::layers::volumes",
            "steps::looking::diff_of_several_layers",
            "steps::looking::diff_tells_of_every_change",
        ],
    ),
    (
        "the runtime's groups: each property in the files of version 2",
        &[
            "runtime::commands::updates",
            "runtime::mounts::control_groups",
            "runtime::resources::a_limit_of_no_process",
            "runtime::resources::paths_of_control_groups",
            "runtime::resources::rules_for_devices",
            "runtime::resources::throttled_disks",
            "runtime::resources::values_are_in_the_files",
            "runtime::resources::what_this_machine_cannot_limit",
        ],
    ),
    (
        "the kernel's age: seccomp, what there is to attack, and what descriptors a command inherits",
        &[
            "steps::privileges::a_profile_is_obeyed",
            "steps::privileges::attacks_that_work_before_and_fail_after",
            "steps::privileges::capabilities_are_what_was_asked_for",
            "steps::privileges::other_architectures_are_filtered",
            "steps::signals::nothing_is_inherited_by_accident",
        ],
    ),
];

/// Other tests to run there, by hand: words for the harness, instead of the list.
const THERE: &str = "TEN_STEPS_THERE";

#[test]
fn judges_what_it_can_change() {
    let suites = std::env::current_exe().unwrap();
    let names = JUDGED.iter().flat_map(|(_, names)| *names);
    let names: Vec<&str> = names.copied().collect();
    let by_hand = std::env::var(THERE).ok();
    let filters = match &by_hand {
        Some(filters) => filters.clone(),
        None => format!("--exact {}", names.join(" ")),
    };
    let suites = suites.display();
    let command = format!("{suites} --color never --test-threads 2 {filters}\n");
    let Some(said) = boot(&command) else { return };
    assert!(said.contains("controllers cpuset cpu "), "{said}");
    // All that it said is long.
    if let Some((_, failures)) = said.split_once("\nfailures:\n") {
        panic!("{failures}");
    }
    assert!(said.contains("second kernel ends with 0\n"), "{said}");
    if by_hand.is_some() {
        return println!("{said}");
    }
    // Each of them ran: one that is called otherwise by now would be missing.
    let all = format!(
        "test result: ok. {} passed; 0 failed; 0 ignored;",
        names.len()
    );
    assert!(said.contains(&all), "{said}");
    if let Some((_, times)) = said.split_once(TITLE) {
        say(&format!("The second kernel:{TITLE}{times}"));
    }
}
