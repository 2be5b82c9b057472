//! 2.3: what went wrong in the child is known to the parent.

use super::{child, told, until_it_ends};
use probe::anyhow::{Context, Error, Result, anyhow};
use probe::libc;
use probe::nix::errno::Errno;
use probe::nix::sys::signal::{Signal, kill, raise};
use probe::nix::unistd::Pid;
use probe::{Claim, Findings, Outcome, Rest, Subject, at_rest, children_of};
use std::convert::Infallible;
use std::fs;
use step01_uts::{Refused, exec};
use step02_pid::ErrorPipe;

pub fn judge(findings: &Findings) -> Result<()> {
    if !nothing_is_success(findings)? {
        return Ok(());
    }
    an_error_comes_home(findings)?;
    waits_for_the_child(findings)?;
    half_a_report_is_no_success(findings)?;
    tells_what_the_kernel_refuses(findings)
}

/// Calls `outcome` on a pipe whose child does `body`; if `ended`, once that child has ended.
fn run(subject: Subject, ended: bool, body: impl Fn() -> Result<Infallible>) -> Result<Outcome> {
    subject.call_in(
        || {
            let (pipe, pid) = with_child(&body)?;
            if ended {
                until_it_ends(pid);
            }
            Ok(pipe)
        },
        |pipe| pipe.outcome(),
        |_| Ok(()),
    )
}

/// A pipe, and a child that does `body` and tells by it.
fn with_child(body: impl Fn() -> Result<Infallible>) -> Result<(ErrorPipe, Pid)> {
    let mut pipe = Some(ErrorPipe::new()?);
    let pid = child(|| match pipe.take() {
        Some(pipe) => pipe.report(&body),
        None => 99,
    })?;
    Ok((pipe.context("the pipe is gone")?, pid))
}

fn succeeds() -> Result<Infallible> {
    exec(&["/bin/true".to_owned()], &[])
}

fn nothing_is_success(findings: &Findings) -> Result<bool> {
    let expected = "outcome comes back with Ok when the child has become its command";
    findings.begin(expected);
    let outcome = run(findings.subject(), false, succeeds)?;
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()));
    // Both ends went into the call, and nothing comes out.
    let pipes = |state: &probe::State| {
        let targets = state
            .descriptors
            .values()
            .map(|each| each.target.to_string_lossy());
        targets.filter(|target| target.starts_with("pipe:")).count()
    };
    let closed = pipes(&outcome.before).saturating_sub(pipes(&outcome.after));
    findings.claim(Claim::new(
        "afterwards the caller has no end of the pipe any more",
        format!("/proc/PID/fd: of its two ends {closed} are closed"),
        closed == 2,
    ));
    findings.caller_stays(&outcome, &["descriptors", "children"]);
    Ok(outcome.is_ok())
}

fn an_error_comes_home(findings: &Findings) -> Result<()> {
    let expected = "an error of the child is the parent's, with its errno";
    findings.begin(expected);
    let refusal = || Refused::new("made_up(1)".into(), Errno::EXDEV);
    let outcome = findings.subject().call_in(
        || with_child(|| Err(refusal().into())),
        |(pipe, _)| told(pipe.outcome()),
        |_| Ok(()),
    )?;
    let holds = outcome.error().starts_with("EXDEV") && outcome.error().contains("made_up(1)");
    let claim = Claim::new(expected, outcome.in_words(), holds);
    findings.claim(match &outcome {
        outcome if outcome.is_ok() => claim.why(
            "what came through the pipe was read and thrown away, or not read: whoever called spawn was told that all went well",
        ),
        outcome if outcome.error().starts_with("no errno") => claim.why(
            "an error was made of the report that no longer has the kernel's answer: errno is in the report, and \
             Report::into_error keeps it",
        ),
        _ => claim,
    });
    let expected = "an error with causes comes with all of them";
    findings.begin(expected);
    let outcome = run(findings.subject(), false, || {
        Err(anyhow!("the innermost")
            .context("the middle")
            .context("the outermost"))
    })?;
    let holds = ["innermost", "middle", "outermost"]
        .iter()
        .all(|part| outcome.error().contains(part));
    findings.claim(Claim::new(expected, outcome.in_words(), holds));

    let expected = "a refused call with causes around it comes with these, too";
    findings.begin(expected);
    let outcome = run(findings.subject(), false, || {
        Err(Error::new(refusal()).context("the outermost"))
    })?;
    let holds = ["outermost", "made_up(1)"]
        .iter()
        .all(|part| outcome.error().contains(part));
    findings.claim(Claim::new(expected, outcome.in_words(), holds).why(
        "of the report only a part was taken: Report::into_error makes the whole error of it",
    ));

    let expected = "a report of 60,000 letters arrives whole";
    findings.begin(expected);
    let outcome = run(findings.subject(), false, || {
        Err(anyhow!("{}END", "x".repeat(60_000)))
    })?;
    let length = outcome.error().len();
    let seen = match outcome.is_error() {
        true => {
            let begin: String = outcome.error().chars().take(60).collect();
            format!("an error of {length} bytes: {begin}…")
        }
        false => outcome.in_words(),
    };
    let holds = outcome.error().ends_with("END") && length > 60_000;
    findings.claim(Claim::new(expected, seen, holds).why(
        "only the first part of the report was read: one read(2) returns what there is, so read until the end of the pipe",
    ));
    Ok(())
}

/// The child stops before it becomes its command.
fn waits_for_the_child(findings: &Findings) -> Result<()> {
    let expected = "outcome waits until the child has become its command";
    findings.begin(expected);
    let outcome = findings.subject().call_in(
        || {
            let (pipe, stopped) = with_child(|| {
                raise(Signal::SIGSTOP)?;
                succeeds()
            })?;
            while super::state(stopped) != "T" {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(pipe)
        },
        |pipe| told(pipe.outcome()),
        |subject| {
            probe::note(0, u32::from(at_rest(subject) == Rest::Came) + 1);
            for pid in children_of(subject).into_keys() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
            }
            Ok(())
        },
    )?;
    let early = probe::noted(0) == 2;
    let seen = match early {
        true => "it came back while the child was stopped before its execve".into(),
        false => outcome.in_words(),
    };
    findings.claim(Claim::new(expected, seen, !early && outcome.is_ok()));
    Ok(())
}

/// A child that dies while it tells has told something: that it failed.
fn half_a_report_is_no_success(findings: &Findings) -> Result<()> {
    let expected = "half a report, of a child that was killed while it wrote, is an error";
    findings.begin(expected);
    let outcome = findings.subject().call_in(
        || {
            let pipe = ErrorPipe::new()?;
            let writers = fs::read_dir("/proc/self/fd")?
                .flatten()
                .filter_map(|entry| {
                    let number: i32 = entry.file_name().to_str()?.parse().ok()?;
                    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
                    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
                    let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
                    let is_pipe = fs::read_link(entry.path())
                        .ok()?
                        .to_string_lossy()
                        .starts_with("pipe:");
                    (number > 2 && is_pipe && flags & libc::O_ACCMODE == libc::O_WRONLY)
                        .then_some(number)
                });
            for writer in writers.collect::<Vec<i32>>() {
                let text = b"{\"chain\":[\"an er";
                // SAFETY: reads from the text.
                unsafe { libc::write(writer, text.as_ptr().cast(), text.len()) };
            }
            Ok(pipe)
        },
        |pipe| told(pipe.outcome()),
        |_| Ok(()),
    )?;
    findings.claim(
        Claim::new(expected, outcome.in_words(), outcome.is_error())
            .why("what can't be read as a report was taken for none: only an empty pipe means that all went well"),
    );
    Ok(())
}

fn tells_what_the_kernel_refuses(findings: &Findings) -> Result<()> {
    let calls = [
        (libc::SYS_read, "read", Errno::EIO),
        (libc::SYS_readv, "readv", Errno::EIO),
    ];
    let call = |subject: Subject| run(subject, true, || Err(anyhow!("it failed")));
    findings.each_call_fails("outcome", &calls, call, || false, |_| Vec::new())?;
    Ok(())
}
