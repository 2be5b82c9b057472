//! What a snapshot shows: a command line with all that it printed, without what differs from run to run.

use crate::stage::Printed;
use assert_cmd::assert::Assert;
use progress::host::exit_code;
use progress::programs::workspace;
use std::fmt::Write as _;
use std::path::Path;

/// What a command line printed and ended with, for a snapshot.
pub fn transcript(title: &str, ran: &Assert) -> String {
    let mut text = format!("$ {title}\n");
    for stream in [ran.printed(), ran.errors()] {
        text.push_str(&stream);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    let code = exit_code(ran.get_output().status);
    writeln!(text, "[exit code {code}]").unwrap();
    text
}

/// The one list of what differs from run to run and from machine to machine: `replacements` are the
/// paths that the test made; then come pids and descriptors in narration, this machine's processor,
/// and where it keeps its loader and libraries.
pub fn redact(text: &str, replacements: &[(&Path, &str)]) -> String {
    let mut text = text.to_owned();
    for (path, name) in replacements {
        text = text.replace(path.to_str().unwrap(), name);
    }
    text = text.replace(workspace().to_str().unwrap(), "WORKSPACE");
    let machines = match cfg!(target_arch = "aarch64") {
        true => [
            ("AArch64", "MACHINE"),
            ("x86-64", "FOREIGN"),
            ("aarch64-linux-gnu", "TRIPLET"),
        ],
        false => [
            ("x86-64", "MACHINE"),
            ("AArch64", "FOREIGN"),
            ("x86_64-linux-gnu", "TRIPLET"),
        ],
    };
    for (machine, name) in machines {
        text = text.replace(machine, name);
    }
    let mut kept = Vec::new();
    let mut loader = None;
    for line in text.lines() {
        let mut line = line.to_owned();
        if let Some((pid, call)) = line
            .strip_prefix('[')
            .and_then(|line| line.split_once("] "))
        {
            if pid.parse::<u32>().is_ok() {
                // In a container the pid is small, and the same each time.
                let pid = if pid.len() == 1 { pid } else { "PID" };
                line = format!("[{pid}] {}", redact_numbers(call));
            }
        }
        if let Some(name) = line.strip_prefix("  it asks for the loader ") {
            loader = name.strip_suffix(" (PT_INTERP)").map(str::to_owned);
            line = "  it asks for the loader LOADER (PT_INTERP)".into();
        }
        let basename = loader.as_deref().and_then(|path| path.rsplit('/').next());
        if basename.is_some_and(|name| line.contains(name)) && line.ends_with(" isn't there") {
            line = "  LOADER isn't there".into();
        }
        if let Some(path) = line.trim_start().strip_suffix(" isn't there") {
            if workspace()
                .ancestors()
                .any(|ancestor| ancestor == Path::new(path))
            {
                line = "  WORKSPACE isn't there".into();
            }
        }
        // How /bin leads to /usr/bin and such, and whether an emulator could be seen.
        if line.contains("binfmt_misc isn't mounted") {
            continue;
        }
        if !line.contains(" -> ") || line.contains("/usr/local/bin/") || line.contains("circle") {
            kept.push(line);
        }
    }
    kept.join("\n") + "\n"
}

/// What a learner reads, with each part on one line: `replacements` and the folders of the checks;
/// then come inode numbers, peer groups and pids.
pub fn redact_report(text: &str, replacements: &[(&Path, &str)]) -> String {
    let mut text = text.to_owned();
    for (path, name) in replacements {
        text = text.replace(path.to_str().unwrap(), name);
    }
    // A part is folded where it is long, and how long a path is differs.
    let text = text.replace(&format!("\n{}", " ".repeat(16)), " ");
    let mut redacted = String::new();
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        for scratch in ["/tmp/.tmp", "/var/lib/ten-steps/check-"] {
            let Some(at) = rest.find(scratch) else {
                continue;
            };
            redacted += &rest[..at];
            redacted += "SCRATCH";
            rest = rest[at + scratch.len()..].trim_start_matches(|c: char| c.is_alphanumeric());
        }
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, digits) = rest.split_at(at);
            let end = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            redacted += before;
            let group = before.ends_with("shared:") || before.ends_with("master:");
            let pid = line.contains("NSpid") && before.ends_with(['[', ' ']);
            redacted += match &digits[..end] {
                number if number.len() > 4 || group || before.ends_with("/* ") => "N",
                _ if digits[end..].starts_with(" names")
                    && !digits[end..].starts_with(" namespaces") =>
                {
                    "N"
                }
                _ if digits[end..].starts_with(" mounts") => "N",
                number if pid && number != "1" => "PID",
                number => number,
            };
            rest = &digits[end..];
        }
        redacted += rest;
    }
    redacted
}

/// Pids, and descriptors, which depend on what else is open.
fn redact_numbers(call: &str) -> String {
    let takes = ["waitpid(", "interface_flags(", "set_interface_flags("];
    if let Some(descriptors) = call.strip_prefix("send(") {
        return format!("send({} descriptors)", descriptors.matches(", ").count());
    }
    let Some(name) = takes.iter().find(|name| call.starts_with(*name)) else {
        return call.into();
    };
    let arguments = call[name.len()..].trim_end_matches(')').split(", ");
    let last = arguments.clone().count() - 1;
    let redacted = arguments.enumerate().map(|(position, argument)| {
        let is_flags = name.starts_with("set_") && position == last;
        match argument.parse::<u32>() {
            Ok(_) if name.starts_with("waitpid") => "PID",
            Ok(_) if !is_flags => "FD",
            _ => argument,
        }
    });
    format!("{name}{})", redacted.collect::<Vec<_>>().join(", "))
}

/// The lines that one of our programs wrote, without what the command itself printed.
pub fn our_lines(text: &str) -> String {
    let ours = |line: &&str| {
        let begins = |start| line.starts_with(start);
        ["$ ", "# ", "step", "  ", "help: ", "[exit code "]
            .into_iter()
            .any(begins)
    };
    text.lines().filter(ours).collect::<Vec<_>>().join("\n") + "\n"
}
