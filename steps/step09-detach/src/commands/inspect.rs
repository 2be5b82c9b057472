//! `inspect`: all that is known of a container, under Docker's names, and our own record beneath.

use crate::commands::targets::{Targets, each};
use crate::container::Container;
use crate::container::record::Record;
use crate::container::restart::RestartPolicy;
use crate::container::status::Status;
use anyhow::{Result, bail};
use clap::Args;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use step01_uts::say;

/// Print all that is known of containers, as JSON
#[derive(Debug, Args)]
pub struct Inspect {
    /// Only some of it: text in which {{.State.Pid}} stands for a value, and {{json .State}} for JSON
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,

    #[command(flatten)]
    targets: Targets,
}

impl Inspect {
    /// Prints what is known of the containers.
    pub fn run(&self) -> Result<u8> {
        let mut all = Vec::new();
        let code = each(
            &self.targets.state,
            &self.targets.containers,
            |_, container| {
                all.push(describe(container, &container.record()?)?);
                Ok(())
            },
        )?;
        match &self.format {
            None => say(serde_json::to_string_pretty(&all)?)?,
            Some(template) => {
                for one in &all {
                    say(fill_in(template, one)?)?;
                }
            }
        }
        Ok(code)
    }
}

/// All that is known of a container, under Docker's names.
pub fn describe(container: &Container, record: &Record) -> Result<Value> {
    let status = container.status(record);
    let (state, plan) = (&record.state, &record.plan);
    let policy = plan.restart.to_string();
    let process = state.process.as_ref().filter(|_| status.is_up());
    let upper = plan.layers.upper(&plan.files, &container.folder);
    let time = |time: Option<crate::container::record::Time>| time.map(|time| time.text());
    let mounts: Vec<Value> = plan
        .layers
        .volume
        .iter()
        .map(|volume| {
            json!({
                "Type": "bind",
                "Source": volume.source,
                "Destination": volume.target,
                "RW": !volume.read_only,
            })
        })
        .collect();
    Ok(json!({
        "Id": record.id,
        "Name": record.name,
        "Created": record.created,
        "Path": plan.command()[0],
        "Args": plan.command()[1..],
        "Image": plan.image(),
        "State": {
            "Status": status,
            "Running": status.is_up(),
            "Paused": status == Status::Paused,
            "Restarting": status == Status::Restarting,
            "OOMKilled": state.oom_killed,
            "Pid": process.map_or(0, |process| process.pid),
            "ExitCode": if status.is_up() || status == Status::Created { Some(0) } else { state.exit_code },
            "Error": state.error.clone().unwrap_or_default(),
            "StartedAt": time(state.started),
            "FinishedAt": time(state.finished),
        },
        "RestartCount": state.restarts,
        "LogPath": container.log(),
        "UpperDir": upper,
        "Mounts": mounts,
        "Config": {
            "Hostname": record.hostname(),
            "User": plan.user.user.clone().unwrap_or_default(),
            "Env": plan.env.env,
            "Cmd": plan.command(),
            "WorkingDir": plan.env.workdir(),
            "Tty": plan.tty.tty,
            "OpenStdin": plan.tty.interactive,
            "StopSignal": name_of(plan.stop_signal()),
            "Labels": plan.labels,
        },
        "HostConfig": {
            "Memory": plan.limits.memory.unwrap_or(0),
            "PidsLimit": plan.limits.pids_limit,
            "Privileged": plan.privileges.privileged,
            "ReadonlyRootfs": plan.layers.read_only,
            "AutoRemove": plan.rm,
            "RestartPolicy": {
                "Name": policy.split(':').next(),
                "MaximumRetryCount": match plan.restart {
                    RestartPolicy::OnFailure(times) => times.unwrap_or(0),
                    _ => 0,
                },
            },
            "NetworkMode": plan.network,
        },
        "Record": record,
    }))
}

/// The name of a signal, SIGTERM for 15; a number for a real-time signal.
fn name_of(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| signal.to_string(), |signal| signal.to_string())
}

/// Puts values in the place of `{{.Path.To.Value}}`.
///
/// # Errors
/// A path that leads to nothing; braces that aren't closed.
pub fn fill_in(template: &str, value: &Value) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((inside, after)) = after.split_once("}}") else {
            bail!("--format {template}: a {{{{ without its }}}}");
        };
        let inside = inside.trim();
        let (as_json, path) = match inside.strip_prefix("json ") {
            Some(path) => (true, path.trim()),
            None => (false, inside),
        };
        let Some(path) = path.strip_prefix('.') else {
            bail!(
                "--format {template}: {{{{{inside}}}}} has to be a path such as {{{{.State.Pid}}}}"
            );
        };
        let mut found = value;
        for key in path.split('.').filter(|key| !key.is_empty()) {
            found = match found.get(key) {
                Some(found) => found,
                None => bail!("--format {template}: there is no {key} in {{{{.{path}}}}}"),
            };
        }
        match found {
            Value::String(string) if !as_json => text.push_str(string),
            other => text.push_str(&other.to_string()),
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let value = json!({"State": {"Pid": 7, "Status": "running"}, "Name": "web"});
        let text = fill_in("{{.Name}}: {{ .State.Pid }} {{json .State.Status}}", &value);
        assert_eq!(text.unwrap(), "web: 7 \"running\"");
        for wrong in ["{{.Nothing}}", "{{.Name", "{{range .State}}"] {
            assert!(fill_in(wrong, &value).is_err(), "{wrong}");
        }
    }
}
