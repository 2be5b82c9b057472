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

const NONE: MsFlags = MsFlags::empty();

/// The ways to keep the time of the last access, which exclude each other.
const ATIME: MsFlags = MsFlags::MS_NOATIME
    .union(MsFlags::MS_RELATIME)
    .union(MsFlags::MS_STRICTATIME);

/// The names of flags, with what each sets, after it has cleared what contradicts it.
const FLAGS: &[(&str, MsFlags, MsFlags)] = &[
    ("ro", MsFlags::MS_RDONLY, NONE),
    ("rw", NONE, MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID, NONE),
    ("suid", NONE, MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV, NONE),
    ("dev", NONE, MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC, NONE),
    ("exec", NONE, MsFlags::MS_NOEXEC),
    ("sync", MsFlags::MS_SYNCHRONOUS, NONE),
    ("async", NONE, MsFlags::MS_SYNCHRONOUS),
    ("dirsync", MsFlags::MS_DIRSYNC, NONE),
    ("mand", MsFlags::MS_MANDLOCK, NONE),
    ("nomand", NONE, MsFlags::MS_MANDLOCK),
    ("noatime", MsFlags::MS_NOATIME, ATIME),
    ("atime", NONE, MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME, NONE),
    ("diratime", NONE, MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME, ATIME),
    ("norelatime", NONE, MsFlags::MS_RELATIME),
    ("strictatime", MsFlags::MS_STRICTATIME, ATIME),
    ("nostrictatime", NONE, MsFlags::MS_STRICTATIME),
    ("remount", MsFlags::MS_REMOUNT, NONE),
    ("bind", MsFlags::MS_BIND, MsFlags::MS_REC),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC), NONE),
    ("silent", MsFlags::MS_SILENT, NONE),
    ("loud", NONE, MsFlags::MS_SILENT),
    ("lazytime", MsFlags::MS_LAZYTIME, NONE),
    ("nolazytime", NONE, MsFlags::MS_LAZYTIME),
    ("iversion", MsFlags::MS_I_VERSION, NONE),
    ("noiversion", NONE, MsFlags::MS_I_VERSION),
    ("defaults", NONE, NONE),
];

/// The names of propagation; with an `r` before it a name is about the mounts below, too.
const PROPAGATION: &[(&str, MsFlags)] = &[
    ("private", MsFlags::MS_PRIVATE),
    ("slave", MsFlags::MS_SLAVE),
    ("shared", MsFlags::MS_SHARED),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

/// The names of all options that any filesystem knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    let below = PROPAGATION.iter().map(|(name, _)| match *name {
        "private" => "rprivate",
        "slave" => "rslave",
        "shared" => "rshared",
        _ => "runbindable",
    });
    let flags = FLAGS.iter().map(|(name, ..)| *name);
    flags
        .chain(PROPAGATION.iter().map(|(name, _)| *name))
        .chain(below)
}

/// The names of the options that set `flags`.
pub fn names_of(flags: MsFlags) -> impl Iterator<Item = &'static str> {
    let sets = move |set: MsFlags| !set.is_empty() && flags.contains(set);
    let named = FLAGS.iter().filter(move |(_, set, _)| sets(*set));
    named.map(|(name, ..)| *name)
}

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
                (Some((_, sets, clears)), ..) => {
                    options.set = options.set.difference(*clears) | *sets;
                    options.clear = (options.clear | *clears).difference(*sets);
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
        let over = |words: &[&str]| Options::read(words.iter().copied()).over(MsFlags::MS_RELATIME);
        assert_eq!(over(&["noatime", "strictatime"]), MsFlags::MS_STRICTATIME);
        assert_eq!(
            over(&["strictatime", "noatime", "nodiratime"]),
            MsFlags::MS_NOATIME | MsFlags::MS_NODIRATIME
        );
        assert_eq!(
            over(&["rbind", "bind"]),
            MsFlags::MS_BIND | MsFlags::MS_RELATIME
        );
    }
}
