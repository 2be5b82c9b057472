//! Buildah, which calls step 12 for every RUN.

use crate::stage::Printed;
use crate::stage::clients::{Buildah, Client};
use crate::stage::folder;
use std::fs;

#[test]
fn builds() {
    let Some(buildah) = Buildah::new() else {
        return;
    };
    let folder = folder();
    let here = folder.path().display().to_string();
    fs::copy(buildah.archive(), folder.path().join("root.tar")).unwrap();
    let file = folder.path().join("Containerfile");
    let text = "FROM scratch\nADD root.tar /\nENV NAME=value\nRUN echo made >/made; grep Seccomp: /proc/self/status\n\
        USER nobody\nWORKDIR /tmp\nRUN [\"sh\", \"-c\", \"echo $NAME; pwd; id -u; cat /made; echo err >&2\"]\n";
    fs::write(&file, text).unwrap();
    let ran = buildah
        .with_runtime("build", &["-t", "box", &here])
        .success();
    ran.prints("Seccomp:\t2\n")
        .prints("value\n/tmp\n65534\nmade\n")
        .complains("err\n");
    let failing = folder.path().join("Failing");
    let failing = failing.display().to_string();
    for (line, words) in [
        ("exit 7", "exit status 7"),
        ("[\"nothing\"]", "nothing"),
        ("[\"/etc/plain\"]", "permission denied"),
    ] {
        fs::write(&failing, format!("FROM localhost/box\nRUN {line}\n")).unwrap();
        buildah
            .with_runtime("build", &["-f", &failing, &here])
            .failure()
            .complains(words);
    }
    buildah.ok(&["from", "--name", "working", "localhost/box"]);
    let words = [
        "--user",
        "1234",
        "-v",
        &format!("{here}:/here:ro"),
        "working",
        "sh",
        "-c",
        "id -u; ls /here; exit 4",
    ];
    buildah
        .with_runtime("run", &words)
        .code(4)
        .stdout("1234\nContainerfile\nFailing\nroot.tar\n");
    buildah.ok(&["rm", "working"]);
}
