//! What the kernel says of a process in /proc/PID/status: proc_pid_status(5).

use nix::unistd::Pid;
use std::fs;

/// The file's text at one moment; empty for a process that isn't there.
pub struct StatusFile(String);

impl StatusFile {
    /// Reads the file of the process `pid`.
    pub fn of(pid: Pid) -> StatusFile {
        StatusFile(fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
    }

    /// The value of the line `key`.
    fn value(&self, key: &str) -> Option<&str> {
        let mut fields = self.0.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(name, value)| (name == key).then(|| value.trim()))
    }

    /// The letter of the process's state: S sleeps, T and t are stopped; a space, where the state isn't known.
    pub fn state(&self) -> char {
        self.value("State")
            .and_then(|value| value.chars().next())
            .unwrap_or(' ')
    }

    /// Whether the set of signals `key`, such as SigBlk, has the signal `number`.
    pub fn has(&self, key: &str, number: i32) -> bool {
        let mask = self
            .value(key)
            .and_then(|mask| u64::from_str_radix(mask, 16).ok());
        mask.unwrap_or(0) >> (number - 1) & 1 == 1
    }
}
