//! The exercises of chapter 7, called one by one.

use probe::anyhow::Result;
use probe::{Claim, Findings};
use step07_cgroups::{Version, find as find_hierarchy};

fn main() -> Result<()> {
    probe::main(&[("find", find)])
}

fn find(findings: &Findings) -> Result<()> {
    let mountinfo = "30 20 0:25 / /cg rw - cgroup2 cgroup2 rw\n";
    findings.begin("find comes to an end in a world of version 2");
    let outcome = findings.subject().call(|| {
        let found = find_hierarchy("memory", mountinfo, "0::/a\n");
        Ok(found.map(|(path, version)| (path, version == Version::V2)))
    })?;
    let found: Option<Option<(std::path::PathBuf, bool)>> = outcome.value();
    let wanted = Some(Some(("/cg".into(), true)));
    findings.claim(Claim::new(
        "in a world of version 2 it finds /cg",
        outcome.in_words(),
        found == wanted,
    ));
    Ok(())
}
