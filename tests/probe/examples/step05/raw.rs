//! 5.4: a terminal in raw mode while something runs, and what it was afterwards.

use crate::terminals::{Terminal, devpts, terminal};
use probe::anyhow::{Result, bail};
use probe::libc;
use probe::nix::errno::Errno;
use probe::nix::sys::termios::{
    BaudRate, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices,
    Termios, cfmakeraw, cfsetspeed, tcgetattr, tcsetattr,
};
use probe::nix::unistd::dup2_stdin;
use probe::{Claim, Ending, Findings, Outcome, Verdict, Watcher, note, noted, private_mounts};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

pub fn raw_mode(findings: &Findings) -> Result<()> {
    private_mounts()?;
    devpts(&findings.scratch.join("pts"))?;
    findings.play(&[
        meanwhile_it_is_raw,
        however_it_ends,
        whatever_the_body_does,
        what_is_no_terminal,
        it_cannot_be_raw,
    ])
}

/// Where it is noted how often the body has run, and how often a mode was set before.
const RUNS: usize = 0;
const SET: usize = 1;

/// Changes a terminal's settings.
type Change = fn(&mut Termios);

/// What a terminal is like when the function is called.
const MODES: [(&str, Change); 4] = [
    ("a terminal as it was made", |_| {}),
    ("a terminal that neither echoes nor edits lines", |mode| {
        mode.local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ICANON);
        mode.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
        mode.control_chars[SpecialCharacterIndices::VTIME as usize] = 7;
    }),
    ("a terminal with settings of its user's", |mode| {
        mode.input_flags
            .insert(InputFlags::IUTF8 | InputFlags::ISTRIP | InputFlags::INLCR);
        mode.input_flags.remove(InputFlags::IXON);
        mode.output_flags.insert(OutputFlags::OLCUC);
        mode.local_flags.insert(LocalFlags::TOSTOP);
        mode.control_flags.insert(ControlFlags::HUPCL);
        mode.control_chars[SpecialCharacterIndices::VINTR as usize] = 7;
        mode.control_chars[SpecialCharacterIndices::VERASE as usize] = 8;
        // A pty has no line, and keeps the speed all the same.
        let _ = cfsetspeed(mode, BaudRate::B9600);
    }),
    ("a terminal that is raw already", cfmakeraw),
];

/// A terminal's settings as they are compared: four masks, the special characters, the speed.
#[derive(Clone, PartialEq)]
struct Settings {
    masks: [u32; 4],
    characters: Vec<u8>,
    speed: u32,
}

/// The names of the flags `bits` in the mask at `at`: termios(3).
fn flags(at: usize, bits: u32) -> String {
    let shown = match at {
        0 => format!("{:?}", InputFlags::from_bits_truncate(bits)),
        1 => format!("{:?}", OutputFlags::from_bits_truncate(bits)),
        2 => format!("{:?}", ControlFlags::from_bits_truncate(bits)),
        _ => format!("{:?}", LocalFlags::from_bits_truncate(bits)),
    };
    // LocalFlags(ECHO | ISIG)
    let names = shown.split_once('(').map_or(&*shown, |(_, names)| names);
    names.trim_end_matches(')').replace(" |", "")
}

const MASKS: [&str; 4] = ["c_iflag", "c_oflag", "c_cflag", "c_lflag"];

impl Settings {
    fn of(mode: &Termios) -> Settings {
        let bare: libc::termios = mode.clone().into();
        Settings {
            masks: [bare.c_iflag, bare.c_oflag, bare.c_cflag, bare.c_lflag],
            characters: bare.c_cc[..libc::NCCS.min(19)].to_vec(),
            speed: bare.c_ospeed,
        }
    }

    /// What is otherwise in `now`.
    fn differs(&self, now: &Settings) -> Vec<String> {
        let mut differs = Vec::new();
        for (at, name) in MASKS.iter().enumerate() {
            let (was, is) = (self.masks[at], now.masks[at]);
            for (bits, words) in [(is & !was, "on"), (was & !is, "off")] {
                if bits != 0 {
                    differs.push(format!("{name}: {words}: {}", flags(at, bits)));
                }
            }
        }
        for (at, (was, is)) in self.characters.iter().zip(&now.characters).enumerate() {
            if was != is {
                let name = match at {
                    libc::VMIN => "VMIN",
                    libc::VTIME => "VTIME",
                    _ => "a special character (c_cc)",
                };
                differs.push(format!("{name} is {is}, and not {was}"));
            }
        }
        if self.speed != now.speed {
            differs.push("the speed is another one".into());
        }
        differs
    }
}

/// A terminal for the function, and another one at standard input.
struct World {
    wanted: Terminal,
    other: Terminal,
}

fn world(findings: &Findings, mode: Change) -> Result<World> {
    let pts = findings.scratch.join("pts");
    let world = World {
        other: terminal(&pts)?,
        wanted: terminal(&pts)?,
    };
    change(&world.wanted.slave, mode)?;
    Ok(world)
}

fn change(terminal: &OwnedFd, how: Change) -> Result<()> {
    let mut settings = tcgetattr(terminal)?;
    how(&mut settings);
    Ok(tcsetattr(terminal, SetArg::TCSANOW, &settings)?)
}

fn settings(terminal: &OwnedFd) -> Result<Settings> {
    Ok(Settings::of(&tcgetattr(terminal)?))
}

/// Calls the function in a process whose standard input is the other terminal.
fn call<T: probe::serde::Serialize>(
    subject: probe::Subject,
    world: &World,
    body: impl FnOnce() -> Result<T>,
) -> Result<Outcome> {
    subject.call_in(
        || Ok(dup2_stdin(&world.other.slave)?),
        |()| {
            step05_tty::raw_mode(world.wanted.slave.as_fd(), || {
                note(RUNS, noted(RUNS) + 1);
                body()
            })
        },
        |_| Ok(()),
    )
}

/// What isn't as raw mode has it, of a terminal that was as `before` says. See termios(3) on cfmakeraw.
fn not_raw(before: &Termios, now: &Settings) -> Vec<String> {
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    let wanted = Settings::of(&raw);
    let cooked = [
        (LocalFlags::ICANON, "it waits for whole lines (ICANON)"),
        (LocalFlags::ECHO, "it echoes (ECHO)"),
        (LocalFlags::ISIG, "it makes a signal of Ctrl-C (ISIG)"),
    ];
    let on = cooked
        .iter()
        .filter(|(flag, _)| now.masks[3] & flag.bits() != 0);
    let mut wrong: Vec<String> = on.map(|(_, words)| (*words).into()).collect();
    if wrong.is_empty() {
        wrong = wanted.differs(now);
    }
    wrong
}

/// What is wrong while the body runs, and why, if there is one reason only.
fn meanwhile(
    before: &Termios,
    now: &Settings,
    is_other_touched: bool,
) -> (Vec<String>, &'static str) {
    if is_other_touched {
        let seen = "another terminal, which is at standard input, was changed";
        return (
            vec![seen.into()],
            "it isn't any terminal that is to be raw, but the one that is given",
        );
    }
    let why = match noted(SET) {
        _ if Settings::of(before) != *now => {
            "the mode that was set isn't the one that cfmakeraw makes of the old one"
        }
        0 => "no mode was set before body ran (tcsetattr)",
        1 => "the mode that was set is the old one: it is to be changed by cfmakeraw before",
        _ => {
            "raw mode was set, and put back before body ran: a value that is bound to _ is dropped at once"
        }
    };
    (not_raw(before, now), why)
}

fn meanwhile_it_is_raw(findings: &Findings) -> Result<()> {
    for (what, mode) in MODES {
        let expected =
            format!("{what} is in raw mode while body runs, and the other settings are kept");
        findings.begin(&expected);
        let world = world(findings, mode)?;
        let before = tcgetattr(&world.wanted.slave)?;
        let others = settings(&world.other.slave)?;
        let outcome = call(findings.subject().watch(counts_settings()), &world, || {
            let now = tcgetattr(&world.wanted.slave)?;
            let touched = others != settings(&world.other.slave)?;
            let (wrong, why) = meanwhile(&before, &Settings::of(&now), touched);
            Ok((wrong, why.to_owned()))
        })?;
        let (wrong, why): (Vec<String>, String) = outcome.value().unwrap_or_default();
        let why = || Some(why).filter(|why| !why.is_empty());
        if findings.holds(&expected, &outcome, &wrong, why) {
            let expected = format!("{what} is afterwards what it was");
            is_back(findings, &expected, &world, &before)?;
            ran_once(findings);
            findings.caller_stays(&outcome, &[]);
        }
        if !findings.all_hold() {
            break;
        }
    }
    Ok(())
}

/// Counts how often a terminal's mode is set before the body runs.
fn counts_settings() -> Watcher {
    Watcher::new(&[libc::SYS_ioctl], |call| {
        if SETTING.contains(&call.arguments[1]) && noted(RUNS) == 0 {
            note(SET, noted(SET) + 1);
        }
        Verdict::Go
    })
}

/// Claims that the terminal is what it was `before`.
fn is_back(findings: &Findings, expected: &str, world: &World, before: &Termios) -> Result<()> {
    let now = settings(&world.wanted.slave)?;
    let differs = Settings::of(before).differs(&now);
    let holds = differs.is_empty();
    let seen = match holds {
        true => "tcgetattr: the same".to_owned(),
        false => format!("tcgetattr: {}", differs.join("; ")),
    };
    let why = (!holds).then(|| still_raw_or_made_up(before, &now));
    findings.claim(Claim::new(expected, seen, holds).because(why));
    Ok(())
}

/// Why a terminal isn't what it was: it is still raw, or somebody thought up a mode for it.
fn still_raw_or_made_up(before: &Termios, now: &Settings) -> String {
    let text = match not_raw(before, now).is_empty() {
        true => {
            "it is still raw: on this way out the old mode wasn't put back, or it was before the terminal was raw (what is bound to _ is dropped at once)"
        }
        false => {
            "it isn't raw any more, and not what it was: the mode that is put back has to be the one that was read before anything was changed"
        }
    };
    text.into()
}

fn ran_once(findings: &Findings) {
    let runs = noted(RUNS);
    let seen = format!("it ran {runs} times");
    findings.claim(Claim::new("body runs once", seen, runs == 1));
}

/// A way in which the body ends, and how the function has to end then.
type End = (&'static str, fn() -> Result<u32>, Ending);

fn however_it_ends(findings: &Findings) -> Result<()> {
    let ends: [End; 3] = [
        ("returns a value", || Ok(4711), Ending::Returned),
        (
            "returns an error",
            || bail!("the body's own words"),
            Ending::Failed("the body's own words".into()),
        ),
        (
            "panics",
            || panic!("the body's own panic"),
            Ending::Panicked("the body's own panic".into()),
        ),
    ];
    for (how, body, ending) in ends {
        let expected = format!("when body {how}, the terminal is afterwards what it was");
        findings.begin(&expected);
        let world = world(findings, MODES[2].1)?;
        let before = tcgetattr(&world.wanted.slave)?;
        let outcome = call(findings.subject(), &world, body)?;
        is_back(findings, &expected, &world, &before)?;
        let value = ending != Ending::Returned || outcome.value() == Some(4711);
        // Who adds something to the error hands it on all the same.
        let is_it = match (&outcome.ending, &ending) {
            (Ending::Failed(is), Ending::Failed(wanted)) => is.contains(wanted),
            (is, wanted) => is == wanted,
        };
        let is_caught = !outcome.is_ok() && matches!(ending, Ending::Panicked(_));
        let why = (!is_it && is_caught).then(|| "the panic was caught, and doesn't go on".into());
        let expected = format!("when body {how}, so does raw_mode");
        let claim = Claim::new(expected, outcome.in_words(), is_it && value);
        findings.claim(claim.because(why));
        findings.caller_stays(&outcome, &[]);
        if !findings.all_hold() {
            break;
        }
    }
    Ok(())
}

fn whatever_the_body_does(findings: &Findings) -> Result<()> {
    let expected =
        "when body changes the terminal itself, it is afterwards what it was before raw_mode";
    findings.begin(expected);
    let world = world(findings, MODES[1].1)?;
    let before = tcgetattr(&world.wanted.slave)?;
    let outcome = call(findings.subject(), &world, || {
        change(&world.wanted.slave, |mode| {
            mode.local_flags
                .insert(LocalFlags::ECHO | LocalFlags::NOFLSH);
            mode.input_flags.insert(InputFlags::IXOFF);
            mode.control_chars[SpecialCharacterIndices::VINTR as usize] = 1;
        })
    })?;
    is_back(findings, expected, &world, &before)?;
    findings.holds("and no error is made of that", &outcome, &[], || None);
    Ok(())
}

fn what_is_no_terminal(findings: &Findings) -> Result<()> {
    let expected = "where there is no terminal, it returns an error";
    findings.begin(expected);
    let null = File::open("/dev/null")?;
    let outcome = findings.subject().call(|| {
        step05_tty::raw_mode(null.as_fd(), || {
            note(RUNS, 1);
            Ok(())
        })
    })?;
    let why = "the error is thrown away: nobody is told that the terminal isn't in raw mode";
    findings.refuses(expected, &outcome, Errno::ENOTTY, why);
    body_did_not_run(findings);
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

fn body_did_not_run(findings: &Findings) {
    let holds = noted(RUNS) == 0;
    let seen = if holds { "it didn't run" } else { "it ran" };
    let expected = "body doesn't run with a terminal that isn't in raw mode";
    findings.claim(Claim::new(expected, seen, holds));
}

/// The requests of ioctl_tty(2) by which a terminal's settings are read and set.
const READING: [u64; 2] = [libc::TCGETS, libc::TCGETS2];
const SETTING: [u64; 6] = [
    libc::TCSETS,
    libc::TCSETSW,
    libc::TCSETSF,
    libc::TCSETS2,
    libc::TCSETSW2,
    libc::TCSETSF2,
];

/// The C library looks again at what it has set, and doesn't mind if that fails: so only the first look is refused.
fn refuses_before_the_body(requests: &'static [u64], most: usize) -> Watcher {
    let mut refused = 0;
    Watcher::new(&[libc::SYS_ioctl], move |call| {
        let is_it = requests.contains(&call.arguments[1]) && noted(RUNS) == 0;
        match is_it && refused < most {
            true => {
                refused += 1;
                Verdict::Fail(Errno::EIO)
            }
            false => Verdict::Go,
        }
    })
}

fn it_cannot_be_raw(findings: &Findings) -> Result<()> {
    for (what, requests, most) in [("read", &READING[..], 1), ("set", &SETTING[..], usize::MAX)] {
        let expected = format!("when the terminal's mode can't be {what}, it returns an error");
        findings.begin(&expected);
        let world = world(findings, MODES[1].1)?;
        let before = tcgetattr(&world.wanted.slave)?;
        let watcher = refuses_before_the_body(requests, most);
        let outcome = call(findings.subject().watch(watcher), &world, || Ok(()))?;
        if !outcome.refused {
            continue;
        }
        let why = "the error is thrown away: nobody is told that the terminal isn't in raw mode";
        findings.refuses(&expected, &outcome, Errno::EIO, why);
        body_did_not_run(findings);
        let expected =
            format!("when the terminal's mode can't be {what}, it is afterwards what it was");
        is_back(findings, &expected, &world, &before)?;
        findings.caller_stays(&outcome, &[]);
    }
    Ok(())
}
