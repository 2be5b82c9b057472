//! Input that makes no sense: an error that names the place, and nothing left of the container.

use crate::stage::Printed;
use crate::stage::bundle::{Bundle, part, push};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

#[test]
fn no_config_json_or_a_broken_one() {
    let bundle = Bundle::new();
    let file = bundle.path("config.json");
    fs::remove_file(&file).unwrap();
    for words in [
        &["create", &bundle.id][..],
        &["run", &bundle.id],
        &["run", "--detach", &bundle.id],
    ] {
        let refused = bundle.fails(words);
        refused.complains("config.json");
        refused.complains("no such file or directory");
        bundle.is_clean();
    }
    let refused = bundle.fails(&["create", "--bundle", "/no/such/bundle", &bundle.id]);
    refused.complains("/no/such/bundle");
    for (text, said) in [
        ("", &["EOF", "line 1 column 0"][..]),
        (
            "{\n  \"ociVersion\": \"1.2.0\",\n  \"root\": tru\n}",
            &["line 4 column 0"],
        ),
        ("{\n  \"ociVersion\": \"1.2.0\",,\n}", &["line 2 column 25"]),
        ("[]", &["config.json"]),
        ("{\"ociVersion\": \"1.2.0\"} more", &["line 1 column 25"]),
        ("{\"ociVersion\": 1}", &["ociVersion", "invalid type"]),
        // serde would take the values of a struct's properties in their order, too.
        (
            "{\"ociVersion\": \"1.0.0\", \"root\": [\"rootfs\", true]}",
            &["root", "invalid type: sequence"],
        ),
    ] {
        fs::write(&file, text).unwrap();
        let refused = bundle.fails(&["create", &bundle.id]);
        for said in said.iter().chain(&["config.json"]) {
            refused.complains(said);
        }
        bundle.is_clean();
    }
    fs::write(&file, [0xff, 0xfe]).unwrap();
    bundle
        .fails(&["create", &bundle.id])
        .complains("config.json");
    fs::write(&file, " ".repeat(17 << 20)).unwrap();
    bundle.fails(&["create", &bundle.id]).complains("bytes");
    bundle.is_clean();
}

/// Each property that has to be there, and each that is of another kind than it has to be.
#[test]
fn properties_that_are_missing_or_wrong() {
    let bundle = Bundle::new();
    for (pointer, field) in [
        ("/ociVersion", "ociVersion"),
        ("/root", "root"),
        ("/root/path", "root"),
        ("/process", "process"),
        ("/process/args", "process.args"),
        ("/process/cwd", "process.cwd"),
        ("/mounts/0/destination", "mounts[0]"),
        ("/linux/namespaces/0/type", "linux.namespaces[0]"),
        ("/process/rlimits/0/type", "process.rlimits[0]"),
        ("/process/rlimits/0/soft", "process.rlimits[0]"),
    ] {
        bundle.refuses(
            |config| {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                let parent = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
                parent.remove(name).unwrap();
            },
            &["config.json", field],
        );
    }
    for (pointer, value, field) in [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/ociVersion", json!(""), "ociVersion"),
        ("/root/path", json!("no/such/root"), "root.path"),
        ("/root/path", json!("config.json"), "root.path"),
        ("/root/readonly", json!("yes"), "root.readonly"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!([""]), "process.args[0]"),
        ("/process/args", json!("sh"), "process.args"),
        ("/process/args/0", json!(1), "process.args[0]"),
        ("/process/args/0", json!("a\u{0}b"), "a\\0b"),
        ("/process/env/0", json!("WITHOUT"), "process.env[0]"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/cwd", json!(""), "process.cwd"),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/user/gid", json!("root"), "process.user.gid"),
        ("/process/terminal", json!(1), "process.terminal"),
        (
            "/mounts/0/destination",
            json!("proc"),
            "mounts[0].destination",
        ),
        ("/mounts/0/type", json!("no_such_type"), "mounts[0]"),
        ("/mounts/0/options", json!("ro"), "mounts[0].options"),
        ("/mounts/1/options", json!(["size=lots"]), "mounts[1]"),
        ("/mounts/1/options", json!(["no_such_option"]), "mounts[1]"),
        (
            "/linux/namespaces/0/type",
            json!("dream"),
            "linux.namespaces[0].type",
        ),
        (
            "/linux/namespaces/1/type",
            json!("pid"),
            "linux.namespaces[1].type",
        ),
        (
            "/linux/namespaces/0/path",
            json!("/proc/self/ns/net"),
            "linux.namespaces[0].path",
        ),
        (
            "/linux/namespaces/0/path",
            json!("/etc/passwd"),
            "linux.namespaces[0].path",
        ),
        (
            "/linux/namespaces/0/path",
            json!("/"),
            "linux.namespaces[0].path",
        ),
        ("/hostname", json!("x".repeat(65)), "hostname"),
        ("/linux/cgroupsPath", json!(1), "linux.cgroupsPath"),
        ("/linux/maskedPaths", json!([1]), "linux.maskedPaths[0]"),
    ] {
        bundle.refuses(
            |config| {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                let parent = config.pointer_mut(parent).unwrap();
                match parent {
                    Value::Array(elements) => elements[name.parse::<usize>().unwrap()] = value,
                    parent => parent[name] = value,
                }
            },
            &[field],
        );
    }
    for mount in [
        json!({"destination": "/x"}),
        json!({"destination": "/x", "type": "bind"}),
        json!({"destination": "/x", "type": "none", "source": "nowhere", "options": ["bind"]}),
        json!({"destination": "/x", "type": "ext4", "source": "nowhere"}),
    ] {
        let usual = 6..=9;
        let named: Vec<_> = usual.map(|place| format!("mounts[{place}]")).collect();
        bundle.write(|config| push(&mut config["mounts"], mount.clone()));
        let refused = bundle.fails(&["create", &bundle.id]);
        let text = refused.errors();
        assert!(
            named.iter().any(|named| text.contains(named)),
            "{mount}: {text}"
        );
        bundle.is_clean();
    }
    // A property that takes a namespace of the container's own.
    for (field, kinds) in [("hostname", &["pid"][..]), ("domainname", &["pid"])] {
        bundle.refuses(
            |config| {
                part(config, kinds);
                config[field] = json!("x");
            },
            &[field, "uts namespace"],
        );
    }
    bundle.refuses(
        |config| {
            part(config, &["pid"]);
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "mount");
        },
        &["mount namespace"],
    );
    bundle.refuses(
        |config| {
            config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}])
        },
        &["linux.uidMappings", "user namespace"],
    );
}

/// A map of IDs that the kernel doesn't take, a clock that there isn't: the container was there already, and is gone.
#[test]
fn what_the_kernel_refuses_on_the_way() {
    let bundle = Bundle::new();
    for (change, said) in [
        (
            json!({"uidMappings": [{"containerID": 0, "hostID": 0, "size": 0}],
                "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}),
            "uid_map",
        ),
        (
            json!({"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 4294967295u32, "size": 2}]}),
            "gid_map",
        ),
    ] {
        bundle.refuses(
            |config| {
                part(config, &["user", "pid", "ipc", "uts", "network"]);
                for (key, value) in change.as_object().unwrap() {
                    config["linux"][key] = value.clone();
                }
            },
            &[said],
        );
    }
    bundle.refuses(
        |config| {
            part(config, &["time", "pid"]);
            config["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
        },
        &["linux.timeOffsets.realtime"],
    );
    bundle.refuses(
        |config| config["process"]["oomScoreAdj"] = json!(5000),
        &["process.oomScoreAdj"],
    );
    // Files that can't be written for the engine.
    bundle.write(|_| {});
    for flag in ["--pid-file", "--pidfd-socket"] {
        let refused = bundle.fails(&["create", flag, "/no/such/folder/x", &bundle.id]);
        refused.complains("/no/such/folder");
        bundle.is_clean();
    }
    // A label for which this kernel has no module.
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    for (property, module) in [("apparmorProfile", "apparmor"), ("selinuxLabel", "selinux")] {
        if !modules.contains(module) {
            bundle.refuses(
                |config| config["process"][property] = json!("a_label"),
                &[&format!("process.{property}")],
            );
        }
    }
}

/// A terminal needs somebody who holds its other end, and the other way round.
#[test]
fn terminals_without_an_engine() {
    let bundle = Bundle::new();
    bundle.write(|config| config["process"]["terminal"] = json!(true));
    for words in [
        &["create", &bundle.id][..],
        &["run", "--detach", &bundle.id],
    ] {
        let refused = bundle.fails(words);
        refused.complains("process.terminal");
        refused.complains("cannot allocate tty if runc will detach without setting console socket");
        bundle.is_clean();
    }
    bundle.write(|_| {});
    let socket = bundle.text("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = bundle.fails(&["create", "--console-socket", &socket, &bundle.id]);
    refused.complains("cannot use console socket if runc will not detach or allocate tty");
    bundle.is_clean();
}

/// A command line that makes no sense ends with 1 and changes nothing.
#[test]
fn command_lines() {
    let bundle = Bundle::new();
    for (words, said) in [
        (&["create"][..], "<ID>"),
        (&["create", "--no-such-flag", "x"], "--no-such-flag"),
        (&["fly", "x"], "fly"),
        (&["--log-format", "xml", "list"], "xml"),
        (&["list", "--format", "xml"], "xml"),
        (&["create", "--preserve-fds", "-1", "x"], "-1"),
        (&["create", "--preserve-fds", "9", "x"], "--preserve-fds"),
        (&["kill", "x", "NOTHING"], "NOTHING"),
        (&["kill", "x", "0"], "0"),
        (&["kill", "x", "65"], "65"),
        (&["update", "--memory", "lots", "x"], "--memory"),
        (&["exec", "--user", "root", "x", "true"], "root"),
        (&["events", "--interval", "soon", "x"], "soon"),
        (
            &["--log", "/no/such/folder/log", "list"],
            "/no/such/folder/log",
        ),
        (&["--rootless", "maybe", "list"], "maybe"),
    ] {
        let ran = bundle.run(words);
        assert_ne!(ran.get_output().status.code(), Some(0), "{ran}");
        ran.complains(said);
    }
    bundle.is_clean();
}

/// What is kept of another container, and was spoilt, hides no other and can be removed.
#[test]
fn a_spoilt_state() {
    let bundle = Bundle::new();
    let first = bundle.begin(|_| {});
    let spoilt = format!("{}-spoilt", bundle.id);
    for text in ["", "{", "{\"id\": 1}"] {
        let folder = bundle.path("state").join(&spoilt);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("state.json"), text).unwrap();
        let listed = bundle.run(&["list", "--format", "json"]).success();
        listed.complains(&spoilt);
        let all: Vec<Value> = serde_json::from_str(&listed.printed()).unwrap();
        assert!(
            all.iter()
                .any(|each| each["pid"] == json!(first.0.as_raw())),
            "{all:?}"
        );
        bundle.fails(&["state", &spoilt]).complains("state.json");
        bundle.fails(&["start", &spoilt]).complains("state.json");
        bundle.ok(&["delete", "--force", &spoilt]);
        assert_eq!(bundle.kept(), [&*bundle.id]);
    }
    // One that was killed before there was a process.
    let folder = bundle.path("state").join(&spoilt);
    fs::create_dir(&folder).unwrap();
    assert_eq!(bundle.status(&spoilt), "creating");
    bundle
        .fails(&["start", &spoilt])
        .complains("delete --force");
    bundle.ok(&["delete", "--force", &spoilt]);
    // The number of its process is somebody else's by now.
    let state = bundle.path("state").join(&bundle.id).join("state.json");
    let text = fs::read_to_string(&state).unwrap();
    let mut other = Command::new("sleep").arg("1000000").spawn().unwrap();
    let renumbered = text.replace(&format!(":{}", first.0), &format!(":{}", other.id()));
    assert_ne!(renumbered, text);
    fs::write(&state, renumbered).unwrap();
    assert_eq!(bundle.status(&bundle.id), "stopped");
    bundle
        .fails(&["kill", &bundle.id, "KILL"])
        .complains("container not running");
    let lives = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(lives, "somebody else was killed");
    fs::write(&state, text).unwrap();
    bundle.end();
}
