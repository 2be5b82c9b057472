//! The dev container, for real: its image is built, and inside it somebody does the course.

use super::place::{bring, cargo_home};
use crate::stage::engine::Engine;
use crate::stage::{HOW_CARGO_BUILDS, Printed, debian, folder, have, nested, run};
use assert_cmd::assert::OutputAssertExt;
use progress::chapters::CHAPTERS;
use progress::host::evidence::Process;
use progress::programs::workspace;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the engine can't do here, and the file that says so to compose.
///
/// Without CAP_SYS_RESOURCE nobody can give a container all capabilities, and Docker's `--privileged`
/// ends with "capset: EPERM". Then the same service is started with all the others, without seccomp
/// and with the cgroups writable. The network is the host's, since the engine has no bridge.
fn arrangement() -> String {
    let own = Process(nix::unistd::getpid()).status("CapEff").unwrap();
    let own = u64::from_str_radix(&own, 16).unwrap();
    // Debian's engine knows those up to audit_read.
    let all = &progress::desk::xray::CAPABILITIES[..38];
    let missing: Vec<_> = (0..all.len())
        .filter(|bit| own >> bit & 1 == 0)
        .map(|bit| all[bit])
        .collect();
    let mut text = "services:\n  book:\n    network_mode: host\n  workshop:\n    \
        build: {network: host, args: {BASE: 'base:test'}}\n    network_mode: host\n"
        .to_owned();
    if !missing.is_empty() {
        eprintln!("not privileged, for want of {missing:?}");
        let given = (0..all.len()).filter(|bit| own >> bit & 1 == 1);
        let given: Vec<_> = given.map(|bit| all[bit].to_uppercase()).collect();
        text += &format!(
            "    privileged: false\n    cap_add: [{}]\n    security_opt: ['seccomp:unconfined']\n    \
             volumes: ['/sys/fs/cgroup:/sys/fs/cgroup']\n",
            given.join(", ")
        );
    }
    text
}

/// A root of Debian, with this machine's Rust and certificates: what stands in for the registry's image.
fn base(engine: &Engine, debian: &Path) {
    let folder = folder();
    let root = folder.path().join("root");
    run(Command::new("cp").arg("-a").arg(debian).arg(&root));
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]));
    let rust = root.join("usr/local/rust");
    fs::create_dir_all(&rust).unwrap();
    fs::create_dir_all(root.join("usr/local/cargo")).unwrap();
    let shell = |line: &str, arguments: &[&Path]| {
        run(Command::new("sh").args(["-ec", line, "sh"]).args(arguments));
    };
    let sysroot = Path::new(sysroot.trim());
    shell(
        "cd \"$1\" && tar -c --exclude=share/doc . | tar -x -C \"$2\"",
        &[sysroot, &rust],
    );
    // How this machine reaches Debian and the registry of crates is its own affair.
    shell(
        "mkdir -p \"$1/etc/ssl/certs\" && cp -a /etc/ssl/certs/. \"$1/etc/ssl/certs/\"
         for list in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
             [ ! -f \"$list\" ] || cp -L \"$list\" \"$1$list\"
         done
         config=${CARGO_HOME:-$HOME/.cargo}/config.toml
         [ ! -f \"$config\" ] || cp \"$config\" \"$1/usr/local/cargo/\"",
        &[&root],
    );
    // cargo takes what it has installed already, if it was built the same way; that takes minutes.
    let tools = workspace().join("target/tools");
    if tools.join("bin/mdbook").exists() {
        shell(
            "cp -a \"$1/bin\" \"$1\"/.crates* \"$2/usr/local/\"",
            &[&tools, &root],
        );
    }
    // What is built of others' crates holds where these lie at the same place. There their folder gets one more name.
    let home = cargo_home();
    shell(
        "[ \"$2\" = /usr/local/cargo ] || { mkdir -p \"$1${2%/*}\" && ln -s /usr/local/cargo \"$1$2\"; }",
        &[&root, &home],
    );
    let environment = format!(
        "ENV CARGO_HOME={} \
         PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        home.display()
    );
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(&root)
        .args(["-c", "."])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    engine
        .docker()
        .args(["import", "-c", &environment, "-", "base:test"])
        .stdin(tar.stdout.take().unwrap())
        .assert()
        .success();
    assert!(tar.wait().unwrap().success());
}

/// What somebody types in there: the doctor, every check, one exercise from start to pass.
const SESSION: &str = r#"
set -e
man -w unshare mdbook >/dev/null 2>&1 || man -w unshare >/dev/null
for tool in strace ip ps unshare busybox debootstrap mdbook sudo; do command -v $tool >/dev/null; done
cargo progress doctor
for chapter in 1 2 3 4; do cargo progress check $chapter --solution; done
for chapter in 5 6 7 8; do cargo progress check $chapter --solution || echo "chapter $chapter fails"; done
export TEN_STEPS_EXERCISES=/var/lib/ten-steps/try
mkdir -p $TEN_STEPS_EXERCISES
cargo progress start 1
cargo progress check 1 || echo "to do: $?"
file=$TEN_STEPS_EXERCISES/step01-uts/src/lib.rs
sed -i 's/todo!("exercise 1.1 enter_uts")/call!(sethostname(hostname))?; Ok(())/' $file
cargo progress check 1 || echo "not yet: $?"
sed -i 's/call!(sethostname/call!(unshare(CloneFlags::CLONE_NEWUTS))?; &/' $file
cargo progress solve 1.2
cargo progress check 1
echo "done: $?"
"#;

#[test]
fn the_dev_container_holds_all_that_the_course_needs() {
    let tools = [
        ("dockerd", "docker.io"),
        ("docker-compose", "docker-compose"),
    ];
    if nested() || !tools.iter().all(|(tool, package)| have(tool, package)) {
        return;
    }
    let Some(debian) = debian() else { return };
    let engine = Engine::start();
    base(&engine, &debian);
    let folder = folder();
    let file = folder.path().join("arrangement.yml");
    fs::write(&file, arrangement()).unwrap();
    // A checkout of its own: what is written in there is root's.
    let checkout = folder.path().join("checkout");
    fs::create_dir(&checkout).unwrap();
    run(Command::new("sh").current_dir(workspace()).args(["-ec",
        "tar -c --exclude=./target --exclude=./exercises --exclude=./.git --exclude=./book/book . | tar -x -C \"$0\""]).arg(&checkout));
    run(Command::new("chown")
        .args(["-R", "1234:1234"])
        .arg(&checkout));
    let compose = || {
        let mut compose = Command::new("docker-compose");
        engine.with(&mut compose);
        compose
            .current_dir(&checkout)
            .args(["-p", "ten-steps-test", "-f", "docker-compose.yml", "-f"])
            .arg(&file)
            .stderr(Stdio::piped());
        compose
    };
    run(compose().args(["build", "workshop"]));
    // Of others' crates cargo takes what it has built already; ours it builds.
    let target = "ten-steps-test_target";
    run(engine.docker().args(["volume", "create", target]));
    let place = ["volume", "inspect", "--format", "{{.Mountpoint}}", target];
    let place = run(engine.docker().args(place));
    let debug = Path::new(env!("CARGO_BIN_EXE_progress")).parent().unwrap();
    bring(debug, Path::new(place.trim()));
    // Cargo builds as it does outside.
    let set = HOW_CARGO_BUILDS
        .into_iter()
        .filter(|name| std::env::var_os(name).is_some());
    let said = run(compose()
        .args(["run", "--rm", "-T"])
        .args(set.flat_map(|name| ["-e", name]))
        .args(["workshop", "bash", "-c", SESSION]));
    let holding = ["2 of 2 hold", "4 of 4 hold", "3 of 3 hold", "4 of 4 hold"];
    let mut rest = said.as_str();
    for words in holding {
        let (_, after) = rest
            .split_once(words)
            .unwrap_or_else(|| panic!("{words}: {said}"));
        rest = after;
    }
    let story = [
        "2 to do; begin with 1.1",
        "to do: 1",
        "why       unshare wasn't called",
        "not yet: 1",
        "◐ 1.2",
        "✓ 1.1 enter_uts",
        "All hold.",
        "✓ it fails",
        "done: 0",
    ];
    for words in story {
        let (_, after) = rest
            .split_once(words)
            .unwrap_or_else(|| panic!("{words}: {said}"));
        rest = after;
    }
    assert!(
        !said.contains(" fails\n")
            && said.contains(&format!(
                "Chapters 1 to {} can be done here.",
                CHAPTERS.len()
            )),
        "{said}"
    );

    // A second window on one that goes on running, and what it writes belongs to the checkout's owner.
    run(compose().args(["up", "-d", "--no-build", "workshop"]));
    let second =
        "set -e; hostname; cargo progress start 2; stat -c %u exercises/step02-pid/src/lib.rs";
    let said = run(compose().args(["exec", "-T", "workshop", "bash", "-c", second]));
    assert!(said.trim().ends_with("1234"), "{said}");
    // The book, served from inside.
    // Without the port on the outside: the engine has no bridge that could forward it.
    run(compose().args(["run", "-d", "book"]));
    let page = progress::host::container::in_a_while(|| {
        let answer = ureq::get("http://127.0.0.1:3000/01-uts.html").call().ok()?;
        answer.into_body().read_to_string().ok()
    });
    assert!(page.is_some_and(|page| page.contains("Ten Steps to a Container")));
    run(compose().args(["down", "--volumes"]));
}

/// On cgroup v2 the entry point moves whoever is in the root group, and hands the controllers on. Here
/// on a hierarchy of this machine's, in a cgroup namespace.
#[test]
fn the_entry_point_arranges_cgroup_v2() {
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let Some(top) = unified
        .iter()
        .find(|top| Path::new(top).join("cgroup.subtree_control").exists())
    else {
        return crate::stage::skip("there is no cgroup v2 here");
    };
    // A group can hand on what it was given.
    let given = fs::read_to_string(Path::new(top).join("cgroup.subtree_control")).unwrap();
    let group = Path::new(top).join(format!("ten-steps-test-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let script = "set -e; echo 0 >$0/cgroup.procs
        exec unshare --cgroup --mount sh -ec '
            mount -t cgroup2 none /sys/fs/cgroup
            exec \"$0\" sh -ec \"cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.subtree_control;
                echo left: \\$(wc -l </sys/fs/cgroup/cgroup.procs)\"' $1";
    let ran = Command::new("sh")
        .args(["-c", script])
        .arg(&group)
        .arg(workspace().join(".devcontainer/entrypoint"))
        .assert();
    fs::remove_dir(group.join("workshop")).unwrap();
    fs::remove_dir(&group).unwrap();
    let ran = ran.success();
    ran.prints("0::/workshop").prints("left: 0");
    for controller in given.split_whitespace() {
        ran.prints(controller);
    }
}
