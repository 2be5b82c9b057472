//! Chapter 8: layers and volumes.

mod marks;
mod runs;

use crate::course::Exercise;
use crate::course::workbench::Workbench;
use crate::host::container::Container;
use anyhow::Result;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use probe::Claim;
use runs::{arguments, try_out};
use std::fs;
use std::path::{Path, PathBuf};

/// The exercises of chapter 8.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "mount_overlay",
        heart: "copy-up",
        check: mount_overlay,
        scenes: &[&["--image", "{root}", "-v", "/srv:/mnt:ro", "true"]],
        mistakes: &[],
        read: "the kernel's documentation of overlayfs, mount(2), proc(5) on /proc/PID/fd",
        show: "cargo progress run 8 -- grep overlay /proc/self/mountinfo",
        hints: [
            "Which of the lower directories wins when two have the same file, and in which order were \
             they given to you? What does a bare number mean as a path, and in which directory has the \
             call to be made for that? How much room has the list?",
            "Write the options into a String: \"lowerdir=\" with by_numbers(lower), \",upperdir=\" and \
             \",workdir=\" with the numbers of the other two (as_raw_fd()), and \",volatile\" when that is \
             asked for. Then return among_descriptors(|| call!(mount(…))): source and type are both \
             Some(\"overlay\"), the flags MsFlags::empty(), the data Some(&*data).",
        ],
    },
    Exercise {
        name: "clone_tree",
        heart: "a read-only bind takes two calls",
        check: clone_tree,
        scenes: &[&["--image", "{root}", "-v", "/srv:/mnt:ro", "true"]],
        mistakes: &[],
        read: "mount_setattr(2), open_tree(2) where your system has it",
        show: "cargo progress run 8 -- -v /etc:/mnt:ro grep /mnt /proc/self/mountinfo",
        hints: [
            "A copy of mounts has the options of the originals. Which call changes them for the copy \
             alone, and those of the mounts below as well? Which of the two calls has to come first, so \
             that the host's own mounts stay as they are?",
            "Two helpers make the calls: open_tree(source) gives the descriptor of the copy, \
             mount_setattr(&tree, attributes) changes that copy. Each in call!, with `?` behind it, and \
             then Ok(tree).",
        ],
    },
    Exercise {
        name: "tear_down",
        heart: "reverse order",
        check: tear_down,
        scenes: &[&["--state-dir", "{left}", "--image", "{root}", "true"]],
        mistakes: &[],
        read: "umount2(2) on MNT_DETACH, proc(5) on /proc/PID/mountinfo",
        show: "cargo progress run 8 -- true; ls -A /var/lib/ten-steps/running",
        hints: [
            "Removing goes down into every directory, whosever files are in it. What must not be \
             mounted in there by then? Of two mounts on one directory, which one has to go first? And \
             what if a process has a file open there?",
            "For each of mounted_below(folder)?, the last one first (.iter().rev()): \
             call!(umount2(mounted.as_path(), MntFlags::MNT_DETACH))?. When all have gone, \
             remove_tree(folder), for which a missing directory is no error.",
        ],
    },
    Exercise {
        name: "mark",
        heart: "marks are about the layers below",
        check: marks::mark,
        scenes: &[&[
            "--state-dir",
            "{state}",
            "--image",
            "{marked}",
            "--image",
            "{root}",
            "true",
        ]],
        mistakes: &[],
        read: "the kernel's documentation of overlayfs, Whiteouts in the OCI image specification, mknod(2)",
        show: "mkdir -p layer && touch layer/.wh.tmp && tar -cf layer.tar -C layer . && cargo progress run 8 -- --image layer.tar --image /var/lib/ten-steps/roots/default ls /",
        hints: [
            "What does a layer say by .wh.NAME about the layers below, and what about its own NAME? Which \
             answer of the kernel tells that there is one? And which names can't any file have?",
            "Take MARK off the front of name.as_bytes() (strip_prefix); without it return Ok(false). What is \
             left is b\".wh..opq\": make_opaque(parent, OsStr::new(\".\"))?. It begins with MARK: nothing. It is \
             b\"\", b\".\" or b\"..\": bail!. Anything else: make_whiteout(parent, …), and if that says \
             Err(Errno::EEXIST), make_opaque if is_directory, and nothing otherwise; every other error goes \
             back. Ok(true) at the end.",
        ],
    },
];

/// A layer with one file.
fn layer(bench: &Workbench, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let folder = bench.scratch.join(name);
    fs::create_dir_all(folder.join("srv"))?;
    for (file, text) in files {
        fs::write(folder.join("srv").join(file), text)?;
    }
    Ok(folder)
}

/// 8.1: of two layers the upper one wins, and every change ends up above both.
pub fn mount_overlay(bench: &Workbench) -> Result<Vec<Claim>> {
    let base = bench.root()?;
    let low = layer(
        bench,
        "low",
        &[("both", "low\n"), ("low", "low\n"), ("gone", "low\n")],
    )?;
    let high = layer(bench, "high", &[("both", "high\n")])?;
    let kept = bench.scratch.join("kept");
    let flags: Vec<String> = [&high, &low, &base]
        .iter()
        .flat_map(|image| ["--image".to_owned(), image.display().to_string()])
        .chain(["--keep".to_owned(), kept.display().to_string()])
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let script = "cat /srv/both /srv/low; rm /srv/gone; echo changed >/srv/low";
    let outcome = try_out(bench, &flags, &["sh", "-c", script])?;
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    let mark = fs::symlink_metadata(kept.join("srv/gone"));
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let marked = mark
        .as_ref()
        .is_ok_and(|mark| mark.file_type().is_char_device() && mark.rdev() == 0);
    Ok(vec![
        Claim::equal(
            "the upper of two layers wins",
            "what the container read",
            &outcome.output.as_str(),
            &"high\nlow\n",
        ),
        Claim::equal(
            "a layer stays as it is",
            "low/srv/low on the host",
            &read(low.join("srv/low")),
            &"low\n".to_owned(),
        ),
        Claim::equal(
            "so does its directory",
            "low/srv/gone on the host",
            &read(low.join("srv/gone")),
            &"low\n".to_owned(),
        ),
        Claim::equal(
            "a change is in the container's own directory",
            "kept/srv/low",
            &read(kept.join("srv/low")),
            &"changed\n".to_owned(),
        ),
        Claim::new(
            "what was removed has a mark there",
            format!(
                "kept/srv/gone: {}",
                if marked {
                    "character device 0:0"
                } else {
                    "no mark"
                }
            ),
            marked,
        ),
    ])
}

/// 8.2: a volume for reading only is read-only below its own mounts, too; one for writing isn't.
pub fn clone_tree(bench: &Workbench) -> Result<Vec<Claim>> {
    let base = bench.root()?;
    let volume = bench.scratch.join("volume");
    fs::create_dir_all(volume.join("below"))?;
    let none = None::<&str>;
    mount(
        Some("below"),
        &volume.join("below"),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )?;
    let claims = || -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for (option, wanted) in [("ro", "ro"), ("rw", "rw")] {
            let volume = format!("{}:/mnt/here:{option}", volume.display());
            let base = base.display().to_string();
            let flags = ["-i", "--image", &base, "-v", &volume];
            let arguments = arguments(bench, &flags, &["sh", "-c", "echo ready; read end"]);
            let container = Container::start(&bench.program, &arguments)?;
            let mounts = container.first_process().mounts()?;
            for place in ["/mnt/here", "/mnt/here/below"] {
                let mount = mounts.iter().find(|mount| mount.target == Path::new(place));
                let options = mount.map_or("not mounted", |mount| mount.options.as_str());
                claims.push(Claim::new(
                    format!("-v SRC:/mnt/here:{option}: {place} is {wanted}"),
                    format!("/proc/PID/mountinfo: {place}: {options}"),
                    options.split(',').next() == Some(wanted),
                ));
                // Of what isn't there nothing more is to be said.
                if let Some(mount) = mount {
                    let tags = match mount.tags.is_empty() {
                        true => "private".into(),
                        false => mount.tags.join(" "),
                    };
                    claims.push(Claim::new(
                        format!("{place} tells the host of no mounts"),
                        format!("/proc/PID/mountinfo: {place}: {tags}"),
                        mount.tags.is_empty(),
                    ));
                }
            }
        }
        Ok(claims)
    };
    let claims = claims();
    umount2(&volume.join("below"), MntFlags::MNT_DETACH)?;
    claims
}

/// 8.3: nothing of the container is left on the host, whatever it ended with, and its volume is whole.
pub fn tear_down(bench: &Workbench) -> Result<Vec<Claim>> {
    let base = bench.root()?.display().to_string();
    let volume = bench.scratch.join("precious");
    fs::create_dir_all(&volume)?;
    fs::write(volume.join("file"), "precious\n")?;
    let flag = format!("{}:/mnt", volume.display());
    let mut claims = Vec::new();
    for (how, command) in [
        (
            "ends",
            &["sh", "-c", "mkdir -p /a/b; echo x >/a/b/c; chmod 0 /a"][..],
        ),
        ("fails", &["sh", "-c", "mkdir /a; exit 3"]),
        ("isn't there", &["no-such-command"]),
    ] {
        try_out(bench, &["--image", &base, "-v", &flag], command)?;
        let left: Vec<_> = fs::read_dir(bench.scratch.join("state/running"))?
            .flatten()
            .collect();
        claims.push(Claim::equal(
            &format!("when the command {how}, nothing of the container is left"),
            "directories in state/running",
            &left.len(),
            &0,
        ));
    }
    // Somebody mounted something where it is to be removed.
    let folder = bench.scratch.join("state/running/left");
    fs::create_dir_all(folder.join("upper/mnt"))?;
    let (source, none) = (Some(&volume), None::<&str>);
    mount(
        source,
        &folder.join("upper/mnt"),
        none,
        MsFlags::MS_BIND,
        none,
    )?;
    try_out(bench, &["--image", &base], &["true"])?;
    claims.push(Claim::new(
        "a container's leavings go, and what is mounted in them stays",
        format!(
            "state/running/left: {}; the volume's file: {}",
            if folder.exists() {
                "is there"
            } else {
                "is gone"
            },
            if volume.join("file").exists() {
                "is there"
            } else {
                "is gone"
            }
        ),
        !folder.exists() && volume.join("file").exists(),
    ));
    let _ = umount2(&folder.join("upper/mnt"), MntFlags::MNT_DETACH);
    Ok(claims)
}
