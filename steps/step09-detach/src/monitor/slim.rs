//! Memory that a process which stays for long gives back when its busy time is over.

use std::fs::File;
use std::io::{BufRead, BufReader};

/// Gives back to the kernel what starting a container took: memory that is free, and what was
/// read of files, code above all, which is read again when it is needed. See malloc_trim(3), madvise(2).
pub fn slim_down() {
    // The lines are read one by one: there are many, and they needn't be in memory together.
    let maps = File::open("/proc/self/smaps").map(|file| BufReader::with_capacity(512, file));
    let mut mapping = None;
    for line in maps
        .into_iter()
        .flat_map(BufRead::lines)
        .map_while(Result::ok)
    {
        mapping = of_a_file(&line).or(mapping);
        let Some((begin, length)) = mapping.filter(|_| line.starts_with("Anonymous:")) else {
            continue;
        };
        mapping = None;
        if line.ends_with(" 0 kB") {
            // SAFETY: the mapping can't be written, and none of it ever was: the file has all of it.
            unsafe { libc::madvise(begin as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Where a mapping of proc_pid_smaps(5) begins and how long it is, if it is of a file and can't be written.
fn of_a_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?;
    let (begin, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (begin, end) = (number(begin)?, number(end)?);
    (["r-xp", "r--p"].contains(&permissions) && path.starts_with('/'))
        .then_some((begin, end - begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_files() {
        let line = "5583a000-5583c000 r-xp 00001000 fd:00 42       /usr/bin/x";
        assert_eq!(of_a_file(line), Some((0x5583_a000, 0x2000)));
        for other in [
            "5583a000-5583c000 rw-p 00001000 fd:00 42 /usr/bin/x",
            "5583a000-5583c000 r-xp 00000000 00:00 0 [vdso]",
            "5583a000-5583c000 rwxp 00000000 00:00 0",
        ] {
            assert_eq!(of_a_file(other), None, "{other}");
        }
    }

    #[test]
    fn life_goes_on() {
        slim_down();
        assert_eq!(format!("{:?}", vec![1; 3]), "[1, 1, 1]");
    }
}
