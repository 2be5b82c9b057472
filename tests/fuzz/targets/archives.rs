//! An archive is unpacked, or refused; nothing of it gets out of its directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use step08_overlay::image::archive::unpack_tar;

/// The bytes of a block.
const BLOCK: usize = 512;

/// The most bytes that an archive may unpack to.
const LIMIT: u64 = 4 << 20;

/// Gives each header the checksum that it ought to have: by chance it would hardly ever be right.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, canary) = (folder.path().join("root"), folder.path().join("canary"));
    fs::create_dir(&root).expect("a root");
    fs::write(&canary, "whole").expect("a canary");
    let archive = with_checksums(bytes);
    let _ = unpack_tar(&*archive, &root, LIMIT);
    assert_eq!(fs::read_to_string(&canary).expect("the canary"), "whole");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 2);
});
