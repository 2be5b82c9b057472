//! Hides what a process of ours knows of the host, while it is in a container and hasn't become the command.

use anyhow::{Context, Result};
use nix::sys::prctl::set_dumpable;
use std::fs;
use step01_uts::call;

/// Hides what this process brought along from the host, until it becomes
/// another program; PID 1 with `--init` never becomes one.
///
/// Without CAP_SYS_PTRACE no process in the container may look into this one any
/// more. The arguments of a process may be read by everybody, so the name init
/// takes their place. See PR_SET_DUMPABLE(2const), ptrace(2), proc_pid_cmdline(5).
pub fn hide() -> Result<()> {
    const NAME: &[u8] = b"init";
    let [(begin, length), _] = places()?;
    wipe((begin, length));
    // SAFETY: the memory is the same that was wiped, and the NUL behind the name stays.
    unsafe {
        NAME.as_ptr()
            .copy_to_nonoverlapping(begin as *mut u8, NAME.len().min(length.saturating_sub(1)));
    }
    call!(set_dumpable(false))?;
    Ok(())
}

/// Wipes the caller's environment from this process's memory: a process that is allowed to look
/// into others finds none of it.
pub fn forget_environment() -> Result<()> {
    let [_, environment] = places()?;
    wipe(environment);
    Ok(())
}

fn wipe((begin, length): (usize, usize)) {
    // SAFETY: the kernel put these words there when the program began, for the program to read and write. Nothing reads
    // them at the same time, as there are no other threads.
    unsafe { libc::memset(begin as *mut libc::c_void, 0, length) };
}

/// Where in this process's memory its arguments and its environment are, and how many bytes of them: arg_start to
/// env_end in proc_pid_stat(5).
fn places() -> Result<[(usize, usize); 2]> {
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("a stat without a name")?;
    // The file's third field is the first one here.
    let addresses = fields.split(' ').skip(48 - 3).take(4);
    let addresses: Vec<usize> = addresses.map(str::parse).collect::<Result<_, _>>()?;
    match addresses[..] {
        [arg_start, arg_end, env_start, env_end] => Ok([
            (arg_start, arg_end.saturating_sub(arg_start)),
            (env_start, env_end.saturating_sub(env_start)),
        ]),
        _ => Err(anyhow::anyhow!("a short stat")),
    }
}
