//! The checkout itself: scripts, exercises, and an ordinary user who types what the README says.

use super::place::{cargo_home, dependencies};
use crate::stage::redaction::redact;
use crate::stage::{
    NESTED, Printed, Root, STEPS, as_nobody, copy_of, copy_program, folder, have, nested, run,
    script, skip, step04,
};
use assert_cmd::assert::OutputAssertExt;
use progress::chapters::CHAPTERS;
use progress::course::regions::without_other_anchors;
use progress::programs::workspace;
use std::fs;
use std::path::Path;
use std::process::Command;

fn scripts() -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(workspace().join("rootfs-scripts")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn scripts_are_clean() {
    if !have("shellcheck", "shellcheck") {
        return;
    }
    let others = [
        ".cargo/as-root",
        ".ci/run",
        ".devcontainer/entrypoint",
        "tests/bench/layers",
        "tests/bench/run",
        "tests/fuzz/run",
        "tests/vm/fetch",
        "tests/vm/init",
    ]
    .map(|name| workspace().join(name));
    run(Command::new("shellcheck")
        .arg("-x")
        .args(scripts())
        .args(others)
        .current_dir(workspace()));
}

#[test]
fn every_script_that_one_calls_has_help() {
    for script in scripts() {
        let text = fs::read_to_string(&script).unwrap();
        if !text.starts_with("#!") {
            continue;
        }
        let help = run(Command::new(&script).arg("--help"));
        let name = script.file_name().unwrap().to_str().unwrap();
        assert!(help.starts_with(name) && help.contains("DIR"), "{help}");
    }
}

/// Each exercise is one function's body between two anchors, short enough for a quarter of an hour.
#[test]
fn every_exercise_has_its_anchors() {
    for chapter in CHAPTERS {
        let source = workspace().join(format!("steps/{}/src/lib.rs", chapter.package));
        let source = without_other_anchors(&fs::read_to_string(source).unwrap());
        for exercise in chapter.exercises {
            if exercise.name == "repair" {
                continue;
            }
            let begin = format!("// ANCHOR: exercise_{}\n", exercise.name);
            let end = format!("// ANCHOR_END: exercise_{}\n", exercise.name);
            let (before, rest) = source.split_once(&begin).expect(exercise.name);
            let (body, after) = rest.split_once(&end).expect(exercise.name);
            assert!(
                before.trim_end().ends_with('{'),
                "{}: not a whole body",
                exercise.name
            );
            assert!(
                after.trim_start().starts_with('}'),
                "{}: not a whole body",
                exercise.name
            );
            let lines = body.lines().count();
            assert!(
                (3..=30).contains(&lines),
                "{}: {lines} lines",
                exercise.name
            );
        }
    }
}

/// A chapter's idea fits on a few pages, and nothing depends on a later step.
#[test]
fn steps_build_on_earlier_steps_only() {
    for (number, package) in STEPS.into_iter().enumerate() {
        let folder = workspace().join("steps").join(package);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for later in &STEPS[number..] {
            assert!(
                !manifest.contains(&format!("{later}.workspace")),
                "{package} needs {later}"
            );
        }
        let lesson = fs::read_to_string(folder.join("src/lib.rs")).unwrap();
        let lines = lesson.lines().count();
        assert!(lines <= 330, "{package}: lib.rs has {lines} lines");
    }
}

/// Cargo is told which targets have no tests, so that it builds none for them: one that comes later isn't left out.
#[test]
fn every_unit_test_is_run() {
    for package in STEPS {
        let folder = workspace().join("steps").join(package);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let is_left_out = manifest.contains("[lib]\ntest = false\n");
        for file in sources(&folder.join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            let has_tests = text.contains("#[test]") || text.contains("/// ```\n");
            let is_program = file.ends_with("src/main.rs");
            assert!(
                !has_tests || !(is_left_out || is_program),
                "{}: it has a test that cargo leaves out",
                file.display()
            );
        }
    }
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.flat_map(|path| match path.is_dir() {
        true => sources(&path),
        false => vec![path],
    });
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

#[test]
fn the_readme_has_the_commands_that_work() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    // The newest step takes bundles; the one before has images from elsewhere; the one before that starts with what this
    // machine has.
    let [.., without_images, with_images, _] = STEPS;
    for command in [
        format!("cargo run -p {without_images} -- run -it\n"),
        format!("cargo run -p {with_images} -- run -it "),
    ] {
        assert!(readme.contains(&command), "{command}");
    }
    assert!(readme.contains("\ncargo test\n"));
    let ci = fs::read_to_string(workspace().join(".ci/run")).unwrap();
    assert!(
        ci.contains("\ncargo test\n"),
        ".ci/run doesn't run the README's test command"
    );
    for package in STEPS {
        assert!(
            readme.contains(package),
            "{package} isn't in the README's table"
        );
    }
}

/// What the README shows of `--why` is what it prints.
#[test]
fn the_readme_shows_what_is_printed() {
    let folder = folder();
    Root::shared().copy(&folder.path().join("broken"));
    run(script("break.sh")
        .arg("dangling-loader-link")
        .arg(folder.path().join("broken")));
    let printed = Command::new(step04())
        .args(["--why", "--rootfs", "broken", "ls"])
        .current_dir(folder.path())
        .assert()
        .printed();
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let command = "$ cargo run -q -p step04-pivot-root -- --why --rootfs broken ls\n";
    let (_, shown) = readme.split_once(command).unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    // Where this machine has links and its loader is its own affair.
    assert_eq!(redact(&printed, &[]), redact(shown, &[]));
}

/// Neither root nor sudo: the runner starts the program all the same, which says what it lacks.
#[test]
fn without_sudo_the_runner_runs_the_program() {
    let folder = folder();
    let program = copy_of("step01-uts", folder.path());
    let runner = folder.path().join("as-root");
    copy_program(workspace().join(".cargo/as-root"), &runner);
    // A PATH with what the runner needs, and without sudo.
    let path = folder.path().join("bin");
    fs::create_dir(&path).unwrap();
    for tool in ["sh", "id", "env"] {
        let found = run(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
        std::os::unix::fs::symlink(found.trim(), path.join(tool)).unwrap();
    }
    // A user namespace is for the steps; the suites need all of root.
    let deps = folder.path().join("deps");
    fs::create_dir(&deps).unwrap();
    copy_program("/usr/bin/id", deps.join("id"));
    copy_program("/usr/bin/id", folder.path().join("step01-id"));
    for (program, uid) in [
        (deps.join("id"), "65534"),
        (folder.path().join("step01-id"), "0"),
    ] {
        let said = run(as_nobody(Path::new("env"))
            .args(["TEN_STEPS_NO_SUDO=1", "HOME=/"])
            .arg(&runner)
            .arg(program)
            .arg("-u"));
        assert_eq!(said.trim(), uid);
    }
    let ran = as_nobody(Path::new("env"))
        .arg(format!("PATH={}", path.display()))
        .args([&runner, &program])
        .arg("true")
        .assert()
        .code(125);
    for word in ["CAP_SYS_ADMIN", "sudo", "docker compose run --rm workshop"] {
        ran.complains(word);
    }
}

/// A user made for it, in a mount namespace with an /etc/passwd of its own, clones the course and
/// types the README's two commands. Afterwards no file of the checkout belongs to root.
#[test]
fn an_ordinary_user_with_sudo() {
    if nested() || !have("sudo", "sudo") || !have("unshare", "util-linux") {
        return;
    }
    let toolchain = run(Command::new("rustc").args(["--print", "sysroot"]));
    let registry = cargo_home().join("registry");
    if !registry.is_dir() {
        return skip("cargo has no registry folder to lend to another user");
    }
    let folder = folder();
    let script = workspace().join("tests/suites/ordinary-user.sh");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh"])
        .arg(script)
        .arg(folder.path())
        .arg(workspace())
        .arg(toolchain.trim())
        .arg(registry)
        .arg(dependencies())
        .env(NESTED, "yes")
        .env_remove("CI")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    // In full: which of the suites failed stands somewhere in the middle.
    assert!(output.status.success(), "{said}\n{errors}");
    // The first command started a container, the second ran suites.
    let hostname = said
        .lines()
        .find_map(|line| line.strip_prefix("container says 1 "));
    assert!(
        hostname.is_some_and(
            |name| name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        ),
        "{said}\n{errors}"
    );
    let passed = said
        .lines()
        .filter(|line| line.starts_with("test ") && line.ends_with(" ok"))
        .count();
    assert!(passed > 30, "{passed} tests passed\n{said}\n{errors}");
    assert!(said.contains("files of root: 0\n"), "{said}\n{errors}");
    // Without sudo, all of it again in a user namespace.
    let (_, without) = said.split_once("files of root: 0\n").unwrap();
    let wanted = [
        "user namespace: enough for chapters 1 to 4",
        "Chapters 1 to 4 can be done here.",
        "2 of 2 hold",
        "3 of 3 hold",
        "4 of 4 hold",
        "namespace says 1 container",
        "◐ 4.1 bind_self",
        "files of root in the end: 0",
    ];
    for words in wanted {
        assert!(without.contains(words), "{words}: {without}\n{errors}");
    }
}
