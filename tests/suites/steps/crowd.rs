//! Many containers at once, and several commands on one.

use crate::stage::dock::{Dock, groups_of};
use crate::stage::{Printed, copy_program, nested};
use assert_cmd::assert::OutputAssertExt;
use progress::host::container::{eventually, run_with};
use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// As many as a slow machine, or one inside another, has time for.
fn scaled(number: usize) -> usize {
    if nested() { number / 10 } else { number }
}

#[test]
fn two_hundred_by_eight_shells() {
    let dock = Dock::new();
    let (shells, each) = (8, scaled(200) / 8);
    let image = dock.root.path().display().to_string();
    let start = "i=0; while [ $i -lt $2 ]; do i=$((i+1)); \
        \"$0\" run -d --name box-$1-$i --image \"$3\" sh -c \"echo I am $1-$i; exec sleep 1000\" || exit 1; done";
    let all = |script: &str| -> String {
        let started: Vec<Child> = (0..shells)
            .map(|shell| {
                let mut command = dock.command(&[]);
                let program = command.get_program().to_owned();
                let mut sh = Command::new("sh");
                sh.args(["-c", script]).arg(program);
                sh.args([shell.to_string(), each.to_string(), image.clone()]);
                sh.env("TEN_STEPS_STATE", &dock.state)
                    .stdout(Stdio::piped());
                command = sh;
                command.spawn().unwrap()
            })
            .collect();
        let outputs = started
            .into_iter()
            .map(|child| child.wait_with_output().unwrap());
        outputs
            .map(|output| output.assert().success().printed())
            .collect()
    };
    let printed = all(start);
    let ids: BTreeSet<&str> = printed.lines().collect();
    assert_eq!(ids.len(), shells * each, "an ID was given twice");
    let listed = dock.ok(&["ps", "--no-trunc", "--format", "json"]);
    let listed: Vec<serde_json::Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: BTreeSet<&str> = listed
        .iter()
        .map(|line| line["Names"].as_str().unwrap())
        .collect();
    assert_eq!(
        (listed.len(), names.len()),
        (shells * each, shells * each),
        "one is lost"
    );
    for id in &ids {
        let pid = dock.process(id, "process");
        assert!(pid.file("stat").exists(), "{id} doesn't run");
    }
    let check = "i=0; while [ $i -lt $2 ]; do i=$((i+1)); \
        said=$(\"$0\" logs box-$1-$i); [ \"$said\" = \"I am $1-$i\" ] || { echo \"$said\" >&2; exit 1; }; \
        \"$0\" stop -t 0 box-$1-$i >/dev/null && \"$0\" rm box-$1-$i >/dev/null || exit 1; done";
    eventually(|| {
        let said = |id: &&str| dock.logs(id).starts_with("I am");
        ids.iter().all(said).then_some(())
    });
    all(check);
    dock.is_empty();
    for id in ids {
        assert!(groups_of(id).is_empty(), "groups of {id} are left");
    }
}

/// Twice as many records take twice as long, not four times.
#[test]
fn the_list_grows_in_a_line() {
    let with = |many: usize| {
        let dock = Dock::new();
        dock.run_in(&["--name", "first-0"], &["true"]);
        let id = dock.id("first-0");
        let template = fs::read_to_string(dock.container(&id).join("config.json")).unwrap();
        for number in 1..many {
            let new = format!("{number:064x}");
            let text = template
                .replace(&id, &new)
                .replace("first-0", &format!("more-{number}"));
            fs::create_dir(dock.container(&new)).unwrap();
            fs::write(dock.container(&new).join("config.json"), text).unwrap();
        }
        dock
    };
    let time = |dock: &Dock, many: usize| {
        let begin = Instant::now();
        let listed = dock.ok(&["ps", "-aq"]);
        assert_eq!(listed.lines().count(), many);
        begin.elapsed()
    };
    let docks = (with(250), with(1000));
    // In turns: who else is busy slows down both.
    let times = (0..15).map(|_| (time(&docks.0, 250), time(&docks.1, 1000)));
    let (few, many): (Vec<_>, Vec<_>) = times.unzip();
    let (few, many) = (
        few.into_iter().min().unwrap(),
        many.into_iter().min().unwrap(),
    );
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    println!("1000 records take {ratio:.1} times as long as 250");
    assert!(ratio < 8.0, "{few:?} for 250, {many:?} for 1000");
}

/// One of the two wins, the other says what is the matter, and all is sound afterwards.
#[test]
fn two_commands_on_one_container() {
    let dock = Dock::new();
    let rounds = scaled(500);
    let mut won = [[0; 2]; 6];
    for round in 0..rounds {
        let name = "box";
        let which = round % won.len();
        let (is_up, first, second): (bool, &[&str], &[&str]) = match which {
            0 => (false, &["start", name], &["rm", name]),
            1 => (true, &["stop", "-t", "0", name], &["start", name]),
            2 => (true, &["exec", name, "true"], &["stop", "-t", "0", name]),
            3 => (false, &["rename", name, "other"], &["rm", name]),
            4 => (true, &["rm", "-f", name], &["rm", "-f", name]),
            _ => (false, &["start", name], &["start", name]),
        };
        let id = dock.start(&["--name", name], &["sleep", "1000"]);
        if !is_up {
            dock.ok(&["stop", "-t", "0", name]);
        }
        let spawn = |words: &[&str]| {
            let mut command = dock.command(words);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        // Now the one comes first, now the other.
        let mut running = match round / won.len() % 2 {
            0 => [spawn(first), spawn(second)],
            _ => {
                let second = spawn(second);
                [spawn(first), second]
            }
        };
        for child in &mut running {
            assert!(
                eventually(|| child.try_wait().unwrap()).is_some(),
                "{first:?} {second:?}: it hangs"
            );
        }
        for (number, child) in running.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            let errors = String::from_utf8(output.stderr).unwrap();
            match output.status.code() {
                Some(0) => won[which][number] += 1,
                Some(125) => {
                    let plain = [
                        "no such container",
                        "is running",
                        "isn't running",
                        "has just ended",
                    ];
                    assert!(
                        plain.iter().any(|words| errors.contains(words)),
                        "{which} {number}: {errors}"
                    );
                }
                // A command that was killed with its container.
                Some(137) if which == 2 => {}
                code => panic!("{which} {number}: {code:?} {errors}"),
            }
        }
        // What is left is whole: it is listed, and can be removed.
        let listed = dock.run(&["ps", "-aq", "--no-trunc"]);
        let left = listed.success().stderr("").printed();
        assert!(left.trim().is_empty() || left.trim() == id, "{left}");
        if !left.is_empty() {
            dock.ok(&["rm", "-f", &id]);
        }
        assert!(groups_of(&id).is_empty(), "{which}: {:?}", groups_of(&id));
    }
    dock.is_empty();
    println!("who won, of {rounds} rounds: {won:?}");
    // Two that start it have both what they want; of two that remove it one at least.
    assert!(won[4][0] + won[4][1] >= rounds / won.len());
}

/// A day's work with a real distribution.
#[test]
fn a_debian_from_end_to_end() {
    if nested() {
        return;
    }
    let Some(common) = crate::stage::debian() else {
        return;
    };
    let dock = Dock::new();
    let debian = dock.folder.path().join("debian");
    crate::stage::run(Command::new("cp").arg("-a").arg(common).arg(&debian));
    // Its own web server: the package holds a static program with everything in it.
    let image = debian.display().to_string();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| fs::exists(path).unwrap());
    let Some(busybox) = busybox else {
        crate::stage::have("busybox", "busybox-static");
        return;
    };
    copy_program(busybox, debian.join("usr/bin/busybox"));
    let site = dock.folder.path().join("site");
    fs::create_dir(&site).unwrap();
    fs::write(site.join("index.html"), "hello from the host\n").unwrap();
    let volume = format!("{}:/srv", site.display());
    let serve = "echo serving; echo kept >/var/lib/kept; exec busybox httpd -f -v -p 8080 -h /srv";
    dock.ok(&[
        "run", "-d", "--name", "web", "-v", &volume, "-m", "64M", "--image", &image, "sh", "-c",
        serve,
    ]);
    let mut follower = dock.foreground(&["logs", "-f", "web"]);
    assert_eq!(follower.first_line(), "serving");
    let fetch = [
        "exec",
        "web",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://127.0.0.1:8080/",
    ];
    let fetched = || dock.run(&fetch).try_success().ok();
    eventually(fetched).unwrap().stdout("hello from the host\n");
    fs::write(site.join("index.html"), "changed\n").unwrap();
    assert_eq!(dock.ok(&fetch), "changed\n");
    assert!(
        dock.ok(&["stats", "--no-stream", "web"])
            .contains(" / 64.0 MiB")
    );
    assert!(dock.ok(&["exec", "web", "dpkg", "-l"]).lines().count() > 50);
    // From here it is asked to end; httpd as PID 1 is deaf, so soon after it is killed.
    dock.ok(&["stop", "-t", "1", "web"]);
    follower.read_until("serving").unwrap();
    assert_eq!(follower.ended().unwrap().code, 0);
    dock.ok(&["start", "web"]);
    eventually(fetched).unwrap().stdout("changed\n");
    assert_eq!(dock.ok(&["exec", "web", "cat", "/var/lib/kept"]), "kept\n");
    assert!(dock.ok(&["diff", "web"]).contains("A /var/lib/kept\n"));
    let archive = dock.folder.path().join("web.tar").display().to_string();
    // A whole distribution takes its time.
    let mut commit = dock.command(&["commit", "web", &archive]);
    commit.assert().success();
    dock.ok(&["rm", "-f", "web"]);
    let mut command = dock.command(&["run", "--rm", "--image", &archive, "sh", "-c"]);
    let outcome = run_with(command.arg("cat /var/lib/kept; . /etc/os-release; echo $ID")).unwrap();
    assert_eq!(outcome.output, "kept\ndebian\n", "{}", outcome.errors);
    dock.is_empty();
}
