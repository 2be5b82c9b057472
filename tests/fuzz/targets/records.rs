//! A record that was read is written as one that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use step09_detach::container::record::Record;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fuzz_target!(|text: &[u8]| {
    let Ok(record) = Record::read(text, ID) else {
        return;
    };
    let written = serde_json::to_vec(&record).expect("a record is written");
    let again = Record::read(&written, ID).expect("what we wrote reads");
    assert_eq!(written, serde_json::to_vec(&again).expect("and again"));
});
