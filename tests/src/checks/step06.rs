//! Chapter 6: few privileges.

use crate::course::Exercise;
use crate::course::workbench::{READY, Workbench};
use crate::host::container::{Container, run_with};
use crate::host::evidence::Process;
use anyhow::Result;
use probe::Claim;
use std::path::Path;
use std::process::Command;
use step06_caps::capabilities::permitted;

/// The exercises of chapter 6.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "become_user",
        heart: "order",
        check: become_user,
        scenes: &[
            &["--rootfs", "{root}", "-u", "4711:4712", "true"],
            &["--rootfs", "{root}", "true"],
        ],
        mistakes: &[],
        read: "credentials(7), setresuid(2), setgroups(2), prctl(2) on PR_SET_KEEPCAPS",
        show: "cargo progress run 6 -- -u 1000:1000 --cap-add CHOWN grep -E '^(Uid|Gid|Groups|Cap)' /proc/self/status",
        hints: [
            "Changing groups takes CAP_SETGID, which goes with uid 0. So what comes last? And whose \
             supplementary groups are those that nobody changed?",
            "Make a Uid and Gids by from_raw. Then setgroups(&groups), setresgid with the gid three \
             times, and, if the uid isn't getuid() already, set_keepcaps(true) and setresuid with the \
             uid three times.",
        ],
    },
    Exercise {
        name: "drop_capabilities",
        heart: "the bounding set outlives exec",
        check: drop_capabilities,
        scenes: &[
            &["--rootfs", "{root}", "true"],
            &["--rootfs", "{root}", "-u", "4711:4712", "true"],
        ],
        mistakes: &[],
        read: "capabilities(7), capset(2), prctl(2) on PR_CAP_AMBIENT",
        show: "cargo progress run 6 -- --init grep ^Cap /proc/1/status",
        hints: [
            "Five lines in /proc/PID/status begin with Cap. Which of them did your call change, and \
             which did execve? PID 1 of `--init` calls no execve: what does its file say?",
            "capset(sets.effective, sets.permitted, sets.inheritable), then raise_ambient for each \
             capability whose bit is in sets.ambient.",
        ],
    },
    Exercise {
        name: "filter",
        heart: "a filter binds its installer",
        check: filter,
        scenes: &[
            &["--rootfs", "{root}", "true"],
            &[
                "--rootfs",
                "{root}",
                "--security-opt",
                "no-new-privileges=false",
                "true",
            ],
            &[
                "--rootfs",
                "{root}",
                "--security-opt",
                "seccomp=unconfined",
                "true",
            ],
        ],
        mistakes: &[],
        read: "seccomp(2), prctl(2) on PR_SET_NO_NEW_PRIVS",
        show: "cargo progress run 6 -- grep -E 'NoNewPrivs|Seccomp' /proc/self/status",
        hints: [
            "What does the kernel ask of a process that wants a filter and isn't privileged? And is \
             each of the two wanted always?",
            "set_no_new_privs() when no_new_privileges says so, and only then \
             seccomp(SECCOMP_SET_MODE_FILTER, filter) when there is one.",
        ],
    },
    Exercise {
        name: "make_read_only",
        heart: "uid 0 writes /proc/sys without any capability",
        check: make_read_only,
        scenes: &[&["--rootfs", "{root}", "true"]],
        mistakes: &[],
        read: "mount(2) on MS_BIND and MS_REMOUNT, statvfs(3)",
        show: "cargo progress run 6 -- grep /proc /proc/self/mountinfo",
        hints: [
            "MS_BIND looks at no other flag of the call that makes the mount. And what happens to the \
             flags that a remount doesn't name?",
            "mount(Some(path), path, none, MS_BIND, none), where ENOENT means Ok(()); then mount(none, path, \
             none, flags, none) with flags_of(path)? | MS_REMOUNT | MS_BIND | MS_RDONLY.",
        ],
    },
];

fn start(bench: &Workbench, flags: &[&str]) -> Result<Container> {
    Container::start(
        &bench.program,
        &bench.in_root(&[&["-i"], flags].concat(), &READY)?,
    )
}

/// Each of `lines` of the process's status is what it is to be.
fn status(process: Process, what: &str, lines: &[(&str, String)]) -> Result<Vec<Claim>> {
    let claim = |(key, wanted): &(&str, String)| {
        let seen = process.status(key)?;
        let seen = seen.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = format!("{what}; {key}");
        Ok(Claim::equal(
            &expected,
            &format!("/proc/PID/status: {key}"),
            &seen,
            wanted,
        ))
    };
    lines.iter().map(claim).collect()
}

/// Docker's fourteen, as far as this program has them itself.
const FOURTEEN: u64 = 0xa804_25fb;

/// 6.2: five sets, for root and for another user.
pub fn drop_capabilities(bench: &Workbench) -> Result<Vec<Claim>> {
    let may = permitted();
    let mask = |mask: u64| format!("{:016x}", mask & may);
    let sets = |bounding, held| {
        [
            ("CapBnd", mask(bounding)),
            ("CapPrm", mask(held)),
            ("CapEff", mask(held)),
            ("CapInh", mask(0)),
            ("CapAmb", mask(0)),
        ]
    };
    let mut claims = Vec::new();
    for (what, flags, bounding, held) in [
        ("root has Docker's fourteen", &[][..], FOURTEEN, FOURTEEN),
        (
            "--cap-drop ALL --cap-add CHOWN leaves one",
            &["--cap-drop", "ALL", "--cap-add", "cap_chown"],
            1,
            1,
        ),
        ("another user has none", &["-u", "4711"], FOURTEEN, 0),
    ] {
        let container = start(bench, flags)?;
        claims.extend(status(
            container.first_process(),
            what,
            &sets(bounding, held),
        )?);
    }
    Ok(claims)
}

/// 6.1: user and groups, four times each, and none of the host's.
pub fn become_user(bench: &Workbench) -> Result<Vec<Claim>> {
    let mut command = Command::new("setpriv");
    command.args(["--groups", "4,20,27"]).arg(&bench.program);
    command.args(bench.in_root(&["-i", "-u", "4711:4712"], &READY)?);
    let container = Container::start_with(&mut command)?;
    let four = |id: u32| {
        [
            id.to_string(),
            id.to_string(),
            id.to_string(),
            id.to_string(),
        ]
        .join(" ")
    };
    let lines = [
        ("Uid", four(4711)),
        ("Gid", four(4712)),
        ("Groups", String::new()),
    ];
    let mut claims = status(container.first_process(), "-u 4711:4712", &lines)?;
    let unknown = run_with(
        Command::new(&bench.program).args(bench.in_root(&["-u", "nobody-of-the-host"], &["true"])?),
    )?;
    claims.push(Claim::equal(
        "a name that the root doesn't know is an error",
        "exit code",
        &unknown.code,
        &125,
    ));
    Ok(claims)
}

/// 6.4: what changes the host is read-only in there, and has kept its other flags.
pub fn make_read_only(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = start(bench, &[])?;
    let mounts = container.first_process().mounts()?;
    let mut claims = Vec::new();
    for path in [
        "/proc/sys",
        "/proc/irq",
        "/proc/sysrq-trigger",
        "/proc/fs",
        "/proc/bus",
    ] {
        if !Path::new(path).exists() {
            continue;
        }
        let mount = mounts.iter().find(|mount| mount.target == Path::new(path));
        let options = mount.map_or("no mount of its own", |mount| mount.options.as_str());
        let has = |option| options.split(',').any(|each| each == option);
        claims.push(Claim::new(
            format!("{path} is read-only, and nosuid, nodev and noexec as /proc is"),
            format!("/proc/PID/mountinfo: {path}: {options}"),
            ["ro", "nosuid", "nodev", "noexec"].into_iter().all(has),
        ));
    }
    let whole = mounts
        .iter()
        .find(|mount| mount.target == Path::new("/proc"));
    let options = whole.map_or("", |mount| mount.options.as_str());
    claims.push(Claim::new(
        "the rest of /proc can be written",
        format!("/proc/PID/mountinfo: /proc: {options}"),
        options.starts_with("rw"),
    ));
    Ok(claims)
}

/// 6.3: a filter and no_new_privs, each by itself too.
pub fn filter(bench: &Workbench) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for (what, flags, no_new_privs, seccomp) in [
        ("both are on", &[][..], "1", "2"),
        (
            "without no_new_privs the filter is there",
            &["--security-opt", "no-new-privileges=false"],
            "0",
            "2",
        ),
        (
            "without a filter no_new_privs is there",
            &["--security-opt", "seccomp=unconfined"],
            "1",
            "0",
        ),
    ] {
        let container = start(bench, flags)?;
        let lines = [
            ("NoNewPrivs", no_new_privs.to_owned()),
            ("Seccomp", seccomp.to_owned()),
        ];
        claims.extend(status(container.first_process(), what, &lines)?);
    }
    Ok(claims)
}
