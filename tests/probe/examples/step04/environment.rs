//! 4.3: what a command finds in its environment. No system call: texts in, texts out.

use probe::anyhow::Result;
use probe::{Claim, Findings};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use step04_pivot_root::environment;

/// What was given, and what has to come of it, beside the three that are always there.
struct Case {
    expected: &'static str,
    given: &'static [&'static str],
    /// Variables that have to be there, each once.
    has: &'static [(&'static str, &'static str)],
    /// Variables that mustn't be there.
    lacks: &'static [&'static str],
    why: &'static str,
}

const CASES: &[Case] = &[
    Case {
        expected: "without -e there are PATH, HOSTNAME and HOME, and nothing of the host's",
        given: &[],
        has: &[],
        lacks: &["SECRET", "FROM_HOST"],
        why: "the host's environment came along, its secrets and its PATH too",
    },
    Case {
        expected: "-e A=1 is there",
        given: &["A=1"],
        has: &[("A", "1")],
        lacks: &["SECRET"],
        why: "what -e gives isn't in the list",
    },
    Case {
        expected: "-e A=B=C: only the first `=` ends the name",
        given: &["A=B=C"],
        has: &[("A", "B=C")],
        lacks: &[],
        why: "the value was cut at its second `=`, or the name goes up to the last one",
    },
    Case {
        expected: "-e A= is there, with nothing for its value",
        given: &["A="],
        has: &[("A", "")],
        lacks: &[],
        why: "an empty value is a value: the variable was left out, or took the host's",
    },
    Case {
        expected: "-e FROM_HOST= isn't the host's value, and isn't left out",
        given: &["FROM_HOST="],
        has: &[("FROM_HOST", "")],
        lacks: &[],
        why: "`KEY=` gives the empty value; only `KEY` alone asks for the host's",
    },
    Case {
        expected: "-e FROM_HOST takes the host's value",
        given: &["FROM_HOST"],
        has: &[("FROM_HOST", "taken=whole")],
        lacks: &[],
        why: "a KEY without a value takes the host's",
    },
    Case {
        expected: "-e ABSENT is left out, since the host has none",
        given: &["ABSENT"],
        has: &[],
        lacks: &["ABSENT"],
        why: "the host has no such variable: then it is left out, and isn't empty",
    },
    Case {
        expected: "-e A=1 -e B=2 -e A=3: A is 3, and there once",
        given: &["A=1", "B=2", "A=3"],
        has: &[("A", "3"), ("B", "2")],
        lacks: &[],
        why: "of a variable that is given again the value that was given last counts, and the earlier one goes",
    },
    Case {
        expected: "-e A=1 -e A=B=C: A is B=C, and there once",
        given: &["A=1", "A=B=C"],
        has: &[("A", "B=C")],
        lacks: &[],
        why: "a name ends at the first `=`: with the last one A=B=C would be about a variable A=B",
    },
    Case {
        expected: "-e HOME=/tmp -e PATH=/bin -e HOSTNAME=other replace the three that are always there",
        given: &["HOME=/tmp", "PATH=/bin", "HOSTNAME=other"],
        has: &[("HOME", "/tmp"), ("PATH", "/bin"), ("HOSTNAME", "other")],
        lacks: &[],
        why: "what -e gives counts more than what is there by itself, and each name is there once",
    },
    Case {
        expected: "-e HOME takes the host's HOME",
        given: &["HOME"],
        has: &[("HOME", "/home/somebody")],
        lacks: &[],
        why: "a KEY without a value takes the host's, also where there is a value already",
    },
    Case {
        expected: "-e H=1 -e PATHS=2 -e HOMER=3 have nothing to do with HOME and PATH",
        given: &["H=1", "PATHS=2", "HOMER=3", "HO=4"],
        has: &[("H", "1"), ("PATHS", "2"), ("HOMER", "3"), ("HO", "4")],
        lacks: &[],
        why: "a name that begins like another one is another name: compare the whole name, up to the `=`",
    },
    Case {
        expected: "-e 'A= two  words ' keeps its blanks",
        given: &["A= two  words "],
        has: &[("A", " two  words ")],
        lacks: &[],
        why: "a value is taken as it is",
    },
];

pub fn judge(findings: &Findings) -> Result<()> {
    for case in CASES {
        if !case.judge(findings)? {
            break;
        }
    }
    Ok(())
}

/// A host with variables: some to be taken, a secret, and one that is no text.
fn host() {
    // SAFETY: the subject has one thread.
    unsafe {
        for (name, _) in env::vars_os() {
            env::remove_var(name);
        }
        env::set_var("SECRET", "leaked");
        env::set_var("FROM_HOST", "taken=whole");
        env::set_var("HOME", "/home/somebody");
        env::set_var("PATH", "/nowhere/on/the/host");
        env::set_var("HOSTNAME", "host");
        env::set_var("NO_TEXT", OsStr::from_bytes(b"\xff\xfe"));
    }
}

impl Case {
    fn judge(&self, findings: &Findings) -> Result<bool> {
        findings.begin(self.expected);
        let given: Vec<String> = self.given.iter().map(|given| (*given).into()).collect();
        let outcome = findings.subject().call_in(
            || {
                host();
                Ok(())
            },
            |()| Ok(environment("box", &given)),
            |_| Ok(()),
        )?;
        let Some(list) = outcome.value::<Vec<String>>() else {
            findings.claim(Claim::new(self.expected, outcome.in_words(), false));
            return Ok(false);
        };
        let mut times: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for variable in &list {
            match variable.split_once('=') {
                Some((name, value)) => times.entry(name).or_default().push(value),
                None => times.entry(variable).or_default().push("(no = in it)"),
            }
        }
        let mut wanted = BTreeMap::from([
            ("PATH", step01_uts::PATH),
            ("HOSTNAME", "box"),
            ("HOME", "/root"),
        ]);
        wanted.extend(self.has.iter().copied());
        let is_so = wanted
            .iter()
            .all(|(name, value)| times.get(name) == Some(&vec![*value]));
        let is_all =
            times.len() == wanted.len() && self.lacks.iter().all(|name| !times.contains_key(name));
        let holds = is_so && is_all;
        let twice: Vec<&&str> = times
            .iter()
            .filter(|(_, values)| values.len() > 1)
            .map(|(name, _)| name)
            .collect();
        let claim = Claim::new(
            self.expected,
            format!("environment(\"box\", {given:?}): {list:?}"),
            holds,
        );
        findings.claim(match twice.first() {
            Some(name) if !self.expected.starts_with("-e A=1 -e A=B") => claim.why(&format!(
                "{name} is there twice. Which one counts is each program's guess: the earlier one has to go"
            )),
            _ => claim.why(self.why),
        });
        findings.caller_stays(&outcome, &[]);
        Ok(holds)
    }
}
