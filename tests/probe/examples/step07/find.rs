//! 7.1: the texts of made-up machines.

use probe::anyhow::Result;
use probe::{Claim, Findings, Watcher, libc};
use std::path::Path;
use step07_cgroups::Version::{self, V1, V2};
use step07_cgroups::{find as hierarchy_of, unescaped};

/// A folder and its version.
type Answer = Option<(&'static str, Version)>;

/// A machine, by its two texts.
struct Machine {
    /// What is claimed of it.
    claim: &'static str,
    controller: &'static str,
    mountinfo: &'static str,
    own: &'static str,
    wanted: Answer,
    /// Answers that one mistake alone gives.
    mistakes: &'static [(Answer, &'static str)],
}

const OWN_GROUP: &str = "the caller's own group was put behind the mount point: the folder of the hierarchy is the mount \
                         point itself";
const V1_OR_NONE: &str = "a line of version 1 names the controller, so that version 2 can't have it, whether version 1 is \
                          mounted or not";
const ESCAPED: &str =
    "the mount point was taken as mountinfo writes it, where \\040 stands for a space";
const FIRST: &str = "the first mount of the hierarchy was taken, whatever its root field says: it shows /other and what is \
                     below, and the caller isn't there";

const MACHINES: &[Machine] = &[
    Machine {
        claim: "each controller has a hierarchy of version 1",
        controller: "memory",
        mountinfo: "31 30 0:27 / /cg/pids rw,nosuid shared:9 - cgroup cgroup rw,pids\n\
                    32 30 0:28 / /cg/memory rw,nosuid shared:10 - cgroup cgroup rw,memory\n",
        own: "5:pids:/a\n4:memory:/docker/0123\n",
        wanted: Some(("/cg/memory", V1)),
        mistakes: &[(Some(("/cg/memory/docker/0123", V1)), OWN_GROUP)],
    },
    Machine {
        claim: "there is version 2 alone",
        controller: "memory",
        mountinfo: "30 20 0:25 / /cg rw - cgroup2 cgroup2 rw,nsdelegate\n",
        own: "0::/user.slice\n",
        wanted: Some(("/cg", V2)),
        mistakes: &[(Some(("/cg/user.slice", V2)), OWN_GROUP)],
    },
    Machine {
        claim: "nothing is mounted",
        controller: "memory",
        mountinfo: "30 20 0:25 / /sys rw - sysfs sysfs rw\n",
        own: "4:memory:/a\n0::/b\n",
        wanted: None,
        mistakes: &[],
    },
    Machine {
        claim: "the controller is version 2's, and others are version 1's",
        controller: "memory",
        mountinfo: "31 30 0:27 / /cg/pids rw - cgroup cgroup rw,pids\n\
                    32 30 0:28 / /cg/both rw - cgroup2 cgroup2 rw\n",
        own: "2:pids:/a\n0::/b\n",
        wanted: Some(("/cg/both", V2)),
        mistakes: &[(
            Some(("/cg/pids", V2)),
            "a mount of the type cgroup, which is version 1's, was taken for version 2's",
        )],
    },
    Machine {
        claim: "the controller is version 1's, and others are version 2's",
        controller: "pids",
        mountinfo: "32 30 0:28 / /cg/both rw - cgroup2 cgroup2 rw,pids_localevents\n\
                    31 30 0:27 / /cg/pids rw - cgroup cgroup rw,pids\n",
        own: "0::/b\n2:pids:/a\n",
        wanted: Some(("/cg/pids", V1)),
        mistakes: &[
            (
                Some(("/cg/both", V2)),
                "a line of version 1 names the controller, wherever the line of version 2 stands",
            ),
            (
                Some(("/cg/both", V1)),
                "a mount of the type cgroup2 was taken for version 1's",
            ),
        ],
    },
    Machine {
        claim: "version 1 has the controller, and isn't mounted",
        controller: "pids",
        mountinfo: "32 30 0:28 / /cg/both rw - cgroup2 cgroup2 rw\n",
        own: "2:pids:/a\n0::/b\n",
        wanted: None,
        mistakes: &[
            (Some(("/cg/both", V2)), V1_OR_NONE),
            (Some(("/cg/both", V1)), V1_OR_NONE),
        ],
    },
    Machine {
        claim: "no line has the controller, and there is none of version 2",
        controller: "memory",
        mountinfo: "31 30 0:27 / /cg/pids rw - cgroup cgroup rw,pids\n\
                    32 30 0:28 / /cg/both rw - cgroup2 cgroup2 rw\n",
        own: "2:pids:/a\n",
        wanted: None,
        mistakes: &[(
            Some(("/cg/both", V2)),
            "the caller is in no group of version 2: there is no line 0::",
        )],
    },
    Machine {
        claim: "one hierarchy has two controllers",
        controller: "cpuacct",
        mountinfo: "31 30 0:27 / /cg/both rw - cgroup cgroup rw,cpu,cpuacct\n",
        own: "3:cpu,cpuacct:/a\n",
        wanted: Some(("/cg/both", V1)),
        mistakes: &[(
            None,
            "a mount may have several controllers among its options, in any order, with commas between them",
        )],
    },
    Machine {
        claim: "another controller's name begins with this one's",
        controller: "cpu",
        mountinfo: "31 30 0:27 / /cg/cpuset rw - cgroup cgroup rw,cpuset\n\
                    32 30 0:28 / /cg/cpu rw - cgroup cgroup rw,cpu\n",
        own: "4:cpuset:/a\n3:cpu:/b\n",
        wanted: Some(("/cg/cpu", V1)),
        mistakes: &[(
            Some(("/cg/cpuset", V1)),
            "cpu was looked for in the text of the options, and cpuset has it, too: names are compared whole",
        )],
    },
    Machine {
        claim: "somebody gave a mount the source memory",
        controller: "memory",
        mountinfo: "31 30 0:27 / /cg/first rw - cgroup memory rw,pids\n\
                    32 30 0:28 / /cg/second rw - cgroup none rw,memory\n",
        own: "4:memory:/a\n3:pids:/b\n",
        wanted: Some(("/cg/second", V1)),
        mistakes: &[(
            Some(("/cg/first", V1)),
            "the mount's source was compared, a word that anybody may choose; the controllers are among the options \
             behind it",
        )],
    },
    Machine {
        claim: "the folders have unusual names",
        controller: "memory",
        mountinfo: "31 30 0:27 / /memory rw - cgroup cgroup rw,pids\n\
                    32 30 0:28 / /mnt/x rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/a\n3:pids:/b\n",
        wanted: Some(("/mnt/x", V1)),
        mistakes: &[(
            Some(("/memory", V1)),
            "the mount point's name was compared: a hierarchy may be mounted anywhere",
        )],
    },
    Machine {
        claim: "another filesystem has an option of that name",
        controller: "memory",
        mountinfo: "31 30 0:27 / /tmp rw - tmpfs cgroup rw,memory\n\
                    32 30 0:28 / /cg rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/a\n",
        wanted: Some(("/cg", V1)),
        mistakes: &[(
            Some(("/tmp", V1)),
            "the mount on /tmp has the type tmpfs: a hierarchy of version 1 has the type cgroup",
        )],
    },
    Machine {
        claim: "mounts have several tags, or none",
        controller: "memory",
        mountinfo: "31 30 0:27 / /a rw shared:9 master:2 propagate_from:3 - cgroup cgroup rw,pids\n\
                    32 30 0:28 / /b rw shared:9 master:2 propagate_from:3 - cgroup cgroup rw,memory\n",
        own: "4:memory:/a\n3:pids:/a\n",
        wanted: Some(("/b", V1)),
        mistakes: &[(
            None,
            "before the - may stand any number of tags (shared:9), so the fields behind it have no fixed number",
        )],
    },
    Machine {
        claim: "a hierarchy has a name and no controller",
        controller: "name=systemd",
        mountinfo: "31 30 0:27 / /cg/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    32 30 0:28 / /cg/both rw - cgroup2 cgroup2 rw\n",
        own: "1:name=systemd:/a\n0::/b\n",
        wanted: Some(("/cg/systemd", V1)),
        mistakes: &[],
    },
    Machine {
        claim: "a mount shows other groups only",
        controller: "memory",
        mountinfo: "31 30 0:27 /other /cg/part rw - cgroup cgroup rw,memory\n\
                    32 30 0:27 / /cg/all rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/docker/0123\n",
        wanted: Some(("/cg/all", V1)),
        mistakes: &[(Some(("/cg/part", V1)), FIRST)],
    },
    Machine {
        claim: "a mount of version 2 shows other groups only",
        controller: "memory",
        mountinfo: "31 30 0:27 /other /cg/part rw - cgroup2 cgroup2 rw\n\
                    32 30 0:27 / /cg/all rw - cgroup2 cgroup2 rw\n",
        own: "0::/docker/0123\n",
        wanted: Some(("/cg/all", V2)),
        mistakes: &[(Some(("/cg/part", V2)), FIRST)],
    },
    Machine {
        claim: "the only mount shows other groups",
        controller: "memory",
        mountinfo: "31 30 0:27 /other /cg/part rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/docker/0123\n",
        wanted: None,
        mistakes: &[(
            Some(("/cg/part", V1)),
            "where no mount shows the caller's group there is nothing to be found: the mount's root field says /other",
        )],
    },
    Machine {
        claim: "the only mount of version 2 shows other groups",
        controller: "memory",
        mountinfo: "31 30 0:27 /other /cg/part rw - cgroup2 cgroup2 rw\n",
        own: "0::/docker/0123\n",
        wanted: None,
        mistakes: &[(
            Some(("/cg/part", V2)),
            "where no mount shows the caller's group there is nothing to be found: the mount's root field says /other",
        )],
    },
    Machine {
        claim: "a mount shows the caller's own group, as in a container",
        controller: "memory",
        mountinfo: "31 30 0:27 /docker/0123 /cg rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/docker/0123\n",
        wanted: Some(("/cg", V1)),
        mistakes: &[(
            None,
            "the mount's root is the caller's own group, and so the mount shows it",
        )],
    },
    Machine {
        claim: "a mount shows a group above the caller's",
        controller: "memory",
        mountinfo: "31 30 0:27 /docker /cg rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/docker/0123\n",
        wanted: Some(("/cg", V1)),
        mistakes: &[(
            None,
            "the mount's root, /docker, is above the caller's group /docker/0123, and so the mount shows it",
        )],
    },
    Machine {
        claim: "a mount shows a group whose name is only the beginning of the caller's",
        controller: "memory",
        mountinfo: "31 30 0:27 /docker/01 /cg rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/docker/0123\n",
        wanted: None,
        mistakes: &[(
            Some(("/cg", V1)),
            "/docker/0123 isn't below /docker/01, although its text begins so: names are compared whole",
        )],
    },
    Machine {
        claim: "the mount point has a space in its name",
        controller: "memory",
        mountinfo: "31 30 0:27 / /my\\040groups rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/a\n",
        wanted: Some(("/my groups", V1)),
        mistakes: &[(Some(("/my\\040groups", V1)), ESCAPED)],
    },
    Machine {
        claim: "the root field has a space in its name",
        controller: "memory",
        mountinfo: "31 30 0:27 /my\\040groups /cg rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/my groups/a\n",
        wanted: Some(("/cg", V1)),
        mistakes: &[(
            None,
            "the root field was taken as mountinfo writes it, where \\040 stands for a space, and compared with a group's real name",
        )],
    },
    Machine {
        claim: "a mount shows a group beside the caller's cgroup namespace, and no other mount is there",
        controller: "memory",
        mountinfo: "31 30 0:27 /../other /cg rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/\n",
        wanted: None,
        mistakes: &[(
            Some(("/cg", V1)),
            "/../other leads up and down again, into a group that the caller isn't in: only /.. alone, or /../.., is above it",
        )],
    },
    Machine {
        claim: "the caller's group has a colon in its name",
        controller: "memory",
        mountinfo: "31 30 0:27 /a:b /cg rw - cgroup cgroup rw,memory\n",
        own: "4:memory:/a:b/c\n",
        wanted: Some(("/cg", V1)),
        mistakes: &[(
            None,
            "a line of /proc/self/cgroup has three fields, and the third is all the rest, colons too",
        )],
    },
];

/// The calls by which somebody would look at this machine instead.
const LOOKING: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
];

pub fn find(findings: &Findings) -> Result<()> {
    for machine in MACHINES {
        if findings.all_hold() {
            try_on(findings, machine)?;
        }
    }
    Ok(())
}

/// An answer for the learner.
fn in_words(answer: Option<(&str, Version)>) -> String {
    match answer {
        None => "nothing".into(),
        Some((folder, V1)) => format!("{folder}, version 1"),
        Some((folder, V2)) => format!("{folder}, version 2"),
    }
}

fn try_on(findings: &Findings, machine: &Machine) -> Result<()> {
    let &Machine {
        controller,
        mountinfo,
        own,
        wanted,
        ..
    } = machine;
    let expected = format!(
        "where {}, find({controller:?}) finds {}",
        machine.claim,
        in_words(wanted)
    );
    findings.begin(&expected);
    let watcher = Watcher::records(LOOKING);
    let outcome = findings.subject().watch(watcher).call(|| {
        let found = hierarchy_of(controller, mountinfo, own);
        Ok(found.map(|(folder, version)| (folder, version == V2)))
    })?;
    let found: Option<Option<(String, bool)>> = outcome.value();
    let found: Option<Option<(&str, Version)>> = found.as_ref().map(|found| {
        let found = found.as_ref();
        found.map(|(folder, is_2)| (&**folder, if *is_2 { V2 } else { V1 }))
    });
    let seen = match found {
        Some(found) => format!("it found {}, by\n{mountinfo}{own}", in_words(found)),
        None => format!("{}, by\n{mountinfo}{own}", outcome.in_words()),
    };
    let mut mistakes = machine.mistakes.iter();
    let mistake = mistakes.find(|(answer, _)| found == Some(*answer));
    let mut why = mistake.map(|(_, why)| String::from(*why));
    if let Some(Some((folder, _))) = found {
        let is_known = mountinfo
            .split(' ')
            .any(|field| unescaped(field) == Path::new(folder));
        let unknown = "no line of mountinfo has that folder: where a hierarchy is mounted differs from machine to machine";
        why = why.or((!is_known).then(|| unknown.into()));
    }
    let why = why.filter(|_| found != Some(wanted));
    findings.claim(Claim::new(expected, seen, found == Some(wanted)).because(why));
    let looked = outcome.calls.first();
    let expected = "find goes by the texts that it is given";
    let seen = match looked {
        Some(call) => {
            let texts = call.texts.iter().flatten();
            let path = texts.map(String::as_str).find(|text| !text.is_empty());
            format!("it looked at {} of this machine", path.unwrap_or("a file"))
        }
        None => "it looked at no file".into(),
    };
    let why = "the texts may be another process's, or another machine's: nothing else says what is mounted there";
    let claim = Claim::new(expected, seen, looked.is_none());
    findings.claim(claim.because(looked.map(|_| why.into())));
    Ok(())
}
