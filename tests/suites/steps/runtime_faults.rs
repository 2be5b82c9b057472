//! The runtime of step 12 under faults: killed at any system call, and many commands at once.

use crate::stage::dock::ended;
use crate::stage::quay::{Quay, STEP};
use crate::stage::{Printed, nested, progress, step};
use progress::host::container::eventually;
use progress::host::points::Struck;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};

const SLEEP: &str = "exec sleep 1000";

/// What is done to the container `box`.
struct Scene {
    word: &'static str,
    /// The commands that it takes before.
    before: &'static [&'static str],
    /// How many processes take part: who was called, and the container's.
    roles: usize,
    /// Each how many calls somebody is killed.
    stride: usize,
}

const SCENES: [Scene; 4] = [
    Scene {
        word: "create",
        before: &[],
        roles: 2,
        stride: 7,
    },
    Scene {
        word: "run",
        before: &[],
        roles: 2,
        stride: 29,
    },
    Scene {
        word: "start",
        before: &["create"],
        roles: 1,
        stride: 2,
    },
    Scene {
        word: "delete",
        before: &["create"],
        roles: 1,
        stride: 3,
    },
];

/// Plays a scene in which somebody is killed at a point, and looks whether `delete --force` removes all that is left.
fn play(quay: &Quay, scene: &Scene, role: usize, point: usize) -> Struck {
    for word in scene.before {
        quay.begin(&[*word], "box").success();
    }
    let bundle = quay.path("bundles/box");
    let words: &[&str] = match scene.word {
        "create" => &["create", "--bundle", bundle.to_str().unwrap(), "box"],
        "run" => &["run", "--bundle", bundle.to_str().unwrap(), "box"],
        "delete" => &["delete", "--force", "box"],
        word => &[word, "box"],
    };
    let state = quay.state().display().to_string();
    let mut harness = Command::new(progress());
    harness
        .args([
            "strike-at",
            &role.to_string(),
            &point.to_string(),
            "0",
            &state,
            "--",
        ])
        .arg(step(STEP))
        .args(["--root", &state])
        .args(words)
        .env("RUST_BACKTRACE", "0")
        .env_remove("NOTIFY_SOCKET");
    let ran = ended(&mut harness);
    let told = ran.printed();
    let told = told.lines().last().unwrap_or_default();
    let struck: Struck = serde_json::from_str(told).unwrap_or_else(|_| panic!("{ran}"));
    let shown = format!("{}, role {role}, point {point}: {struck:?}", scene.word);
    // Whoever looks meanwhile is told something, and waits for nobody.
    quay.run(&["list"])
        .append_context("after", shown.clone())
        .success();
    let removed = eventually(|| {
        // A process that was about to be made may be there only now.
        let ran = quay
            .run(&["delete", "--force", "box"])
            .append_context("after", shown.clone());
        ran.success();
        quay.groups("box").is_empty().then_some(())
    });
    assert!(removed.is_some(), "{shown}: {:?}", quay.groups("box"));
    quay.is_empty();
    struck
}

/// One of the runtime and the container's process is killed at a system call that changes something: what is left is
/// removed by `delete --force`.
#[test]
fn a_kill_at_any_call() {
    let quay = Quay::new();
    let mut told = Vec::new();
    for scene in &SCENES {
        let line = if scene.word == "run" { "true" } else { SLEEP };
        quay.bundle("box", line, |_| {});
        let stride = if nested() { 25 } else { scene.stride };
        for role in 0..scene.roles {
            let points = (0..).step_by(stride);
            let struck = points.take_while(|point| play(&quay, scene, role, *point).call.is_some());
            told.push((scene.word, role, struck.count()));
        }
    }
    println!("points tried, for each command and process: {told:?}");
    assert!(told.iter().all(|(_, _, points)| *points > 0), "{told:?}");
}

/// A command, and what it says. That is a file: a container would hold a pipe open.
struct Running(Child, File);

fn spawn(command: &mut Command) -> Running {
    let errors = tempfile::tempfile().unwrap();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors.try_clone().unwrap());
    Running(command.spawn().unwrap(), errors)
}

/// How a command ended, and what it said.
fn end(Running(mut child, mut errors): Running, shown: &str) -> (Option<i32>, String) {
    let ended = eventually(|| child.try_wait().unwrap());
    let Some(ended) = ended else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{shown}: it hangs");
    };
    let mut text = String::new();
    errors.rewind().unwrap();
    errors.read_to_string(&mut text).unwrap();
    (ended.code(), text)
}

#[test]
fn a_hundred_at_once() {
    let quay = Quay::new();
    let many = if nested() { 10 } else { 100 };
    let names: Vec<String> = (0..many).map(|number| format!("box-{number}")).collect();
    for name in &names {
        quay.bundle(name, SLEEP, |_| {});
    }
    let all = |command: &dyn Fn(&str) -> Command| {
        let children: Vec<_> = names.iter().map(|name| spawn(&mut command(name))).collect();
        for (child, name) in children.into_iter().zip(&names) {
            let (code, errors) = end(child, name);
            assert_eq!((code, errors.as_str()), (Some(0), ""), "{name}");
        }
    };
    let list = |status: &str| {
        let listed = quay.ok(&["list", "--format", "json"]);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        listed
            .iter()
            .filter(|each| each["status"] == status)
            .count()
    };
    all(&|name| quay.on_bundle(&["create"], name));
    assert_eq!(list("created"), many);
    all(&|name| quay.command(&["start", name]));
    assert_eq!(list("running"), many);
    all(&|name| quay.command(&["delete", "--force", name]));
    quay.is_empty();
}

/// One of the two has what it wants, the other says what is the matter, and all is sound afterwards.
#[test]
fn two_commands_on_one_container() {
    let quay = Quay::new();
    quay.bundle("box", SLEEP, |_| {});
    type Words = &'static [&'static str];
    let pairs: [(&[&str], Words, Words); 6] = [
        (&["create"], &["start", "box"], &["start", "box"]),
        (&["create"], &["start", "box"], &["delete", "box"]),
        (
            &["create"],
            &["start", "box"],
            &["delete", "--force", "box"],
        ),
        (
            &["create", "start"],
            &["exec", "box", "true"],
            &["kill", "box", "KILL"],
        ),
        (
            &["create", "start"],
            &["delete", "--force", "box"],
            &["delete", "--force", "box"],
        ),
        (&["create"], &["start", "box"], &["kill", "box", "KILL"]),
    ];
    let rounds = if nested() { 6 } else { 120 };
    let mut won = [[0; 2]; 6];
    for round in 0..rounds {
        let which = round % pairs.len();
        let (before, first, second) = pairs[which];
        for word in before {
            match *word {
                "create" => quay.begin(&["create"], "box").success(),
                word => quay.run(&[word, "box"]).success(),
            };
        }
        let spawned = |words: Words| spawn(&mut quay.command(words));
        // Now the one comes first, now the other.
        let both = match round / pairs.len() % 2 {
            0 => [spawned(first), spawned(second)],
            _ => {
                let second = spawned(second);
                [spawned(first), second]
            }
        };
        let ended = both.map(|child| end(child, &format!("{first:?} {second:?}")));
        for (number, (code, errors)) in ended.iter().enumerate() {
            if *code == Some(0) {
                won[which][number] += 1;
                continue;
            }
            let plain = [
                "does not exist",
                "not running",
                "already running",
                "has stopped",
                "that is not stopped",
                "cannot exec",
                "its process is gone",
                "killed",
                "no such process",
            ];
            let is_plain = plain.iter().any(|words| errors.contains(words));
            // A command that was killed with its container says nothing.
            let was_killed = *code == Some(137) && which == 3;
            assert!(
                is_plain || was_killed,
                "{first:?} {second:?}, {number}: {code:?} {errors}"
            );
        }
        quay.ok(&["delete", "--force", "box"]);
        quay.is_empty();
    }
    println!("who won, of {rounds} rounds: {won:?}");
    let each = rounds / pairs.len();
    assert_eq!(
        won[0][0] + won[0][1],
        each,
        "a start wins, and only one does"
    );
    assert_eq!(
        won[4][0] + won[4][1],
        2 * each,
        "whoever removes by force has what it wants"
    );
}
