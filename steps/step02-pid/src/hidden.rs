//! What a process of ours shows of the host, when it is in a container and no command yet: nothing.

use anyhow::{Context, Result};
use nix::sys::prctl::set_dumpable;
use std::fs;
use step01_uts::call;

/// Hides what this process brought along from the host from everybody in the container, as long as it hasn't become
/// another program, and PID 1 with `--init` never does: nobody may look into it, and it is called init from now on.
/// The arguments of a process anybody may read. See PR_SET_DUMPABLE(2const), ptrace(2), proc_pid_cmdline(5).
pub fn hide() -> Result<()> {
    const NAME: &[u8] = b"init";
    let [(begin, length), _] = places()?;
    wipe((begin, length));
    // SAFETY: it is the same memory, and the NUL behind the name stays.
    unsafe {
        NAME.as_ptr()
            .copy_to_nonoverlapping(begin as *mut u8, NAME.len().min(length.saturating_sub(1)));
    }
    call!(set_dumpable(false))?;
    Ok(())
}

/// Forgets the caller's environment: who is allowed to look into other processes finds none of it.
pub fn forget_environment() -> Result<()> {
    let [_, environment] = places()?;
    wipe(environment);
    Ok(())
}

fn wipe((begin, length): (usize, usize)) {
    // SAFETY: the kernel has put words there when this program began, for it to read and write; nobody reads them now,
    // as there are no other threads.
    unsafe { libc::memset(begin as *mut libc::c_void, 0, length) };
}

/// Where in this process's memory its arguments and its environment are, and how many bytes of them: arg_start to
/// env_end in proc_pid_stat(5).
fn places() -> Result<[(usize, usize); 2]> {
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("a stat without a name")?;
    // The third field is the first one here.
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
