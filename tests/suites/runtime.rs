//! Step 12: an OCI runtime, by what the specification says, and in the hands of those who run on it.

mod bad_input;
mod buildah;
mod commands;
mod containerd;
mod docker;
mod hooks;
mod mounts;
mod notify;
mod podman;
mod properties;
mod resources;
mod words;

use progress::checks::step07::group;
use progress::host::evidence::Process;
use std::fs;
use step07_cgroups::Version;

/// Whether the freezer has all of a process's group.
fn is_frozen(process: Process) -> bool {
    match group(process, "freezer") {
        Ok((folder, _)) => fs::read_to_string(folder.join("freezer.state")).unwrap() == "FROZEN\n",
        Err(_) => {
            let (folder, _) = group(process, "pids").unwrap();
            fs::read_to_string(folder.join("cgroup.events"))
                .unwrap()
                .contains("frozen 1")
        }
    }
}

/// The value of a limit: of a controller, the file's name in version 1 of control groups, or in version 2.
fn limit(process: Process, controller: &str, v1: &str, v2: &str) -> String {
    let (folder, version) = group(process, controller).unwrap();
    let file = folder.join(if version == Version::V1 { v1 } else { v2 });
    let value =
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    value.split_whitespace().next().unwrap_or_default().into()
}
