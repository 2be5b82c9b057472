//! The options of a mount by their names, as mount(8) and the OCI runtime specification have them.

use nix::mount::MsFlags;

/// What a list of options means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Flags that are set, of those that all filesystems know: mount(2).
    pub set: MsFlags,
    /// Flags that are cleared, where something else would set them.
    pub clear: MsFlags,
    /// How the mount hears of new mounts, each for a call of its own: mount_namespaces(7).
    pub propagation: Vec<MsFlags>,
    /// What only the filesystem knows, such as `size=64k`.
    pub data: Vec<String>,
}

/// The names of flags, and whether each sets its flag or clears it.
const FLAGS: &[(&str, MsFlags, bool)] = &[
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("mand", MsFlags::MS_MANDLOCK, true),
    ("nomand", MsFlags::MS_MANDLOCK, false),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("nostrictatime", MsFlags::MS_STRICTATIME, false),
    ("remount", MsFlags::MS_REMOUNT, true),
    ("bind", MsFlags::MS_BIND, true),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
    ("silent", MsFlags::MS_SILENT, true),
    ("loud", MsFlags::MS_SILENT, false),
    ("defaults", MsFlags::empty(), true),
];

/// The names of propagation; with an `r` before it a name is about the mounts below, too.
const PROPAGATION: &[(&str, MsFlags)] = &[
    ("private", MsFlags::MS_PRIVATE),
    ("slave", MsFlags::MS_SLAVE),
    ("shared", MsFlags::MS_SHARED),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

impl Options {
    /// Reads options, in order: of two that contradict each other the later one holds. A word that isn't the name of a
    /// flag is for the filesystem.
    pub fn read<'a>(words: impl IntoIterator<Item = &'a str>) -> Options {
        let mut options = Options {
            set: MsFlags::empty(),
            clear: MsFlags::empty(),
            propagation: Vec::new(),
            data: Vec::new(),
        };
        for word in words.into_iter().filter(|word| !word.is_empty()) {
            let flag = FLAGS.iter().find(|(name, ..)| *name == word);
            let propagation = |word: &str| PROPAGATION.iter().find(|(name, _)| *name == word);
            let below = word.strip_prefix('r').and_then(propagation);
            match (flag, propagation(word), below) {
                (Some((_, flag, on)), ..) => {
                    options.set.set(*flag, *on);
                    options.clear.set(*flag, !on);
                }
                (_, Some((_, flag)), _) => options.propagation.push(*flag),
                (.., Some((_, flag))) => options.propagation.push(*flag | MsFlags::MS_REC),
                _ => options.data.push(word.into()),
            }
        }
        options
    }

    /// The flags of a mount that would have `usual` ones.
    pub fn over(&self, usual: MsFlags) -> MsFlags {
        usual.difference(self.clear) | self.set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_one_holds() {
        let options = Options::read([
            "rbind", "ro", "nosuid", "rw", "size=1m", "rslave", "shared", "mode=755",
        ]);
        let usual = MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        let wanted = MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        assert_eq!(options.over(usual), wanted);
        assert_eq!(options.data, ["size=1m", "mode=755"]);
        assert_eq!(
            options.propagation,
            [MsFlags::MS_SLAVE | MsFlags::MS_REC, MsFlags::MS_SHARED]
        );
        assert_eq!(
            Options::read(["exec", "noexec"]).over(MsFlags::empty()),
            MsFlags::MS_NOEXEC
        );
        assert_eq!(Options::read(["defaults", ""]).over(usual), usual);
    }
}
