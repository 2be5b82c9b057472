//! What is typed about the container's files.

use crate::image::commit::Archive;
use crate::layers::Storage;
use crate::volumes::{Tmpfs, Volume};
use clap::Args;
use std::path::PathBuf;
use step01_uts::flags;
use step07_cgroups::flags::bytes;

#[derive(Args)]
#[command(next_help_heading = "Files")]
struct StorageFlags {
    /// Directories and files of the host.
    #[arg(short, long, value_name = "VOLUME", value_parser = Volume::parse,
          help = "A directory or a file of the host: SRC:DST[:ro][,rprivate|rslave|rshared]")]
    volume: Vec<Volume>,

    /// Directories whose files are in memory.
    #[arg(long, value_name = "TMPFS", value_parser = Tmpfs::parse,
          help = "A directory whose files are in memory, and gone at the end: DST[:OPTIONS]")]
    tmpfs: Vec<Tmpfs>,

    /// A layer of the root, a directory or an archive (tar, tar.gz, tar.zst), the topmost first;
    /// it stays as it is
    #[arg(long, value_name = "IMAGE", conflicts_with = "rootfs")]
    image: Vec<PathBuf>,

    /// The most that an archive may hold, with k, m, g or t behind [default: 16g]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    image_limit: Option<u64>,

    /// Keep what the container changes in DIR, and begin with what is there
    #[arg(long, value_name = "DIR", conflicts_with = "rootfs")]
    keep: Option<PathBuf>,

    /// Let the container write to its volumes only
    #[arg(long)]
    read_only: bool,

    /// At the end, save the whole root as an archive: FILE.tar, FILE.tar.gz or FILE.tar.zst
    #[arg(long, value_name = "FILE", value_parser = Archive::parse)]
    commit: Option<Archive>,
}

flags!(Storage, StorageFlags);

impl From<StorageFlags> for Storage {
    fn from(flags: StorageFlags) -> Storage {
        Storage {
            volume: flags.volume,
            tmpfs: flags.tmpfs,
            image: flags.image,
            image_limit: flags.image_limit,
            keep: flags.keep,
            read_only: flags.read_only,
            commit: flags.commit,
        }
    }
}
