//! What the programs print and end with.

use crate::stage::redaction::{redact, transcript};
use crate::stage::{DIRECT, Printed, Root, folder, have, nested, on_host, step, step04, usual};
use assert_cmd::assert::OutputAssertExt;
use progress::host::Propagation;
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn the_exit_code_is_the_commands_own() {
    for package in DIRECT {
        let root = Root::shared();
        for (command, wanted) in [
            (&["true"][..], 0),
            (&["sh", "-c", "exit 7"], 7),
            (&["no-such-program"], 127),
            (&["/no/such/program"], 127),
            (&["/etc/passwd"], 126),
            (&["/etc"], 126),
            (&["--no-such-flag"], 125),
            (&["--init", "sh", "-c", "kill -KILL $$"], 137),
            (&["--init", "no-such-program"], 127),
            // With no command it is a shell, which ends with its input.
            (&[], 0),
        ] {
            if *package == "step01-uts" && command.first() == Some(&"--init") {
                continue;
            }
            Command::new(step(package))
                .args(usual(package, &root.path()))
                .args(command)
                .stdin(Stdio::null())
                .assert()
                .code(wanted);
        }
    }
}

/// `--verbose` tells every system call of the program, in order. From step 6 on there are some for each
/// thing that a kernel may have or not, and so only the order of those that matter is looked at.
#[test]
fn narration() {
    let root = Root::shared();
    let mut told = String::new();
    let (steady, others) = DIRECT.split_at(5);
    for package in others {
        let mut program = Command::new(step(package));
        program.arg("--verbose").args(usual(package, &root.path()));
        let said = program.arg("/bin/true").assert().success().errors();
        let mut rest = &*said;
        let calls = [
            "clone3(",
            "pivot_root(",
            "mount(\"tmpfs\", \"/dev\"",
            "setsid(",
            "capset(",
            "seccomp(",
            "execve(",
        ];
        for call in calls {
            let (_, behind) = rest
                .split_once(call)
                .unwrap_or_else(|| panic!("{package}: {call}: {said}"));
            rest = behind;
        }
    }
    for &package in steady {
        let mut program = Command::new(step(package));
        program.env_clear().arg("--verbose");
        program.args(usual(package, &root.path()));
        let ran = program.arg("/bin/true").assert();
        told.push_str(&transcript(&format!("{package} --verbose /bin/true"), &ran));
    }
    insta::assert_snapshot!(redact(&told, &[(&root.path(), "ROOT")]));
}

#[test]
fn narration_as_json_goes_to_a_file() {
    let folder = folder();
    let log = folder.path().join("log");
    let ran = Command::new(step("step03-mount"))
        .args(["--verbose", "--log-format", "json", "--log"])
        .arg(&log)
        .arg("no-such-program")
        .assert()
        .code(127);
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said = |level: &str, start: &str| {
        lines
            .iter()
            .any(|line| line["level"] == level && line["msg"].as_str().unwrap().starts_with(start))
    };
    assert!(said("debug", "clone3("), "{text}");
    assert!(said("debug", "mount(\"proc\", \"/proc\", "), "{text}");
    assert!(
        said("error", "execve(\"no-such-program\"): No such file"),
        "{text}"
    );
    // Whoever looks at the terminal sees the error too, and only that.
    assert_eq!(ran.errors().lines().count(), 1, "{ran}");
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    Command::new(step("step01-uts"))
        .args(["--log", "/no/such/log", "true"])
        .assert()
        .code(125)
        .complains("--log /no/such/log");
}

#[test]
fn help() {
    let told: String = DIRECT
        .iter()
        .map(|package| {
            let ran = Command::new(step(package)).arg("--help").assert();
            transcript(&format!("{package} --help"), &ran)
        })
        .collect();
    insta::assert_snapshot!(told);
}

/// What the real input of this chapter prints, and the host that stays the same, whether `/` is
/// shared or private.
#[test]
fn a_container_sees_its_own_and_the_host_stays() {
    let root = Root::shared();
    let shell =
        "\"$0\" --rootfs \"$1\" sh -c 'ps -e -o pid,args; hostname; ls /sys/class/net; mount'";
    for propagation in [Propagation::Shared, Propagation::Private] {
        let shell = shell.replace("$0", "$1").replacen(
            "\"$1\" --rootfs \"$1\"",
            "\"$1\" --rootfs \"$2\"",
            1,
        );
        let (program, root) = (step04(), root.path());
        let arguments = [program, &root].map(|path| path.to_str().unwrap());
        let said = on_host(propagation, &shell, &arguments).success().printed();
        let lines: Vec<_> = said.lines().collect();
        let [_, one, two, name, interface, mounts @ ..] = &lines[..] else {
            panic!("{said}");
        };
        assert!(one.trim().starts_with("1 sh -c"), "{said}");
        assert!(two.trim().ends_with("ps -e -o pid,args"), "{said}");
        assert_eq!((*name, *interface), ("container", "lo"), "{said}");
        let targets: Vec<_> = mounts
            .iter()
            .filter_map(|line| line.split(' ').nth(2))
            .collect();
        assert_eq!(targets, ["/", "/proc", "/sys"], "{said}");
    }
}

/// EPERM is told to root with the way out that is one: it depends on what root lacks.
#[test]
fn what_root_lacks_is_named() {
    if nested() || !have("setpriv", "util-linux") {
        return;
    }
    let root = Root::shared();
    let [step_03, step_05] =
        ["step03-mount", "step05-tty"].map(|package| step(package).display().to_string());
    let words = [&step_05, "--rootfs", root.path().to_str().unwrap(), "true"].map(String::from);
    let without = |capability: &str| {
        let flags = ["--bounding-set", capability, "--inh-caps", capability];
        run_as("setpriv", &flags, &words)
    };
    let errors = without("-sys_admin");
    assert!(
        errors.contains("you are root without CAP_SYS_ADMIN"),
        "{errors}"
    );
    let errors = without("-mknod");
    assert!(
        errors.contains("(EPERM)") && !errors.contains("help:"),
        "{errors}"
    );
    // In a user namespace the kernel gives a procfs only while another one can be seen whole.
    let shell =
        "mount -t tmpfs none /proc/sys && exec unshare --user --map-root-user --mount \"$@\"";
    let flags = ["--mount", "sh", "-c", shell, "sh"];
    let words = [step_03, "true".into()];
    let errors = run_as("unshare", &flags, &words);
    assert!(errors.contains("root in a user namespace only"), "{errors}");
}

/// What a program complains of that is run by another one, and fails.
fn run_as(program: &str, flags: &[&str], words: &[String]) -> String {
    let ran = Command::new(program).args(flags).args(words).assert();
    ran.code(125).errors()
}
