//! A header WWW-Authenticate is read as a list of challenges, whatever stands there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use step11_pull::challenges;

fuzz_target!(|header: &str| {
    let all = challenges(header);
    let bytes: usize = all.iter().map(|each| each.scheme.len()).sum();
    assert!(bytes <= 4 * header.len());
});
