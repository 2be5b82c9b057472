//! Step 6: what a container's root may do, and which attacks that ends.

use crate::attacks::tried;
use crate::stage::dock::Dock;
use crate::stage::{
    DIRECT, Printed, Root, armed_root, folder, have, inside, progress, run, skip, step,
};
use assert_cmd::assert::OutputAssertExt;
use progress::attacks::attacker::CALLS;
use progress::host::container::{Container, RunOutcome, run as run_program};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use step06_caps::capabilities::permitted;

fn steps() -> &'static [&'static str] {
    &DIRECT[5..]
}

fn in_root(package: &str, root: &Path, arguments: &[&str]) -> RunOutcome {
    let flag = ["--rootfs", root.to_str().unwrap()];
    let flag = if package < "step04" { &[][..] } else { &flag };
    run_program(step(package), &[flag, arguments].concat()).unwrap()
}

/// What the attacker's calls come to in a container of a step.
fn calls(package: &str, root: &Path, flags: &[&str]) -> BTreeMap<String, String> {
    let this = progress().to_str().unwrap();
    let outcome = in_root(
        package,
        root,
        &[flags, &[this, "attacker", "calls"]].concat(),
    );
    assert_eq!(outcome.code, 0, "{package} {flags:?}: {}", outcome.errors);
    let lines = outcome
        .output
        .lines()
        .filter_map(|line| line.split_once(": "));
    lines
        .map(|(name, result)| (name.to_owned(), result.to_owned()))
        .collect()
}

/// Each attack: works in a container of step 5, fails in one of step 6 with this error. Those that this
/// kernel hasn't got at all say so in both.
const FAILS_WITH: &[(&str, &str)] = &[
    ("mount", "EPERM"),
    ("write-proc-sys", "EROFS"),
    ("open_by_handle_at", "EPERM"),
    ("init_module", "EPERM"),
    ("clock_settime", "EPERM"),
    ("unshare-user", "EPERM"),
    ("clone-user", "EPERM"),
    ("keyctl", "EPERM"),
    ("bpf", "EPERM"),
    ("io_uring_setup", "EPERM"),
    ("personality", "EPERM"),
    ("setns", "EPERM"),
    ("write-sysrq", "EROFS"),
    ("read-kcore", "ENODATA"),
];

#[test]
fn attacks_that_work_before_and_fail_after() {
    let folder = folder();
    let root = armed_root(folder.path(), &[]);
    let before = calls("step05-tty", &root, &[]);
    let mut lacking = BTreeSet::new();
    for package in steps() {
        let after = calls(package, &root, &[]);
        for (name, errno) in FAILS_WITH {
            match before[*name].as_str() {
                "works" => {
                    let _attack = tried("");
                    assert_eq!(after[*name], *errno, "{package}: {name}");
                }
                // Not in this kernel; tests/vm has another. It still is no different.
                answer => {
                    assert_ne!(after[*name], "works", "{package}: {name}");
                    lacking.insert(format!("{name}: {answer}"));
                }
            }
        }
        // Every one of them has its line here.
        let known = FAILS_WITH
            .iter()
            .map(|(name, _)| *name)
            .chain(["ptrace-of-init"]);
        assert_eq!(known.count(), CALLS.len());
    }
    // The second kernel has all of them.
    let most = if crate::stage::inside() { 0 } else { 4 };
    assert!(lacking.len() <= most, "this kernel lacks {lacking:?}");
    // Each is in the way by itself: without the filter the capabilities are, and the other way round.
    let capabilities_only = calls(
        "step06-caps",
        &root,
        &["--security-opt", "seccomp=unconfined"],
    );
    for name in ["mount", "open_by_handle_at", "clock_settime", "setns"] {
        assert_eq!(capabilities_only[name], "EPERM", "{name}");
    }
    assert_eq!(capabilities_only["write-proc-sys"], "EROFS");
    let all = calls("step06-caps", &root, &["--privileged"]);
    for name in [
        "mount",
        "write-proc-sys",
        "unshare-user",
        "setns",
        "personality",
    ] {
        assert_eq!(all[name], "works", "--privileged: {name}");
    }
    let open = calls(
        "step06-caps",
        &root,
        &["--security-opt", "systempaths=unconfined"],
    );
    assert_eq!(open["write-proc-sys"], "works", "systempaths=unconfined");
    // Which says nothing of /sys.
    let line = "grep ' /sys ' /proc/self/mountinfo | cut -d ' ' -f 6 | cut -d , -f 1";
    for (flag, wanted) in [
        ("--security-opt=systempaths=unconfined", "ro\n"),
        ("--privileged", "rw\n"),
    ] {
        let shared = Root::shared();
        let outcome = in_root("step06-caps", &shared.path(), &[flag, "sh", "-c", line]);
        assert_eq!(outcome.output, wanted, "{flag}: {}", outcome.errors);
    }
}

/// Climbing out by a second chroot works where the root is the host's, and not from step 4 on.
#[test]
fn a_second_chroot_does_not_lead_out() {
    let _attack = tried("");
    let folder = folder();
    let root = armed_root(folder.path(), &[]);
    let marker = folder.path().join("marker");
    fs::write(&marker, "").unwrap();
    let this = progress().to_str().unwrap();
    for package in &DIRECT[2..] {
        let climb = [this, "attacker", "climb", marker.to_str().unwrap()];
        let outcome = in_root(package, &root, &climb);
        let wanted = if *package < "step04" {
            "climbed: true"
        } else {
            "climbed: false"
        };
        assert_eq!(
            outcome.output.trim(),
            wanted,
            "{package}: {}",
            outcome.errors
        );
    }
    let _ = fs::remove_dir("/tmp/ladder");
}

/// A setuid program of root's makes somebody root, and with no_new_privs it doesn't.
#[test]
fn a_setuid_program_gives_nothing() {
    let _attack = tried("");
    let folder = folder();
    let root = armed_root(folder.path(), &[]);
    let inside = root.join(progress().strip_prefix("/").unwrap());
    std::os::unix::fs::chown(&inside, Some(0), Some(0)).unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o4755)).unwrap();
    let this = progress().to_str().unwrap();
    // Everybody may go there.
    for above in inside
        .ancestors()
        .skip(1)
        .take_while(|above| *above != root)
    {
        fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for package in steps() {
        let user = ["-u", "4711", this, "attacker", "user"];
        assert_eq!(
            in_root(package, &root, &user).output,
            "euid 4711\n",
            "{package}"
        );
        let off = ["--security-opt", "no-new-privileges=false"];
        assert_eq!(
            in_root(package, &root, &[&off[..], &user].concat()).output,
            "euid 0\n",
            "{package}"
        );
    }
}

/// All capabilities in each set, and those that were asked for.
#[test]
fn capabilities_are_what_was_asked_for() {
    let root = Root::shared();
    let may = permitted();
    let masks = |package, flags: &[&str]| {
        let outcome = in_root(
            package,
            &root.path(),
            &[flags, &["cat", "/proc/self/status"]].concat(),
        );
        let mask = |key: &str| {
            let line = outcome
                .output
                .lines()
                .find_map(|line| line.strip_prefix(key));
            u64::from_str_radix(
                line.unwrap_or_else(|| panic!("{}", outcome.errors)).trim(),
                16,
            )
            .unwrap()
        };
        ["CapBnd:", "CapPrm:", "CapEff:", "CapInh:", "CapAmb:"].map(mask)
    };
    for package in steps() {
        let default = 0xa804_25fb & may;
        assert_eq!(masks(package, &[]), [default, default, default, 0, 0]);
        assert_eq!(masks(package, &["--privileged"]), [may, may, may, 0, 0]);
        assert_eq!(masks(package, &["--cap-add", "all"]), [may, may, may, 0, 0]);
        assert_eq!(masks(package, &["--cap-drop", "all"]), [0; 5]);
        assert_eq!(
            masks(
                package,
                &["--init", "--cap-drop", "ALL", "--cap-add", "cap_kill"]
            ),
            [32, 32, 32, 0, 0]
        );
        assert_eq!(
            masks(package, &["-u", "4711", "--cap-add", "sys_admin"]),
            [default | 1 << 21, 0, 0, 0, 0]
        );
    }
}

/// Who somebody is, the container's own files say; his home follows, unless somebody gives another.
#[test]
fn users_are_the_roots_own() {
    let folder = folder();
    let root = folder.path().join("root");
    Root::shared().copy(&root);
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nada:x:1001:1002::/home/ada:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nada:x:1002:\nsudo:x:27:ada\naudio:x:29:root,ada\n",
    )
    .unwrap();
    let line = "id -u; id -g; id -G; echo $HOME";
    for package in steps() {
        let said =
            |flags: &[&str]| in_root(package, &root, &[flags, &["sh", "-c", line]].concat()).output;
        assert_eq!(
            said(&["-u", "ada"]),
            "1001\n1002\n1002 27 29\n/home/ada\n",
            "{package}"
        );
        assert_eq!(said(&["-u", "1001"]), said(&["-u", "ada"]), "{package}");
        assert_eq!(
            said(&["-u", "ada:audio"]),
            "1001\n29\n29\n/home/ada\n",
            "{package}"
        );
        assert_eq!(
            said(&["-u", "ada", "-e", "HOME=/tmp"]),
            "1001\n1002\n1002 27 29\n/tmp\n",
            "{package}"
        );
        assert_eq!(said(&[]), "0\n0\n0 29\n/root\n", "{package}");
        // A file that is a trap, or a link to nowhere, says nothing.
        fs::rename(root.join("etc/group"), root.join("etc/group.real")).unwrap();
        run(Command::new("mkfifo").arg(root.join("etc/group")));
        assert_eq!(
            said(&["-u", "ada"]),
            "1001\n1002\n1002\n/home/ada\n",
            "{package}"
        );
        fs::rename(root.join("etc/group.real"), root.join("etc/group")).unwrap();
    }
}

/// Our init never becomes another program, and still shows nothing of the host.
#[test]
fn an_init_tells_nothing_of_the_host() {
    let _attack = tried("");
    let root = Root::shared();
    for package in &DIRECT[1..] {
        let mut program = Command::new(step(package));
        program
            .env("SECRET", "canary-4711")
            .args(crate::stage::usual(package, &root.path()));
        let line = "cat /proc/1/environ /proc/1/exe 2>/dev/null | head -c 4000000 | tr '\\0' '\\n' | grep canary-4711; ls -l /proc/1/exe /proc/1/fd";
        let ran = program.args(["--init", "sh", "-c", line]).assert();
        let said = ran.printed();
        // Before chapter 3 /proc is the host's, and its PID 1 another.
        if *package >= "step03" {
            assert!(!said.contains("canary"), "{ran}");
        }
        if *package >= "step06" {
            assert!(!said.contains(" -> "), "{ran}");
        }
    }
}

/// PID 1 of ours is as confined as the command behind it.
#[test]
fn an_init_is_confined_too() {
    let root = Root::shared();
    for package in steps() {
        let arguments = [
            "--rootfs",
            root.path().to_str().unwrap(),
            "-i",
            "--init",
            "-u",
            "4711:4712",
            "sh",
            "-c",
            "echo ready; read end",
        ]
        .map(str::to_owned);
        let container = Container::start(step(package), &arguments).unwrap();
        let init = container.first_process();
        let command = init.children()[0];
        for key in [
            "Uid",
            "Gid",
            "Groups",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
        ] {
            assert_eq!(
                init.status(key).unwrap(),
                command.status(key).unwrap(),
                "{package}: {key}"
            );
        }
        assert_eq!(init.status("Seccomp").unwrap(), "2");
    }
}

/// A profile of somebody's own, with every kind of condition.
#[test]
fn a_profile_is_obeyed() {
    let folder = folder();
    let root = Root::shared();
    let profile = folder.path().join("profile.json");
    let rules = |rules: &str| {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}}], "syscalls": [{rules}]}}"#
        );
        fs::write(&profile, text).unwrap();
    };
    let option = format!("seccomp={}", profile.display());
    let attempt = |flags: &[&str], line: &str| {
        let arguments = [&["--security-opt", &option][..], flags, &["sh", "-c", line]].concat();
        in_root("step06-caps", &root.path(), &arguments)
    };
    rules(r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}"#);
    let refused = attempt(&[], "mkdir /tmp/profile");
    assert!(
        refused.errors.contains("No space left on device"),
        "{}",
        refused.errors
    );
    rules(r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}"#);
    // 128 + SIGSYS
    assert_eq!(attempt(&[], "mkdir /tmp/profile; exit $?").code, 159);
    rules(
        r#"{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}"#,
    );
    let chosen = attempt(&[], "kill -USR2 1; kill -USR1 1");
    assert!(
        chosen.errors.contains("not permitted") && chosen.errors.trim().lines().count() == 1,
        "{}",
        chosen.errors
    );
    let only = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_PTRACE"]}}"#;
    rules(only);
    assert_ne!(
        attempt(&[], "mkdir /tmp/profile && rmdir /tmp/profile").code,
        0
    );
    if permitted() >> 19 & 1 == 1 {
        let line = "mkdir /tmp/profile && rm -r /tmp/profile";
        assert_eq!(attempt(&["--cap-add", "SYS_PTRACE"], line).code, 0);
    }
    // An init of ours gets along with Docker's own refusal of clone3.
    assert_eq!(
        in_root("step06-caps", &root.path(), &["--init", "true"]).code,
        0
    );
    fs::write(&profile, "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"opne\"], \"action\": \"SCMP_ACT_ERRNO\"}]}").unwrap();
    // A call that nobody knows may be newer than we are: as for runc that is no error, but it is said.
    let unknown = attempt(&[], "true");
    assert_eq!(unknown.code, 0);
    let words = [
        "warning: ",
        "profile.json: no architecture has a system call \"opne\"",
    ];
    for words in words {
        assert!(unknown.errors.contains(words), "{}", unknown.errors);
    }
    // What is wrong is told by the name of the user's file.
    fs::write(&profile, "{\"defaultAction\": \"SCMP_ACT_ALOW\"}").unwrap();
    let wrong = attempt(&[], "true");
    assert_eq!(wrong.code, 125);
    let words = "profile.json: unknown action \"SCMP_ACT_ALOW\"";
    assert!(wrong.errors.contains(words), "{}", wrong.errors);
    // The profile of podman and buildah, as Debian has it.
    let theirs = Path::new("/usr/share/containers/seccomp.json");
    if theirs.exists() {
        fs::copy(theirs, &profile).unwrap();
        let ran = attempt(&[], "unshare -U true && echo not refused");
        assert_eq!(
            (&*ran.output, ran.code == 125),
            ("", false),
            "{}",
            ran.errors
        );
        assert!(!ran.errors.contains("warning"), "{}", ran.errors);
    } else if !inside() {
        skip("podman's profile isn't here: apt-get install golang-github-containers-common");
    }
}

/// From step 9 on a container has a copy of its profile; people are told of their own file.
#[test]
fn a_profile_is_called_by_the_users_name() {
    let dock = Dock::new();
    let profile = dock.folder.path().join("mine.json");
    let option = format!("seccomp={}", profile.display());
    let attempt = |text: &str| {
        fs::write(&profile, text).unwrap();
        dock.run(&["run", "--rm", "--security-opt", &option, "true"])
    };
    let wrong = attempt("{\"defaultAction\": \"SCMP_ACT_ALOW\"}").code(125);
    let begin = format!("step10-exec: --security-opt {option}: unknown action");
    assert!(wrong.errors().starts_with(&begin), "{wrong}");
    let rule = "{\"names\": [\"opne\"], \"action\": \"SCMP_ACT_ERRNO\"}";
    let typo = format!("{{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{rule}]}}");
    let warned = attempt(&typo).success();
    let words = format!("{option}: no architecture has a system call \"opne\"");
    assert!(warned.errors().contains(&words), "{warned}");
}

/// 32-bit programs are under the same filter, by their own numbers.
#[test]
fn other_architectures_are_filtered() {
    if !cfg!(target_arch = "x86_64") || !have("gcc", "gcc") {
        return;
    }
    let _attack = tried("");
    let folder = folder();
    let root = armed_root(folder.path(), &[]);
    // mkdir is 39 and getpid 20 where it is done by int 0x80, and 83 and 39 on x86-64. Not the x32 way.
    let source = "#include <unistd.h>
        static long call(long n, long a) { long r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(n), \"b\"(a) : \"memory\"); return r; }
        int main(int argc, char **argv) { return argc > 1 ? syscall(0x40000000 + 39) != getpid() : call(310, 0x10000000) == -1 ? 1 : 0; }";
    let program = root.join("calls");
    let mut gcc = Command::new("gcc");
    gcc.args(["-x", "c", "-static", "-o"])
        .arg(&program)
        .arg("-");
    gcc.stdin(std::process::Stdio::piped());
    let mut gcc = gcc.spawn().unwrap();
    use std::io::Write;
    gcc.stdin
        .take()
        .unwrap()
        .write_all(source.as_bytes())
        .unwrap();
    assert!(gcc.wait().unwrap().success());
    for package in steps() {
        // unshare(CLONE_NEWUSER), 310 there: EPERM by its number.
        let outcome = in_root(package, &root, &["/calls"]);
        assert_eq!(outcome.code, 1, "{package}: unshare by int 0x80");
        assert_ne!(
            in_root(package, &root, &["/calls", "x32"]).code,
            0,
            "{package}: the x32 way in"
        );
    }
}

#[test]
fn what_cannot_be_is_said_in_a_line() {
    let root = Root::shared();
    for (arguments, words) in [
        (
            &["--cap-add", "sys_admni"][..],
            &["--cap-add", "sys_admni", "SYS_ADMIN"][..],
        ),
        (&["--cap-drop", ""], &["--cap-drop"]),
        (
            &["-u", "nobodyhere"],
            &["-u nobodyhere", "/etc/passwd", "it has root"],
        ),
        (
            &["-u", "root:nogrouphere"],
            &["-u root:nogrouphere", "/etc/group"],
        ),
        (&["-u", "4294967295"], &["--user", "4294967294"]),
        (
            &["--security-opt", "apparmor=x"],
            &["--security-opt", "apparmor=x", "seccomp=FILE"],
        ),
        (
            &["--security-opt", "seccomp=/no/such/file"],
            &["--security-opt seccomp=/no/such/file", "No such file"],
        ),
        (
            &["--network", "bridge"],
            &["--network", "bridge", "none", "host"],
        ),
    ] {
        for package in steps() {
            let outcome = in_root(package, &root.path(), &[arguments, &["true"]].concat());
            assert_eq!(outcome.code, 125, "{arguments:?}: {}", outcome.errors);
            for word in words {
                assert!(
                    outcome.errors.contains(word),
                    "{arguments:?}: {}",
                    outcome.errors
                );
            }
        }
    }
    if permitted() >> 24 & 1 == 0 {
        let outcome = in_root(
            "step06-caps",
            &root.path(),
            &["--cap-add", "SYS_RESOURCE", "true"],
        );
        assert!(
            outcome.errors.contains("hasn't got it itself"),
            "{}",
            outcome.errors
        );
    }
}

/// The host's network has the host's interfaces, and still the container's own names.
#[test]
fn the_hosts_network() {
    let root = Root::shared();
    let hosts = fs::read_link("/proc/self/ns/net").unwrap();
    for package in steps() {
        let arguments = [
            "--rootfs",
            root.path().to_str().unwrap(),
            "-i",
            "--network",
            "host",
            "sh",
            "-c",
            "echo ready; read end",
        ]
        .map(str::to_owned);
        let container = Container::start(step(package), &arguments).unwrap();
        let first = container.first_process();
        assert_eq!(
            first.namespace("net").unwrap(),
            hosts.to_string_lossy(),
            "{package}"
        );
        assert_ne!(
            first.namespace("uts").unwrap(),
            fs::read_link("/proc/self/ns/uts")
                .unwrap()
                .to_string_lossy()
        );
    }
}
