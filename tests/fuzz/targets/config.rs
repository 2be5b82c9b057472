//! A config.json is read or refused, and what is wrong is told by its place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use step12_oci::config::read::Config;

fuzz_target!(|text: &str| {
    if let Err(error) = Config::of(text, Path::new("/bundle"), &mut |_| {}) {
        assert!(format!("{error:#}").starts_with("/bundle/config.json"));
    }
});
