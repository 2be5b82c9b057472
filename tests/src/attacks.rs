//! What works before a chapter and fails at its end.
//!
//! An attack runs on the pretend host, which takes the blow, and the kernel says whether it worked.

pub mod attacker;

use crate::checks::step05::AtTerminal;
use crate::checks::step09::{Innocent, Store, make_record_lie};
use crate::checks::step11::{FAILED, Puller, root};
use crate::checks::step12::{Runtime, config};
use crate::course::attack::{Attack, Blow, Prison};
use crate::host::container::{Container, before_rest, run, run_with};
use crate::host::evidence::{Process, hosts_name};
use crate::host::registry::digest;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use pty_process::blocking::Command as PtyCommand;
use serde_json::json;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Somebody on the host, with a secret in the environment.
struct Victim(Child);

const SECRET: &str = "canary-4711";

impl Victim {
    fn new() -> Result<Victim> {
        let mut command = Command::new("sleep");
        command.arg("infinity").env("SECRET", SECRET);
        Ok(Victim(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .context("sleep, the victim")?,
        ))
    }

    fn process(&self) -> Process {
        Process(Pid::from_raw(self.0.id() as i32))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Chapter 1: the host is renamed from within.
pub const UTS: Attack = Attack {
    command: "hostname pwned",
    aim: "the host is called pwned",
    make: rename_the_host,
    learnt: &[
        "unshare(CLONE_NEWUTS) gives its caller a copy of the names, and nobody else",
        "execve returns only to say why it failed: 127 not found, 126 not executable",
    ],
    beyond: "runc, crun and youki make all namespaces in one clone, in a user namespace where \
             they can, and set the name from `hostname` in config.json",
    next: "the container can still send signals to every process of the host: chapter 2",
};

fn rename_the_host(prison: &Prison) -> Result<Blow> {
    prison.attempt("hostname pwned")?;
    let name = hosts_name()?;
    Ok(Blow {
        struck: name == "pwned",
        seen: format!("/proc/sys/kernel/hostname on the host: {name}"),
    })
}

/// Chapter 2: a process of the host is killed from within.
pub const PID: Attack = Attack {
    command: "kill VICTIM",
    aim: "a process of the host ends",
    make: kill_the_victim,
    learnt: &[
        "a PID namespace is for the children of who makes it; the first of them is PID 1",
        "close-on-exec tells a parent that its child has become the command",
        "a wait status holds an exit code or a signal, and 128+N tells of signal N",
        "PID 1 inherits orphans, and gets only the signals that it asks for",
    ],
    beyond: "Docker puts tini before the command for --init; runc leaves a process behind \
             between `create` and `start`, waiting on a fifo until the command may begin",
    next: "`ps` and /proc still show every process of the host, with its secrets: chapter 3",
};

fn kill_the_victim(prison: &Prison) -> Result<Blow> {
    let mut victim = Victim::new()?;
    let attempt = prison.attempt(&format!("kill {}", victim.0.id()))?;
    let ended = match attempt.code {
        // The signal is sent; its work takes a moment.
        0 => before_rest(Process(getpid()), || victim.0.try_wait().ok().flatten()),
        _ => victim.0.try_wait()?,
    };
    Ok(match ended {
        Some(status) => Blow {
            struck: true,
            seen: format!(
                "the victim was ended by signal {}",
                status.signal().unwrap_or_default()
            ),
        },
        None => Blow {
            struck: false,
            seen: format!(
                "/proc/VICTIM/status: State: {}; kill said: {}",
                victim.process().status("State")?,
                last_words(&attempt.errors)
            ),
        },
    })
}

/// Chapter 3: a secret of the host is read through its /proc.
pub const MOUNT: Attack = Attack {
    command: "cat /proc/VICTIM/environ",
    aim: "the secret in the environment of a process of the host is read",
    make: |prison| read_the_secret(prison, "cat /proc/VICTIM/environ"),
    learnt: &[
        "a copied mount namespace stays tied to the original until its mounts are private",
        "a procfs and a sysfs show the namespaces of the process that mounted them",
        "a new network namespace has a loopback, and it is down",
    ],
    beyond: "runtimes mask parts of /proc (kcore, keys, timer_list) and mount others read-only; \
             Docker connects the network namespace by a veth pair and a bridge",
    next: "below the new /proc the old one is still mounted, and umount uncovers it: chapter 4",
};

/// Chapter 4: what lies beneath the container's /proc.
pub const ROOT: Attack = Attack {
    command: "umount /proc; cat /proc/VICTIM/environ",
    aim: "the host's /proc appears beneath, with the secret of a process of the host",
    make: |prison| read_the_secret(prison, "umount /proc; cat /proc/VICTIM/environ"),
    learnt: &[
        "pivot_root exchanges mounts, so the new root has to be one",
        "with the old root detached no path and no mount leads back to the host",
        "a command inherits nothing that nobody gave it: the environment is made anew",
        "ENOENT from execve is about a file that the program needs: ask --why",
    ],
    beyond: "runc, crun and youki pivot in the same way, over an overlay of image layers; where \
             pivot_root is impossible (an initramfs) they move the mount and chroot",
    next: "the container has no terminal of its own, and can type into yours: chapter 5",
};

/// Chapter 5: the container types into the host's shell.
pub const TTY: Attack = Attack {
    command: "progress attacker type 'echo INJECTED'",
    aim: "the host's shell finds the words in its terminal, as if its user had typed them",
    make: type_into_the_terminal,
    learnt: &[
        "a device file is a number, whatever its name; a /dev of its own needs none of the root's",
        "each devpts has a ptmx and numbers of its own",
        "a session has one controlling terminal, and only its leader takes it",
        "what must be put back is put back by Drop, after a panic too",
    ],
    beyond: "runc opens the terminal in the container and sends its master over a socket, to whoever \
             sits before it: containerd's shim, conmon. Since Linux 6.2 the sysctl dev.tty.legacy_tiocsti \
             can switch TIOCSTI off",
    next: "root in the container is still root: it mounts a devtmpfs, and has the host's disks: chapter 6",
};

/// What the attacker types: the shell would run it when the container has ended.
const INJECTED: &str = "echo INJECTED\n";

fn type_into_the_terminal(prison: &Prison) -> Result<Blow> {
    let this = crate::host::this_program()?;
    let root = prison.bench.scratch.join("armed");
    let script = crate::programs::workspace().join("rootfs-scripts/from-host.sh");
    let made = Command::new(script)
        .arg(&root)
        .arg("sh")
        .arg(&this)
        .status()?;
    if !made.success() {
        bail!("a root with this program in it: {made}");
    }
    let this = this.to_string_lossy();
    let interactive = prison.root_flag.is_some() && prison.has_terminals();
    let flags: &[&str] = if interactive { &["-it"] } else { &[] };
    let arguments = prison.arguments(&root, flags, &[&this, "attacker", "type", INJECTED]);
    let program = match prison.open {
        true => PtyCommand::new(&*this).args(["attacker", "type", INJECTED]),
        false => PtyCommand::new(&prison.bench.program).args(arguments),
    };
    let mut terminal = AtTerminal::start(program, "typed")?;
    let process = terminal.process();
    let ended = before_rest(process, || terminal.program.try_wait().ok().flatten());
    ended.context("it doesn't end")?;
    // What is waiting there to be read by the host's shell.
    let waiting = bytes_waiting(&terminal.slave)?;
    Ok(Blow {
        struck: waiting > 0,
        seen: format!("FIONREAD on the host's terminal: {waiting} bytes"),
    })
}

fn bytes_waiting(terminal: &File) -> Result<i32> {
    let mut waiting = 0;
    // SAFETY: the kernel writes one int.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
    nix::errno::Errno::result(result)?;
    Ok(waiting)
}

/// Chapter 6: the host's disks are listed from within. They are never opened.
pub const CAPS: Attack = Attack {
    command: "mount -t devtmpfs none /mnt && ls /mnt",
    aim: "the host's disks lie in the container's /mnt",
    make: mount_devtmpfs,
    learnt: &[
        "uid 0 is a number; the power of root is 41 capabilities, in five sets",
        "groups go before the user, and the user before the last capabilities",
        "uid 0 writes /proc/sys without any capability, so it is read-only",
        "a filter sees numbers, and with no_new_privs anybody may put one on",
    ],
    beyond: "runc, crun and youki do the same from config.json; Docker adds AppArmor or SELinux, and \
             user namespaces make uid 0 nobody on the host",
    next: "root may still make device files, and a disk's number is no secret: chapter 7",
};

fn mount_devtmpfs(prison: &Prison) -> Result<Blow> {
    let attempt = prison.attempt(
        "mkdir -p /tmp/hosts && mount -t devtmpfs none /tmp/hosts && ls /tmp/hosts && umount /tmp/hosts; \
         code=$?; rmdir /tmp/hosts; exit $code",
    )?;
    let devices = attempt.output.lines().count();
    let struck = attempt.code == 0 && devices > 3;
    Ok(Blow {
        struck,
        seen: match struck {
            true => "ls shows the names in the host's /dev".into(),
            false => format!("mount said: {}", permission(&attempt.errors)),
        },
    })
}

/// What mount(8) said of it: the kernel's own words.
fn permission(errors: &str) -> &str {
    match errors.contains("permission denied") || errors.contains("not permitted") {
        true => "EPERM",
        false => last_words(errors),
    }
}

/// Chapter 7: a disk's number, and a file that is the disk. The disk is one of ours.
pub const CGROUP: Attack = Attack {
    command: "mknod /tmp/disk b 7 N && head -c 11 /tmp/disk",
    aim: "what is on a disk of the host is read",
    make: read_a_disk,
    learnt: &[
        "where a controller's folder is, mountinfo and /proc/self/cgroup say together",
        "a limit is a write, and the kernel's answer is worth hearing",
        "who is in the group before its first instruction can't start anybody outside",
        "a group goes by rmdir, when nobody is in it",
    ],
    beyond: "runc has systemd make the group where there is one, and hands delegated subtrees to rootless \
             containers; Kubernetes nests groups by pod and class",
    next: "what the container writes into its root, the next one of that root finds there: chapter 8",
};

/// A scratch disk with a word on it.
struct Disk {
    device: String,
    minor: String,
}

impl Disk {
    fn new(folder: &Path) -> Result<Disk> {
        let file = folder.join("disk");
        let mut text = SECRET.as_bytes().to_vec();
        text.resize(64 * 1024, 0);
        std::fs::write(&file, text)?;
        let output = Command::new("losetup")
            .env("PATH", step01_uts::PATH)
            .args(["--show", "-f"])
            .arg(&file)
            .output()?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let minor = device
            .strip_prefix("/dev/loop")
            .context("losetup, for a scratch disk")?;
        Ok(Disk {
            minor: minor.into(),
            device: device.clone(),
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .env("PATH", step01_uts::PATH)
            .arg("-d")
            .arg(&self.device)
            .status();
    }
}

fn read_a_disk(prison: &Prison) -> Result<Blow> {
    let disk = Disk::new(&prison.bench.scratch)?;
    let attempt = prison.attempt(&format!(
        "mknod /tmp/disk b 7 {} && head -c {} /tmp/disk; code=$?; rm -f /tmp/disk; exit $code",
        disk.minor,
        SECRET.len()
    ))?;
    let struck = attempt.output.contains(SECRET);
    Ok(Blow {
        struck,
        seen: match struck {
            true => format!("head printed {SECRET}"),
            false => format!("head said: {}", permission(&attempt.errors)),
        },
    })
}

/// Chapter 8: one container leaves a trap for the next.
pub const OVERLAY: Attack = Attack {
    command: "echo 'echo pwned' >/bin/ls, and somebody else runs ls in another container of that root",
    aim: "the second container runs the first one's ls",
    make: replace_ls,
    learnt: &[
        "layers lie on each other, the topmost wins, and every change ends up above all",
        "to be read-only is a property of a mount: one call makes it, another changes it",
        "what was made is taken down in reverse order, mounts before directories",
    ],
    beyond: "Docker's overlay2 and containerd's snapshots lay one directory for each layer of the image; \
             Podman does it without root by fuse-overlayfs or the kernel's own",
    next: "the container ends with the program that started it, and nobody knows of it: chapter 9",
};

fn replace_ls(prison: &Prison) -> Result<Blow> {
    let image = prison.bench.scratch.join("image");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(prison.bench.root()?)
        .arg(&image)
        .status()?;
    if !copied.success() {
        bail!("a copy of the root: {copied}");
    }
    let run_in = |command: &[&str]| {
        run(
            &prison.bench.program,
            &prison.arguments(&image, &[], command),
        )
    };
    let trap = "ls=$(command -v ls); printf '#!/bin/sh\\necho pwned\\n' >$ls.new; chmod 755 $ls.new; mv $ls.new $ls";
    if prison.open {
        bail!("this attack is for containers that share a root");
    }
    run_in(&["sh", "-c", trap])?;
    let second = run_in(&["ls", "/"])?;
    let said = second.output.lines().next().unwrap_or_default().to_owned();
    Ok(Blow {
        struck: said == "pwned",
        seen: format!("ls in the second container printed {said} first"),
    })
}

/// Chapter 9: somebody else gets the number that a container's process had.
pub const DETACH: Attack = Attack {
    command: "kill $(cat pid), a while after the container has ended",
    aim: "a process that never had to do with it is killed",
    make: kill_by_number,
    learnt: &[
        "a process in a session of its own, with none of the caller's descriptors, outlives the caller",
        "a record is replaced by rename, so nobody ever reads half of one",
        "a number isn't a process: its start time and the machine's boot id make it one",
        "a pidfd stands for one process, and is readable when that has ended",
    ],
    beyond: "Docker has a daemon and a containerd-shim for each container; Podman, without a daemon, has conmon, \
             which is what our monitor is",
    next: "nobody can look into a container that runs, but by nsenter, which leaves all privileges: chapter 10",
};

fn kill_by_number(prison: &Prison) -> Result<Blow> {
    if prison.open {
        bail!("this attack is for containers");
    }
    let store = Store::new(prison.bench, "attack");
    let (pid, id) = match prison.step {
        ..FIRST_WITH_RECORDS => {
            // Whoever wants to find his container again writes a number down.
            let root = prison.bench.root()?;
            let sleep = ["sh", "-c", "echo ready; sleep 0.1"];
            let arguments = prison.arguments(&root, &[], &sleep);
            let container = Container::start(&prison.bench.program, &arguments)?;
            let number = container.first_process().0.as_raw();
            container.ended()?;
            (number, None)
        }
        _ => {
            let id = store.start(&[], &["sleep", "1000"])?;
            (make_record_lie(&store, &id)?, Some(id))
        }
    };
    let mut innocent = Innocent::with(pid)?;
    match id {
        None => kill(Pid::from_raw(pid), Signal::SIGTERM)?,
        Some(id) => drop(store.run(&["stop", &id])?),
    }
    let killed = before_rest(Process(getpid()), || (!innocent.lives()).then_some(())).is_some();
    Ok(Blow {
        struck: killed,
        seen: match killed {
            true => "the innocent with the same number was killed".into(),
            false => "the innocent with the same number lives".into(),
        },
    })
}

/// The first step whose program keeps records of its containers.
const FIRST_WITH_RECORDS: usize = 9;

/// Chapter 10: who only enters the namespaces has all of the host's root.
pub const EXEC: Attack = Attack {
    command: "nsenter -a -t PID sh, to look into a container, and there: mount -t devtmpfs none /mnt && ls /mnt",
    aim: "the host's disks lie in the container's /mnt",
    make: look_inside,
    learnt: &[
        "setns with a pidfd enters all namespaces at once; only children are born in the PID namespace",
        "namespaces say what a process sees: what it may do has to be taken away once more",
        "a directory that is left open is a way out, whatever the root is",
    ],
    beyond: "runc joins in a C constructor before Go's threads begin, and copies itself, so that no container can \
             overwrite it through /proc/PID/exe; crun enters all namespaces by one setns with a pidfd, as here",
    next: "its images still come from this machine: chapter 11 fetches them",
};

fn look_inside(prison: &Prison) -> Result<Blow> {
    if prison.step < FIRST_WITH_RECORDS {
        bail!("this attack is for containers that stay");
    }
    let store = Store::new(prison.bench, "attack");
    let id = store.start(&[], &["sleep", "1000"])?;
    let line = "mkdir -p /tmp/hosts && mount -t devtmpfs none /tmp/hosts && ls /tmp/hosts";
    let attempt = match prison.step {
        FIRST_WITH_RECORDS => {
            let pid = store.process(&id, "process")?.0.to_string();
            let words = ["-a", "-t", &pid, "sh", "-c", line];
            run("nsenter".as_ref(), &words)?
        }
        _ => store.run(&["exec", &id, "sh", "-c", line])?,
    };
    let struck = attempt.code == 0 && attempt.output.lines().count() > 3;
    Ok(Blow {
        struck,
        seen: match struck {
            true => "ls shows the names in the host's /dev".into(),
            false => format!("mount said: {}", permission(&attempt.errors)),
        },
    })
}

/// Chapter 11: somebody between us and the registry answers in its place.
pub const PULL: Attack = Attack {
    command: "curl http://REGISTRY/v2/tools/blobs/DIGEST >layer.tar, and then: run --image layer.tar greet",
    aim: "a program that nobody asked for runs",
    make: answer_with_another_layer,
    learnt: &[
        "a registry says by a challenge what it wants: comma by comma, and a stranger's text",
        "what has a digest may come from anybody: it counts when all of it has come, and not before",
        "a layer hides what is below it by marks, which become overlayfs's whiteouts and opaque directories",
    ],
    beyond: "containerd keeps layers by digest in a content store, too, unpacks them by snapshotters, and pulls lazily \
             by eStargz; cosign says whose image it is, which no digest does",
    next: "what it runs is typed, and every engine has its own words: chapter 12 reads those of the specification",
};

fn answer_with_another_layer(prison: &Prison) -> Result<Blow> {
    if prison.step < FIRST_WITH_RECORDS {
        bail!("this attack is for containers that stay");
    }
    let puller = Puller::new(prison.bench, "attack")?;
    let (right, wrong) = (root(prison.bench, "hello")?, root(prison.bench, "pwned")?);
    let name = digest(&right);
    puller
        .registry
        .push("tools", "latest", &[right], &json!({}));
    puller.registry.swap(&name, &wrong);
    let image = puller.registry.image("tools");
    let ran = match prison.step {
        FIRST_WITH_IMAGES.. => puller.run(&["run", "--rm", &image, "greet"])?,
        _ => {
            let fetched = prison.bench.scratch.join("layer.tar");
            let path = format!("/v2/tools/blobs/{name}");
            fs::write(&fetched, get(&puller.registry.name(), &path)?)?;
            let fetched = fetched.to_string_lossy();
            puller.run(&["run", "--rm", "--image", &fetched, "greet"])?
        }
    };
    let said = ran.output.trim();
    Ok(Blow {
        struck: said == "pwned",
        seen: match (said, ran.code, &*puller.left("tools")) {
            ("", FAILED, "nothing") => {
                "run ended with exit code 125, and nothing of the image is kept".into()
            }
            ("", FAILED, left) => format!("run ended with exit code 125, and keeps {left}"),
            ("", ..) => ran.in_words(),
            (said, ..) => format!("greet printed {said}"),
        },
    })
}

/// The first step whose program gets images.
const FIRST_WITH_IMAGES: usize = 11;

/// Chapter 12: a field of config.json that nobody reads.
pub const OCI: Attack = Attack {
    command: "cat /var/key, in the root of a bundle whose config.json has maskedPaths: [\"/var/key\"]",
    aim: "what config.json hides from the container is read in there",
    make: read_what_is_masked,
    learnt: &[
        "a namespace that is named by a path is opened once, and its type asked of the kernel",
        "between create and start a process waits, and whoever comes last hears of its failures",
        "a lock that the kernel takes back tells how far a process is, also of one that was killed",
    ],
    beyond: "runc and crun read the same file, refuse what they can't honour, and tell engines by `features` what they know; \
             containerd and Podman write it anew for each container",
    next: "a container that breaks out is root on the host: engines map its users, and start the runtime without root",
};

fn read_what_is_masked(prison: &Prison) -> Result<Blow> {
    if prison.step < FIRST_WITH_RECORDS {
        bail!("this attack is for containers that stay");
    }
    let bundle = prison.bench.scratch.join("bundle");
    let root = bundle.join("rootfs");
    fs::create_dir(&bundle)?;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(prison.bench.root()?)
        .arg(&root)
        .status()?;
    if !copied.success() {
        bail!("a copy of the root: {copied}");
    }
    fs::create_dir_all(root.join("var"))?;
    fs::write(root.join("var/key"), SECRET)?;
    let command = ["cat", "/var/key"];
    let ran = match prison.step {
        FIRST_WITH_BUNDLES.. => {
            let runtime = Runtime::new(prison.bench, "attack")?;
            let mut config = config(&root, &command);
            config["linux"]["maskedPaths"] = json!(["/var/key"]);
            let words = runtime.bundle("masked", &config)?;
            let words: Vec<&str> = words.iter().map(|word| &**word).collect();
            run_with(&mut runtime.command(&[&["run"], &*words].concat()))?
        }
        _ => {
            let root = root.to_string_lossy();
            let store = Store::new(prison.bench, "attack");
            let flags = ["run", "--rm", "--image", &root];
            store.run(&[&flags, &command[..]].concat())?
        }
    };
    Ok(Blow {
        struck: ran.output.contains(SECRET),
        seen: match (&*ran.output, ran.code) {
            ("", 0) => "cat printed nothing: there is /dev/null in its place".into(),
            ("", _) => ran.in_words(),
            (said, _) => format!("cat printed {said}"),
        },
    })
}

/// The first step whose program reads config.json.
const FIRST_WITH_BUNDLES: usize = 12;

/// What a server answers, whatever it is: as curl does.
fn get(server: &str, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    Ok(answer.split_off(end.context("an answer without an end of its head")? + 4))
}

fn read_the_secret(prison: &Prison, line: &str) -> Result<Blow> {
    let victim = Victim::new()?;
    let line = line.replace("VICTIM", &victim.0.id().to_string());
    let attempt = prison.attempt(&line)?;
    let secret = attempt
        .output
        .split('\0')
        .find(|variable| variable.contains(SECRET));
    Ok(Blow {
        struck: secret.is_some(),
        seen: match secret {
            Some(secret) => format!("cat printed {secret}"),
            None => format!("cat said: {}", last_words(&attempt.errors)),
        },
    })
}

/// The end of the last line that a shell or a tool complained with.
fn last_words(errors: &str) -> &str {
    let line = errors.trim().lines().last().unwrap_or_default();
    line.rsplit(": ").next().unwrap_or(line)
}
