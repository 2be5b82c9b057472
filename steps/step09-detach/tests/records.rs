//! What is kept of a container: plans from flags, images and files; records of an older program, and damaged ones.

use serde_json::{Value, json};
use std::fs;
use step04_pivot_root::rootfs::Files;
use step04_pivot_root::state::StateDir;
use step04_pivot_root::{Env, environment};
use step05_tty::terminal::Tty;
use step06_caps::network::Network;
use step06_caps::privileges::{Security, SecurityOption};
use step06_caps::users::UserName;
use step07_cgroups::Version;
use step07_cgroups::cgroup::settings::settings;
use step07_cgroups::resources::Resources;
use step07_cgroups::rlimits::Ulimit;
use step08_overlay::layers::Storage;
use step08_overlay::volumes::{Tmpfs, Volume};
use step09_detach::commands::inspect::describe;
use step09_detach::container::plan::{Plan, VERSION};
use step09_detach::container::record::{Newer, Phase, Record};
use step09_detach::container::status::sentence;
use step09_detach::container::store::{Inventory, Store};
use step09_detach::flags::signal;
use step09_detach::lifecycle::remove;

/// A record as it was written before there were versions, with nearly every flag.
const BEFORE_VERSION_1: &str = include_str!("record-before-version-1.json");

#[test]
fn a_record_of_before_there_were_versions() {
    let value: Value = serde_json::from_str(BEFORE_VERSION_1).unwrap();
    let id = value["id"].as_str().unwrap();
    let record = Record::read(BEFORE_VERSION_1.as_bytes(), id).unwrap();
    let plan = &record.plan;
    assert_eq!(plan.version, VERSION);
    assert_eq!(plan.command(), ["sh", "-c", "echo hi"]);
    assert_eq!(
        (plan.stop_signal(), plan.network),
        (libc::SIGINT, Network::Host)
    );
    assert_eq!((plan.env.workdir(), record.hostname()), ("/srv", "there"));
    // Where it says two things, neither is taken.
    for (place, other) in [("/version", json!(1)), ("/network", json!("host"))] {
        let mut two = value.clone();
        two["arguments"][&place[1..]] = other;
        Record::read(two.to_string().as_bytes(), id).unwrap_err();
    }
    let mut two = value.clone();
    two["arguments"]["network"]["ports"] = json!(["80:80"]);
    Record::read(two.to_string().as_bytes(), id).unwrap_err();
    // All else stands where it stood.
    let mut now = serde_json::to_value(&record).unwrap();
    assert_eq!(now["plan"]["network"].take(), json!("host"));
    assert_eq!(now["plan"]["version"].take(), json!(VERSION));
    let mut then = value["arguments"].clone();
    (then["network"], then["version"]) = (Value::Null, Value::Null);
    assert_eq!(now["plan"], then);
    // And once more.
    let text = serde_json::to_vec(&record).unwrap();
    assert_eq!(Record::read(&text, id).unwrap().plan, *plan);
}

#[test]
fn what_nobody_has_said_has_its_usual_value() {
    let id = "ab".repeat(32);
    let short = json!({"id": id, "name": "box", "created": "2026-11-22T21:48:50Z", "plan": {}});
    let record = Record::read(short.to_string().as_bytes(), &id).unwrap();
    assert_eq!(record.plan, Plan::default());
    assert_eq!(record.state.phase, Phase::Created);
    let newer = json!({"id": id, "name": "box", "created": "2026-11-22T21:48:50Z", "plan": {"version": 77}});
    let error = Record::read(newer.to_string().as_bytes(), &id).unwrap_err();
    assert!(error.to_string().contains("version 77"), "{error}");
}

/// What a newer program has made keeps its name, and isn't removed by mistake.
#[test]
fn a_record_of_a_newer_program() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    let store = Store::open(&StateDir { dir }).unwrap();
    let (container, life) = store
        .create(Some("box".into()), Plan::default(), |_| Ok(()))
        .unwrap();
    let mut record = serde_json::to_value(container.record().unwrap()).unwrap();
    record["plan"] = json!({"version": 77, "unheard": "of"});
    fs::write(container.folder.join("config.json"), record.to_string()).unwrap();
    drop(life);
    assert_eq!(store.find("box").unwrap().id, container.id);
    let taken = store
        .create(Some("box".into()), Plan::default(), |_| Ok(()))
        .unwrap_err();
    assert!(taken.to_string().contains("already in use"), "{taken}");
    let error = remove(&container, false).unwrap_err();
    assert!(error.is::<Newer>() && !container.is_gone(), "{error}");
    remove(&container, true).unwrap();
    assert!(container.is_gone());
}

/// What an image says holds where nobody has said anything else: its variables come before those that are given.
#[test]
fn an_image_answers_what_nobody_has_said() {
    let image = json!({"Entrypoint": ["/bin/server"], "Cmd": ["--port", "80"], "User": "www-data",
        "WorkingDir": "/srv", "Env": ["PATH=/bin", "LEVEL=1"], "StopSignal": "SIGQUIT"});
    let words = |key: &str| -> Vec<String> { serde_json::from_value(image[key].clone()).unwrap() };
    let merged = |mut plan: Plan| {
        let command = plan.command.take().unwrap_or_else(|| words("Cmd"));
        plan.command = Some([words("Entrypoint"), command].concat());
        plan.user
            .user
            .get_or_insert_with(|| image["User"].as_str().unwrap().into());
        plan.env
            .workdir
            .get_or_insert_with(|| image["WorkingDir"].as_str().unwrap().into());
        plan.env.env = [words("Env"), plan.env.env].concat();
        plan.stop_signal
            .get_or_insert_with(|| signal(image["StopSignal"].as_str().unwrap()).unwrap());
        plan
    };
    let plan = merged(Plan::default());
    assert_eq!(plan.command(), ["/bin/server", "--port", "80"]);
    assert_eq!(
        (plan.env.workdir(), plan.stop_signal()),
        ("/srv", libc::SIGQUIT)
    );
    assert_eq!(plan.user.user.as_deref(), Some("www-data"));
    let given = Plan {
        command: Some(vec!["--help".into()]),
        stop_signal: Some(libc::SIGINT),
        env: Env {
            env: vec!["LEVEL=2".into()],
            workdir: Some("/".into()),
        },
        user: UserName {
            user: Some("0".into()),
        },
        ..Plan::default()
    };
    let plan = merged(given);
    assert_eq!(plan.command(), ["/bin/server", "--help"]);
    assert_eq!(
        (plan.env.workdir(), plan.stop_signal()),
        ("/", libc::SIGINT)
    );
    assert_eq!(plan.env.env, ["PATH=/bin", "LEVEL=1", "LEVEL=2"]);
    assert_eq!(plan.user.user.as_deref(), Some("0"));
}

/// A bundle's config.json, field by field, as far as the programs of this step can do what it says.
#[test]
fn a_plan_of_what_a_config_says() {
    let config = json!({
        "hostname": "box",
        "process": {"terminal": true, "args": ["sh"], "cwd": "/tmp", "env": ["A=b"],
            "user": {"uid": 1000, "gid": 50}, "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"]},
            {"destination": "/run", "type": "tmpfs", "options": ["size=1m"]}],
        "linux": {"resources": {"memory": {"limit": 67108864}, "pids": {"limit": 50}}}
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (process, resources) = (&config["process"], &config["linux"]["resources"]);
    let (mut volume, mut tmpfs) = (Vec::new(), Vec::new());
    for mount in config["mounts"].as_array().unwrap() {
        let target = text(&mount["destination"]);
        match mount["type"].as_str() {
            Some("tmpfs") => {
                let options: Vec<String> =
                    serde_json::from_value(mount["options"].clone()).unwrap();
                tmpfs.push(Tmpfs::parse(&format!("{target}:{}", options.join(","))).unwrap());
            }
            _ => volume
                .push(Volume::parse(&format!("{}:{target}:ro", text(&mount["source"]))).unwrap()),
        }
    }
    let plan = Plan {
        hostname: config["hostname"].as_str().map(Into::into),
        command: serde_json::from_value(process["args"].clone()).unwrap(),
        tty: Tty {
            interactive: true,
            tty: process["terminal"] == true,
        },
        env: Env {
            env: serde_json::from_value(process["env"].clone()).unwrap(),
            workdir: Some(text(&process["cwd"])),
        },
        user: UserName {
            user: Some(format!(
                "{}:{}",
                process["user"]["uid"], process["user"]["gid"]
            )),
        },
        files: Files {
            rootfs: Some(text(&config["root"]["path"]).into()),
            ..Files::default()
        },
        layers: Storage {
            read_only: config["root"]["readonly"] == true,
            volume,
            tmpfs,
            ..Storage::default()
        },
        limits: Resources {
            memory: resources["memory"]["limit"].as_u64(),
            pids_limit: resources["pids"]["limit"].as_i64(),
            ulimit: vec!["nofile=64:128".parse::<Ulimit>().unwrap()],
            ..Resources::default()
        },
        privileges: Security {
            security_opt: vec![SecurityOption::NoNewPrivileges(
                process["noNewPrivileges"] == true,
            )],
            ..Security::default()
        },
        ..Plan::default()
    };
    // It is written and read as any other.
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    let (limits, _) = plan.limits.resolve(false).unwrap();
    assert_eq!((limits.memory, limits.pids), (Some(64 << 20), Some(50)));
}

/// Texts near a record: cut off, with a bit flipped, with each of its values replaced.
fn damaged(text: &str) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    let cut_off = (0..bytes.len())
        .step_by(11)
        .map(|end| bytes[..end].to_vec());
    let flipped = (0..bytes.len()).step_by(3).map(|at| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        flipped
    });
    let mut all: Vec<Vec<u8>> = cut_off.chain(flipped).collect();
    let whole: Value = serde_json::from_str(text).unwrap();
    let mut places = vec![String::new()];
    while let Some(place) = places.pop() {
        match whole.pointer(&place).unwrap() {
            Value::Object(fields) => {
                places.extend(fields.keys().map(|key| format!("{place}/{key}")))
            }
            Value::Array(items) => {
                places.extend((0..items.len()).map(|at| format!("{place}/{at}")))
            }
            _ => {}
        }
        let others = [
            json!(null),
            json!(""),
            json!("\0"),
            json!("x".repeat(100_000)),
            json!(-1),
            json!(1),
            json!(u64::MAX),
            json!(1e300),
            json!(true),
            json!([]),
            json!({}),
        ];
        for other in others {
            let mut damaged = whole.clone();
            *damaged.pointer_mut(&place).unwrap() = other;
            all.push(damaged.to_string().into_bytes());
        }
    }
    all
}

/// A word that means nothing may have said what the container mustn't do: with it nothing is read.
#[test]
fn every_word_means_something() {
    let whole: Value = serde_json::from_str(BEFORE_VERSION_1).unwrap();
    let id = whole["id"].as_str().unwrap();
    let today = Record::read(BEFORE_VERSION_1.as_bytes(), id).unwrap();
    let today = serde_json::to_value(&today).unwrap();
    let read = |value: &Value| Record::read(value.to_string().as_bytes(), id).map(drop);
    let mut words = 0;
    for whole in [whole.clone(), today] {
        read(&whole).unwrap();
        let mut places = vec![String::new()];
        while let Some(place) = places.pop() {
            let value = whole.pointer(&place).unwrap();
            if let Value::Array(items) = value {
                places.extend((0..items.len()).map(|at| format!("{place}/{at}")));
            }
            let Value::Object(fields) = value else {
                continue;
            };
            for key in fields.keys() {
                words += 1;
                let mut other = whole.clone();
                let object = other.pointer_mut(&place).unwrap().as_object_mut().unwrap();
                let kept = object.remove(key).unwrap();
                object.insert(format!("x{key}"), kept);
                assert!(read(&other).is_err(), "{place}/x{key}");
                places.push(format!("{place}/{key}"));
            }
            let mut other = whole.clone();
            *other.pointer_mut(&place).unwrap() = json!([]);
            assert!(read(&other).is_err(), "[] for {place}");
        }
    }
    assert!(words > 100, "{words}");
}

/// A record that makes no sense costs a line about its container, and hides no other.
#[test]
fn damaged_records() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    let store = Store::open(&StateDir { dir }).unwrap();
    let (sound, _) = store
        .create(Some("sound".into()), Plan::default(), |_| Ok(()))
        .unwrap();
    let (container, _) = store.create(None, Plan::default(), |_| Ok(())).unwrap();
    let file = container.folder.join("config.json");
    let old = BEFORE_VERSION_1;
    let mut record = Record::read(old.as_bytes(), &old[11..75]).unwrap();
    record.id = container.id.clone();
    record.name = container.record().unwrap().name;
    let new = serde_json::to_string(&record).unwrap();
    let old = old.replace(&old[11..75], &container.id);
    let (mut read, mut refused) = (0, 0);
    for text in [damaged(&old), damaged(&new)].concat() {
        fs::write(&file, &text).unwrap();
        let shown = String::from_utf8_lossy(&text);
        let Inventory { records, broken } = store.records().unwrap();
        assert!(
            records.iter().any(|(found, _)| found.id == sound.id),
            "{shown}"
        );
        assert_eq!(records.len() + broken.len(), 2, "{shown}");
        assert_eq!(store.find("sound").unwrap().id, sound.id);
        for error in broken {
            let line = format!("{error:#}");
            assert!(
                line.contains(&container.id) && line.lines().count() == 2,
                "{line}"
            );
            refused += 1;
        }
        for (container, record) in records.iter().filter(|(found, _)| found.id != sound.id) {
            // What every command does with a record: none of it is a panic.
            read += 1;
            sentence(record, container.status(record));
            describe(container, record).unwrap();
            let _ = record.plan.limits.resolve(false).map(|(limits, _)| {
                for version in [Version::V1, Version::V2] {
                    settings(&limits, version);
                }
            });
            let _ = record.plan.privileges(&container.folder).resolve();
            environment(record.hostname(), &record.plan.variables());
            serde_json::to_string(record).unwrap();
        }
    }
    assert!(
        read > 300 && refused > 300,
        "{read} read, {refused} refused"
    );
}
