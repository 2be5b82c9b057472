//! The folder of a hierarchy by two texts, which a NUL parts here: it is absolute, or there is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use step07_cgroups::find;

fuzz_target!(|texts: &str| {
    let (mountinfo, own) = texts.split_once('\0').unwrap_or((texts, ""));
    for controller in ["memory", "pids", "devices", ""] {
        let _ = find(controller, mountinfo, own);
    }
});
