//! What a container may use up: in the files of its control groups, in the words of the version that is here.

use crate::stage::Printed;
use crate::stage::bundle::{Bundle, push};
use progress::checks::step07::group;
use progress::host::evidence::Process;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use step07_cgroups::Version;

const V1: Version = Version::V1;

/// A value in a file of version 1, and one of version 2; `None`: that version has no such thing, and refuses it.
type Places<'a> = (
    &'a str,
    Option<(&'a str, &'a str)>,
    Option<(&'a str, &'a str)>,
);

/// The text of the controller's file for the group that `process` is in.
fn said(process: Process, controller: &str, file: &str) -> String {
    let (folder, _) = group(process, controller).unwrap();
    let text = fs::read_to_string(folder.join(file));
    let text = text.unwrap_or_else(|error| panic!("{file}: {error}"));
    text.trim().to_owned()
}

fn version(controller: &str) -> Option<Version> {
    group(Process(nix::unistd::getpid()), controller)
        .ok()
        .map(|(_, version)| version)
}

/// Each of `values` is in its file for a container with these resources.
#[track_caller]
fn are_written(bundle: &Bundle, resources: Value, values: &[Places]) {
    let shown = resources.to_string();
    let first = bundle.begin(|config| config["linux"]["resources"] = resources);
    for (controller, v1, v2) in values {
        let wanted = match version(controller) {
            Some(V1) => v1,
            _ => v2,
        };
        let (file, value) = wanted.unwrap();
        assert_eq!(said(first, controller, file), value, "{file} for {shown}");
    }
    bundle.end();
}

#[test]
fn values_are_in_the_files() {
    let bundle = Bundle::new();
    let same = |controller, file, value| (controller, Some((file, value)), Some((file, value)));
    are_written(
        &bundle,
        json!({
            "memory": {"limit": 67108864, "reservation": 33554432, "swap": 100663296},
            "cpu": {"shares": 2048, "quota": 75000, "period": 50000, "burst": 1000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 50},
        }),
        &[
            (
                "memory",
                Some(("memory.limit_in_bytes", "67108864")),
                Some(("memory.max", "67108864")),
            ),
            (
                "memory",
                Some(("memory.soft_limit_in_bytes", "33554432")),
                Some(("memory.low", "33554432")),
            ),
            (
                "memory",
                Some(("memory.memsw.limit_in_bytes", "100663296")),
                Some(("memory.swap.max", "33554432")),
            ),
            (
                "cpu",
                Some(("cpu.shares", "2048")),
                Some(("cpu.weight", "174")),
            ),
            (
                "cpu",
                Some(("cpu.cfs_quota_us", "75000")),
                Some(("cpu.max", "75000 50000")),
            ),
            (
                "cpu",
                Some(("cpu.cfs_period_us", "50000")),
                Some(("cpu.max", "75000 50000")),
            ),
            (
                "cpu",
                Some(("cpu.cfs_burst_us", "1000")),
                Some(("cpu.max.burst", "1000")),
            ),
            same("cpuset", "cpuset.cpus", "0"),
            same("cpuset", "cpuset.mems", "0"),
            same("pids", "pids.max", "50"),
        ],
    );
    // Nothing is forbidden: the other end of a number.
    are_written(
        &bundle,
        json!({"pids": {"limit": -1}, "cpu": {"quota": -1}, "memory": {"limit": -1, "swap": -1}}),
        &[
            same("pids", "pids.max", "max"),
            (
                "cpu",
                Some(("cpu.cfs_quota_us", "-1")),
                Some(("cpu.max", "max 100000")),
            ),
            (
                "memory",
                Some(("memory.limit_in_bytes", "9223372036854771712")),
                Some(("memory.max", "max")),
            ),
            (
                "memory",
                Some(("memory.memsw.limit_in_bytes", "9223372036854771712")),
                Some(("memory.swap.max", "max")),
            ),
        ],
    );
    // A group with minimum weight.
    are_written(
        &bundle,
        json!({"cpu": {"idle": 1}}),
        &[same("cpu", "cpu.idle", "1")],
    );
    // A period alone, and no more than a quota.
    are_written(
        &bundle,
        json!({"cpu": {"period": 20000}}),
        &[(
            "cpu",
            Some(("cpu.cfs_period_us", "20000")),
            Some(("cpu.max", "max 20000")),
        )],
    );
    are_written(
        &bundle,
        json!({"cpu": {"quota": 20000}}),
        &[(
            "cpu",
            Some(("cpu.cfs_quota_us", "20000")),
            Some(("cpu.max", "20000 100000")),
        )],
    );
    if version("memory") == Some(V1) {
        let resources =
            json!({"memory": {"swappiness": 7, "disableOOMKiller": true, "kernelTCP": 4194304}});
        are_written(
            &bundle,
            resources,
            &[
                ("memory", Some(("memory.swappiness", "7")), None),
                (
                    "memory",
                    Some(("memory.kmem.tcp.limit_in_bytes", "4194304")),
                    None,
                ),
            ],
        );
        let disabled = json!({"memory": {"disableOOMKiller": true}});
        let first = bundle.begin(|config| config["linux"]["resources"] = disabled);
        let control = said(first, "memory", "memory.oom_control");
        assert!(control.contains("oom_kill_disable 1"), "{control}");
        bundle.end();
    }
}

/// No process is a limit, too: the first one runs, and can't have a child.
#[test]
fn a_limit_of_no_process() {
    let bundle = Bundle::new();
    let none = |config: &mut Value| config["linux"]["resources"] = json!({"pids": {"limit": 0}});
    let first = bundle.begin(none);
    assert_eq!(said(first, "pids", "pids.max"), "0");
    bundle.end();
    let ran = bundle.runs("sleep 0; echo code $?", none);
    assert!(!ran.printed().contains("code 0"), "{ran}");
    bundle.is_clean();
}

/// What a disk may be asked for in a second.
#[test]
fn throttled_disks() {
    let Some((major, minor)) = disk() else {
        return crate::stage::skip("there is no disk");
    };
    let bundle = Bundle::new();
    let throttle = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let first = bundle.begin(|config| {
        config["linux"]["resources"]["blockIO"] = json!({
            "throttleReadBpsDevice": throttle(1 << 20),
            "throttleWriteBpsDevice": throttle(2 << 20),
            "throttleReadIOPSDevice": throttle(30),
            "throttleWriteIOPSDevice": throttle(40),
        });
    });
    match version("blkio") {
        Some(V1) => {
            for (file, rate) in [
                ("read_bps", "1048576"),
                ("write_bps", "2097152"),
                ("read_iops", "30"),
                ("write_iops", "40"),
            ] {
                let text = said(first, "blkio", &format!("blkio.throttle.{file}_device"));
                assert_eq!(text, format!("{major}:{minor} {rate}"), "{file}");
            }
        }
        _ => assert_eq!(
            said(first, "io", "io.max"),
            format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=30 wiops=40")
        ),
    }
    bundle.end();
}

/// The number of a disk, whatever it is.
fn disk() -> Option<(u32, u32)> {
    let entries = fs::read_dir("/sys/block").ok()?.flatten();
    let number = |path: &Path| {
        let text = fs::read_to_string(path.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let mut numbers: Vec<(u32, u32)> = entries.filter_map(|entry| number(&entry.path())).collect();
    numbers.sort_unstable();
    numbers.pop()
}

/// What this machine hasn't got, or its version of control groups doesn't know, is refused by its name.
#[test]
fn what_this_machine_cannot_limit() {
    let bundle = Bundle::new();
    let mut refused = vec![
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}),
            "hugetlb",
            "hugepageLimits",
        ),
        (
            json!({"network": {"classID": 1048577}}),
            "net_cls",
            "network.classID",
        ),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
            "net_prio",
            "network.priorities",
        ),
        (
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}),
            "rdma",
            "rdma",
        ),
        (
            json!({"unified": {"no_such.max": "1"}}),
            "no_such",
            "unified.no_such.max",
        ),
    ];
    refused.retain(|(_, controller, _)| {
        let place = version(controller);
        place.is_none_or(|version| version == Version::V2 && !is_enabled(controller))
    });
    assert!(!refused.is_empty());
    for (resources, controller, field) in refused {
        let field = format!("linux.resources.{field}");
        bundle.refuses(
            |config| config["linux"]["resources"] = resources,
            &[&field, controller],
        );
    }
    if version("memory") == Some(V1) {
        bundle.refuses(
            |config| config["linux"]["resources"] = json!({"unified": {"memory.high": "max"}}),
            &["linux.resources.unified.memory.high", "version 1"],
        );
    }
    for (resources, said) in [
        (
            json!({"memory": {"swappiness": 101}}),
            "linux.resources.memory.swappiness",
        ),
        (json!({"cpu": {"cpus": "4095"}}), "cpuset.cpus"),
        (json!({"cpu": {"mems": "many"}}), "cpuset.mems"),
        (json!({"cpu": {"quota": 1}}), "cpu."),
        (
            json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}),
            "hugepageLimits",
        ),
        (
            json!({"unified": {"../x.max": "1"}}),
            "linux.resources.unified",
        ),
        (
            json!({"unified": {"cgroup.procs": "1"}}),
            "linux.resources.unified",
        ),
        (
            json!({"pids": {"limit": "many"}}),
            "linux.resources.pids.limit",
        ),
        (
            json!({"devices": [{"allow": true, "type": "x"}]}),
            "linux.resources.devices[0]: type",
        ),
        (
            json!({"devices": [{"allow": true, "type": "c", "access": "x"}]}),
            "linux.resources.devices[0]: access",
        ),
        (
            json!({"devices": [{"type": "c"}]}),
            "linux.resources.devices[0]",
        ),
    ] {
        bundle.refuses(|config| config["linux"]["resources"] = resources, &[said]);
    }
}

fn is_enabled(controller: &str) -> bool {
    let (folder, _) = group(Process(nix::unistd::getpid()), controller).unwrap();
    let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().any(|each| each == controller)
}

/// Rules for devices hold in their order, for who makes a device and for who opens it.
#[test]
fn rules_for_devices() {
    let bundle = Bundle::new();
    let nothing = json!({"allow": false, "access": "rwm"});
    let log = |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": access});
    // To open is enough: nothing is written.
    let line = "mknod /tmp/log c 1 11 || echo no file; (: >/tmp/log) 2>/dev/null && echo writes; rm -f /tmp/log";
    for (rules, wanted) in [
        (json!([]), "writes\n"),
        (json!([nothing]), ""),
        (json!([nothing, log(true, "w")]), "writes\n"),
        (json!([nothing, log(true, "rwm")]), "writes\n"),
        (json!([nothing, log(true, "r")]), ""),
        (json!([nothing, log(true, "rw"), log(false, "rw")]), ""),
        (json!([log(true, "rw"), nothing]), ""),
        (
            json!([nothing, {"allow": true, "type": "c", "major": 1, "access": "w"}]),
            "writes\n",
        ),
        (
            json!([nothing, {"allow": true, "type": "c", "access": "w"}]),
            "writes\n",
        ),
        (
            json!([nothing, {"allow": true, "type": "b", "access": "rwm"}]),
            "",
        ),
        (
            json!([nothing, {"allow": true, "type": "a", "access": "rwm"}]),
            "writes\n",
        ),
    ] {
        let said = bundle.says(&format!("{line}; echo $?"), |config| {
            for set in ["bounding", "permitted", "effective"] {
                push(
                    &mut config["process"]["capabilities"][set],
                    json!("CAP_MKNOD"),
                );
            }
            config["linux"]["resources"]["devices"] = rules.clone();
        });
        assert_eq!(said, format!("{wanted}0\n"), "{rules}");
    }
    // What every container may use it may use whatever the rules.
    let usual =
        "echo x >/dev/null && head -c 4 /dev/zero /dev/urandom /dev/random >/dev/null && echo fine";
    assert_eq!(bundle.says(usual, |_| {}), "fine\n");
}

/// Where the groups are: at the path that is said, below the topmost group of each hierarchy, and else by the ID.
#[test]
fn paths_of_control_groups() {
    let bundle = Bundle::new();
    let id = &bundle.id;
    for (path, wanted) in [
        (String::new(), id.clone()),
        (format!("/{id}-x"), format!("{id}-x")),
        (format!("{id}-y"), format!("{id}-y")),
        (format!("/{id}-deep/er/down"), format!("{id}-deep/er/down")),
    ] {
        let first = bundle.begin(|config| config["linux"]["cgroupsPath"] = json!(path));
        let text = fs::read_to_string(first.file("cgroup")).unwrap();
        for line in text.lines() {
            let (controllers, place) = line.split_once(':').unwrap().1.split_once(':').unwrap();
            if controllers.is_empty() && version("memory") == Some(V1) {
                continue;
            }
            assert_eq!(place, format!("/{wanted}"), "{path:?}: {line}");
        }
        bundle.ok(&["delete", "--force", id]);
        for folder in bundle.groups() {
            // The group itself is gone. Groups above it may be others', too.
            let below = Path::new(&wanted)
                .strip_prefix(folder.file_name().unwrap())
                .unwrap();
            assert!(
                below.components().count() > 0 && !folder.join(below).exists(),
                "{path:?}"
            );
            fs::remove_dir(folder.join("er")).unwrap();
            fs::remove_dir(folder).unwrap();
        }
        bundle.is_clean();
    }
    bundle.refuses(
        |config| config["linux"]["cgroupsPath"] = json!(format!("/{id}/../x")),
        &["linux.cgroupsPath", ".."],
    );
    bundle.refuses(
        |config| config["linux"]["cgroupsPath"] = json!("/ten-steps/box"),
        &["linux.cgroupsPath", "ten-steps"],
    );
    // Where somebody is already, nobody's limits are changed.
    let same = |limit: u32| {
        move |config: &mut Value| config["linux"]["resources"]["pids"] = json!({"limit": limit})
    };
    let first = bundle.begin(same(11));
    let other = format!("{id}-other");
    bundle.write(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        same(22)(config);
    });
    bundle
        .fails(&["create", &other])
        .complains("linux.cgroupsPath");
    assert_eq!(bundle.kept(), [&**id]);
    assert_eq!(said(first, "pids", "pids.max"), "11");
    bundle.end();
}
