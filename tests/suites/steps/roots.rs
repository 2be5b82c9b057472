//! The ways to make a root filesystem, and the default one.

use crate::stage::engine::Engine;
use crate::stage::{
    Printed, Root, as_nobody, copy_program, debian, folder, have, mount_apart, nested, on_host,
    run, script, step04, write_program,
};
use assert_cmd::assert::OutputAssertExt;
use nix::errno::Errno;
use progress::host::Propagation;
use progress::host::container::{Container, eventually};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use step04_pivot_root::removal::remove_tree;

/// What the issue of this whole course looks like, in any root that has these programs.
fn look_around(root: &Path) -> String {
    let look = "cat /etc/os-release 2>/dev/null | head -n 1; ps ax; hostname; mount";
    let shell = "exec \"$1\" --rootfs \"$2\" sh -c \"$3\"";
    let arguments = [step04().to_str().unwrap(), root.to_str().unwrap(), look];
    on_host(Propagation::Shared, shell, &arguments)
        .success()
        .printed()
}

/// Two processes, a name of its own, and its own three mounts.
fn assert_alone(said: &str) {
    let processes = said.lines().filter(|line| {
        line.split_whitespace()
            .next()
            .is_some_and(|word| word.parse::<u32>().is_ok())
    });
    assert_eq!(processes.count(), 2, "{said}");
    assert!(said.lines().any(|line| line == "container"), "{said}");
    let mounts: Vec<_> = said.lines().filter(|line| line.contains(" on /")).collect();
    assert_eq!(mounts.len(), 3, "{said}");
}

#[test]
fn the_hosts_own_programs() {
    let root = Root::shared();
    assert_alone(&look_around(&root.path()));
    // Each program starts, by the path and by the name that it has here.
    for program in [
        "sh", "ls", "cat", "ps", "mount", "hostname", "id", "env", "stat", "dd", "stty",
    ] {
        run(Command::new(step04())
            .args(["--why", "--rootfs"])
            .arg(root.path())
            .arg(program));
    }
    // Links stay links.
    for link in ["/bin", "/lib64", "/bin/sh"] {
        if let Ok(target) = fs::read_link(link) {
            let inside = root.path().join(&link[1..]);
            assert_eq!(fs::read_link(inside).unwrap(), target, "{link}");
        }
    }
}

#[test]
fn a_script_comes_with_its_interpreter() {
    let folder = folder();
    let greet = folder.path().join("greet");
    write_program(&greet, "#!/usr/bin/env bash\necho hello from $BASH\n");
    symlink("greet", folder.path().join("link")).unwrap();
    let root = folder.path().join("root");
    run(script("from-host.sh")
        .arg(&root)
        .arg(folder.path().join("link")));
    let said = run(Command::new(step04())
        .arg("--rootfs")
        .arg(&root)
        .arg(folder.path().join("link")));
    assert!(said.starts_with("hello from /"), "{said}");
    // The manifest has what was copied, and nothing that wasn't.
    let copied = fs::read_to_string(root.join("etc/from-host")).unwrap();
    assert!(
        copied.lines().any(|line| line.ends_with("/greet")),
        "{copied}"
    );
    assert!(
        copied.lines().all(|line| root.join(&line[1..]).is_file()),
        "{copied}"
    );
}

/// What is noted line by line can't be a name of two lines: the second would be a path of this machine.
#[test]
fn names_of_two_lines_are_refused() {
    let folder = folder();
    let outside = folder.path().join("made");
    let below = folder.path().join("a\n");
    let below = below.join(outside.strip_prefix("/").unwrap());
    fs::create_dir_all(&below).unwrap();
    copy_program("/bin/true", below.join("true"));
    let link = folder.path().join("a\tlink");
    symlink("/bin/true", &link).unwrap();
    let root = folder.path().join("root");
    for (program, words) in [
        (below.join("true"), "a name with a newline"),
        (link, "a link with a tab or a newline"),
    ] {
        let ran = script("from-host.sh").arg(&root).arg(&program).assert();
        ran.failure().complains(words);
        assert!(!root.exists() && !outside.exists(), "{program:?}");
    }
}

/// A link of this machine in the place of a directory that each root has: what is written there stays inside.
#[test]
fn a_root_keeps_its_own_directories() {
    let folder = folder();
    // On a mount namespace's own /var, which goes with it.
    let shell = "set -e; mount -t tmpfs var /var; mkdir /var/real; ln -s /var/real /var/tmp
        cp /bin/true /var/real/program; ln -s /var/tmp/program \"$1/link\"
        \"$2\" \"$1/root\" \"$1/link\"; umount /var";
    let script = progress::programs::workspace().join("rootfs-scripts/from-host.sh");
    let arguments = [folder.path(), &script].map(|path| path.to_str().unwrap());
    on_host(Propagation::Private, shell, &arguments).success();
    let root = folder.path().join("root");
    assert!(fs::symlink_metadata(root.join("var/tmp")).unwrap().is_dir());
    assert!(root.join("var/real/program").exists());
}

/// Where owners can't be kept, modes are.
#[test]
fn a_root_by_who_owns_nothing() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    run(Command::new("cp")
        .arg("-r")
        .arg(progress::programs::workspace().join("rootfs-scripts"))
        .arg(at("scripts")));
    fs::create_dir(at("theirs")).unwrap();
    chown(at("theirs"), Some(65534), Some(65534)).unwrap();
    run(as_nobody(Path::new("unshare"))
        .args(["--user", "--map-root-user"])
        .arg(at("scripts/from-host.sh"))
        .arg(at("theirs/root"))
        .arg("ls"));
    let program = fs::canonicalize("/bin/ls").unwrap();
    let copy = at("theirs/root").join(program.strip_prefix("/").unwrap());
    let modes = [program, copy].map(|file| file.metadata().unwrap().mode() & 0o777);
    assert_eq!(modes[0], modes[1]);
}

#[test]
fn an_existing_directory_is_not_touched() {
    let folder = folder();
    fs::write(folder.path().join("precious"), "data").unwrap();
    for name in ["from-host.sh", "busybox.sh"] {
        let said = script(name).arg(folder.path()).assert().failure().errors();
        // Without a busybox the script hasn't even looked.
        assert!(
            said.contains("isn't empty") || said.contains("isn't on this machine"),
            "{said}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    // An empty one is as good as none.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    run(script("from-host.sh").arg(&empty).arg("true"));
    assert!(empty.join("etc/from-host").exists());
}

#[test]
fn a_busybox_root() {
    if !have("busybox", "busybox-static") {
        return;
    }
    let folder = folder();
    let root = folder.path().join("root");
    run(script("busybox.sh").arg(&root));
    let said = look_around(&root);
    // Busybox's ps prints one line more than procps', its own header; its mount the same three.
    assert_alone(&said);
}

/// The Real input of the chapter, as typed but for the place.
#[test]
fn a_debian_root() {
    if nested() {
        return;
    }
    let Some(root) = debian() else { return };
    let look = "cat /etc/os-release; ps ax; hostname; mount";
    let shell = "exec \"$1\" --rootfs \"$2\" /bin/bash -lc \"$3\"";
    let arguments = [step04().to_str().unwrap(), root.to_str().unwrap(), look];
    let ran = on_host(Propagation::Shared, shell, &arguments);
    ran.prints("NAME=\"Debian GNU/Linux\"");
    ran.prints("1 ?").prints("/bin/bash -lc");
    assert_alone(&ran.printed());
}

#[test]
fn a_root_from_docker() {
    if nested() || !have("dockerd", "docker.io") || !have("busybox", "busybox-static") {
        return;
    }
    let engine = Engine::start();
    let folder = folder();
    let at = |name: &str| folder.path().join(name).display().to_string();
    run(script("busybox.sh").arg(at("busybox")));
    run(Command::new("chown")
        .args(["-h", "1234:4321"])
        .arg(at("busybox/etc/group")));
    run(Command::new("tar").args(["-C", &at("busybox"), "-cf", &at("image.tar"), "."]));
    run(engine
        .docker()
        .args(["import", &at("image.tar"), "busybox:test"]));
    run(engine.with(script("docker-export.sh").args(["busybox:test", &at("root")])));
    let left = run(engine.docker().args(["ps", "--all", "--quiet"]));
    assert_eq!(left, "", "docker-export.sh left a container");
    let root = folder.path().join("root");
    assert_eq!(
        fs::read_link(root.join("bin/sh")).unwrap(),
        fs::read_link(at("busybox/bin/sh")).unwrap()
    );
    let group = root.join("etc/group").metadata().unwrap();
    assert_eq!((group.uid(), group.gid()), (1234, 4321));
    assert_eq!(root.join("tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
    assert_alone(&look_around(&root));
}

/// The inode of the default root below a state folder, and what else is there.
fn default_root(state: &Path) -> (u64, Vec<String>) {
    let names = fs::read_dir(state.join("roots")).unwrap();
    let mut names: Vec<_> = names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    (state.join("roots/default").metadata().unwrap().ino(), names)
}

/// A program in the default root of a state folder.
fn in_default_root(state: &Path, command: &[&str]) -> Command {
    let mut program = Command::new(step04());
    program.arg("--state-dir").arg(state).args(command);
    program
}

const WHOLE: [&str; 3] = ["default", "default.lock", "default.scripts"];

#[test]
fn the_default_root_is_made_once() {
    let state = folder();
    let programs: Vec<_> = (0..8)
        .map(|_| in_default_root(state.path(), &["true"]).spawn().unwrap())
        .collect();
    for mut program in programs {
        assert!(program.wait().unwrap().success());
    }
    let (inode, names) = default_root(state.path());
    assert_eq!(names, WHOLE);
    run(&mut in_default_root(state.path(), &["true"]));
    assert_eq!(default_root(state.path()).0, inode);
}

#[test]
fn the_default_root_is_renewed_unless_it_is_in_use() {
    let state = folder();
    run(&mut in_default_root(state.path(), &["true"]));
    let (first, _) = default_root(state.path());
    // The host's program is newer than the copy.
    let age = |state: &Path| {
        let copied = fs::read_to_string(state.join("roots/default/etc/from-host")).unwrap();
        let copy = state
            .join("roots/default")
            .join(&copied.lines().next().unwrap()[1..]);
        run(Command::new("touch").args(["-d", "2001-01-01"]).arg(copy));
    };
    age(state.path());
    let container = Container::start_with(&mut in_default_root(
        state.path(),
        &["cat", "/proc/version", "-"],
    ));
    let (second, _) = default_root(state.path());
    assert_ne!(first, second, "a newer program on the host");

    age(state.path());
    run(&mut in_default_root(state.path(), &["true"]));
    assert_eq!(
        default_root(state.path()).0,
        second,
        "a container was using it"
    );
    container.unwrap().finish().unwrap();
    run(&mut in_default_root(state.path(), &["true"]));
    let (third, _) = default_root(state.path());
    assert_ne!(third, second, "nobody was using it any more");

    // A container has removed a program, or all of them.
    fs::remove_file(state.path().join("roots/default/etc/from-host")).unwrap();
    fs::remove_dir_all(state.path().join("roots/default/usr/bin")).unwrap();
    run(&mut in_default_root(state.path(), &["true"]));
    let (mended, _) = default_root(state.path());
    assert_ne!(mended, third, "its programs were gone");

    // Or has set a trap: whoever opens this for reading waits for ever.
    let manifest = state.path().join("roots/default/etc/from-host");
    fs::remove_file(&manifest).unwrap();
    run(Command::new("mkfifo").arg(&manifest));
    let mut program = in_default_root(state.path(), &["true"]).spawn().unwrap();
    let ended = eventually(|| program.try_wait().unwrap());
    program.kill().unwrap();
    assert!(ended.expect("it waits for a fifo").success());
    let (third, _) = default_root(state.path());

    // Other scripts than ours, and what a run left behind that was killed while it made a root.
    fs::write(
        state.path().join("roots/default.scripts/from-host.sh"),
        "exit 1\n",
    )
    .unwrap();
    fs::create_dir(state.path().join("roots/default.new")).unwrap();
    fs::create_dir(state.path().join("roots/.default.new.abcdef")).unwrap();
    run(&mut in_default_root(state.path(), &["true"]));
    let (fourth, names) = default_root(state.path());
    assert_ne!(fourth, third);
    assert_eq!(names, WHOLE);
}

/// Killed at any moment while it makes the default root, script and all: the next run makes it whole.
#[test]
fn an_interrupted_default_root_is_made_again() {
    let state = folder();
    for round in 0..8_u32 {
        let mut program = in_default_root(state.path(), &["true"]);
        let mut program = program.process_group(0).spawn().unwrap();
        // The lock is there as soon as it has begun; each round gives it a little longer.
        eventually(|| {
            state
                .path()
                .join("roots/default.lock")
                .exists()
                .then_some(())
        })
        .unwrap();
        (0..round * 2000).for_each(|_| std::thread::yield_now());
        let pid = nix::unistd::Pid::from_raw(program.id() as i32);
        // Every other time only the program, and the script goes on.
        match round % 2 {
            0 => nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap(),
            _ => nix::sys::signal::killpg(pid, nix::sys::signal::Signal::SIGKILL).unwrap(),
        }
        program.wait().unwrap();
        run(&mut in_default_root(state.path(), &["true"]));
        assert_eq!(default_root(state.path()).1, WHOLE);
        fs::remove_dir_all(state.path().join("roots")).unwrap();
    }
}

/// Libraries in a place that only this machine's ld.so.cache knows are found in the root as well.
#[test]
fn libraries_from_elsewhere_are_found() {
    if !have("gcc", "gcc") || !have("ldconfig", "libc-bin") {
        return;
    }
    let folder = folder();
    // On a mount namespace's own /etc/ld.so.cache and /usr/local/lib, which go with it.
    let shell = "set -e; PATH=$PATH:/usr/sbin:/sbin; cd \"$1\"
        mkdir etc lib; cp /etc/ld.so.cache etc; mount --bind lib /usr/local/lib
        mount --bind etc/ld.so.cache /etc/ld.so.cache
        echo 'int answer(void) { return 42; }' | gcc -shared -fPIC -o lib/libanswer.so -x c -
        echo 'int answer(void); int main(void) { return answer(); }' | gcc -o ask -x c - -Llib -lanswer
        ldconfig -C cache -X /usr/local/lib; cat cache >/etc/ld.so.cache
        \"$2\" \"$1/root\" \"$1/ask\"; umount /usr/local/lib
        \"$3\" --rootfs root \"$1/ask\" || code=$?
        umount /etc/ld.so.cache; exit $code";
    let script = progress::programs::workspace().join("rootfs-scripts/from-host.sh");
    let arguments = [folder.path(), &script, step04()].map(|path| path.to_str().unwrap());
    on_host(Propagation::Private, shell, &arguments).code(42);
}

#[test]
fn a_break_of_what_is_no_root_changes_nothing() {
    let folder = folder();
    // This machine's own root, however it is spelt; with nothing at hand that could do harm.
    symlink("/", folder.path().join("slash")).unwrap();
    let slash = folder.path().join("slash").display().to_string();
    for root in ["/", "//", "/.", "/proc/self/root", "/usr/..", &slash] {
        script("break.sh")
            .args(["bad-shebang-of-nothing", root])
            .assert()
            .complains("this machine's own root");
    }
    fs::remove_file(folder.path().join("slash")).unwrap();
    for (kind, directory) in [
        ("missing-loader", "/"),
        ("no-such-kind", "root"),
        ("bad-shebang", "none"),
    ] {
        let directory = folder.path().join(directory);
        let ran = script("break.sh")
            .arg(kind)
            .arg(&directory)
            .assert()
            .failure();
        assert!(!ran.errors().is_empty(), "{ran}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A tree is removed, and what is mounted on it or in it stays as it is. Nobody's whole machine is one.
#[test]
fn what_is_mounted_is_not_removed() {
    mount_apart();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("tree/below/deep")).unwrap();
    fs::write(at("tree/below/file"), "").unwrap();
    let mount = |name: &str| {
        let place = at(name);
        run(Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&place));
        fs::write(place.join("precious"), "").unwrap();
    };
    mount("tree");
    let errno = remove_tree(&at("tree")).unwrap_err();
    assert_eq!(
        errno.downcast_ref::<Errno>(),
        Some(&Errno::EXDEV),
        "{errno:#}"
    );
    assert!(at("tree/precious").exists());
    run(Command::new("umount").arg(at("tree")));
    mount("tree/below/deep");
    remove_tree(&at("tree")).unwrap_err();
    assert!(at("tree/below/deep/precious").exists());
    run(Command::new("umount").arg(at("tree/below/deep")));
    for nobodys in ["tree/..", "tree/below/.."] {
        remove_tree(&at(nobodys)).unwrap_err();
        assert!(at("tree/below").exists(), "{nobodys}");
    }
    remove_tree(&at("tree")).unwrap();
    assert!(!at("tree").exists());
    remove_tree(&at("tree")).unwrap();
}
