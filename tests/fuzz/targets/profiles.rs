//! A seccomp profile becomes a filter that the kernel can take, or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use step06_caps::seccomp::MOST_INSTRUCTIONS;
use step06_caps::seccomp::profile::Profile;

fuzz_target!(|text: &[u8]| {
    let Ok(profile) = serde_json::from_slice::<Profile>(text) else {
        return;
    };
    if let Ok(filter) = profile.compile(0) {
        assert!(filter.instructions().len() <= MOST_INSTRUCTIONS);
    }
});
