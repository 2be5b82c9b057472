//! Step 8: layers and archives as other engines and other programs write them.

use crate::stage::bench::{Bench, layer};
use crate::stage::clients::{Client, Podman};
use crate::stage::{have, nested, run};
use crate::steps::commits::{everything, odd_root};
use progress::host::registry::archive;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::EntryType::{Directory, Link, Regular};

/// The folder of an image that the only archive so far was unpacked to.
fn unpacked(bench: &Bench) -> Vec<PathBuf> {
    let images = fs::read_dir(bench.path("state/images")).into_iter();
    let images = images.flatten().flatten().map(|entry| entry.path());
    images
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("sha256-")
        })
        .collect()
}

/// What a layer has removed stays removed, and its marks are no files: neither in an upper layer, nor in the lowest, which
/// has nothing to hide.
#[test]
fn marks_hide_what_is_below() {
    let bench = Bench::new();
    let write = |name: &str, bytes: Vec<u8>| {
        let path = bench.path(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let low = write(
        "low.tar",
        archive(&[
            ("srv/", Directory, b""),
            ("srv/secret", Regular, b"secret"),
            ("srv/dir/", Directory, b""),
            ("srv/dir/secret", Regular, b"secret"),
            ("srv/whole/", Directory, b""),
            ("srv/whole/secret", Regular, b"secret"),
        ]),
    );
    let high = write(
        "high.tar",
        archive(&[
            ("srv/", Directory, b""),
            ("srv/.wh.secret", Regular, b""),
            ("srv/.wh.whole", Regular, b""),
            ("srv/dir/", Directory, b""),
            ("srv/dir/.wh..wh..opq", Regular, b""),
            ("srv/dir/new", Regular, b"new"),
        ]),
    );
    let look = "ls -A /srv /srv/dir";
    let seen = "/srv:\ndir\n\n/srv/dir:\nnew\n";
    let outcome = bench.run(&["--image", &high, "--image", &low], look);
    assert_eq!(outcome.output, seen, "{}", outcome.errors);
    // Alone, where nothing is below it that it could hide.
    let folder = bench.root.path().display().to_string();
    let outcome = bench.bare(&["--image", &folder, "--image", &high], &["sh", "-c", look]);
    assert_eq!((&*outcome.output, &*outcome.errors), (seen, ""));
    // The same archive is two images: with marks, and without.
    assert_eq!(unpacked(&bench).len(), 3, "{:?}", unpacked(&bench));
    // A layer's hard link to a file of another layer: nobody knows which layer that will be.
    let linked = write("linked.tar", archive(&[("srv/x", Link, b"srv/secret")]));
    let outcome = bench.run(&["--image", &linked, "--image", &low], "true");
    assert_eq!(outcome.code, 125);
    let words = "its entry srv/x: a hard link to srv/secret, which isn't there";
    assert!(outcome.errors.contains(words), "{}", outcome.errors);
    bench.is_clean();
}

/// Builders write layers that change nothing, and some give one layer twice.
#[test]
fn empty_layers_and_one_given_twice() {
    let bench = Bench::new();
    let empty = bench.path("empty.tar");
    fs::write(&empty, [0; 1024]).unwrap();
    let one = bench.path("one.tar");
    fs::write(
        &one,
        archive(&[("srv/", Directory, b""), ("srv/one", Regular, b"one")]),
    )
    .unwrap();
    let two = bench.path("two.tar");
    let marks = [
        ("srv/", Directory, &b""[..]),
        ("srv/.wh.one", Regular, b""),
        ("srv/two", Regular, b"two"),
    ];
    fs::write(&two, archive(&marks)).unwrap();
    let [empty, one, two] = [empty, one, two].map(|path| path.display().to_string());
    let of = |images: &[&String]| -> String {
        let flags: Vec<&str> = images
            .iter()
            .flat_map(|image| ["--image", image.as_str()])
            .collect();
        let outcome = bench.run(&flags, "ls /srv");
        assert_eq!(outcome.errors, "");
        outcome.output
    };
    assert_eq!(of(&[&empty, &one, &empty]), "one\n");
    // The upper of the two is above the mark, and the lower of them shows nothing that it doesn't.
    assert_eq!(of(&[&one, &two, &one]), "one\ntwo\n");
    assert_eq!(of(&[&two, &one, &one]), "two\n");
    let folder = bench.root.path().display().to_string();
    let outcome = bench.bare(
        &["--image", &folder, "--image", &one, "--image", &folder],
        &["ls", "/srv"],
    );
    assert_eq!((&*outcome.output, &*outcome.errors), ("one\n", ""));
}

/// An archive of images is no root: it is refused by the name of its format, with a way out, and nothing of it is kept.
#[test]
fn archives_of_images_are_named() {
    let bench = Bench::new();
    let layer = archive(&[("bin/", Directory, b""), ("bin/sh", Regular, b"")]);
    let saved = archive(&[
        ("1234.json", Regular, b"{}"),
        ("5678/", Directory, b""),
        ("5678/layer.tar", Regular, &layer),
        (
            "manifest.json",
            Regular,
            b"[{\"Config\":\"1234.json\",\"RepoTags\":null,\"Layers\":[\"5678/layer.tar\"]}]",
        ),
    ]);
    let layout = archive(&[
        ("blobs/", Directory, b""),
        ("blobs/sha256/", Directory, b""),
        ("index.json", Regular, b"{}"),
        ("oci-layout", Regular, b"{}"),
    ]);
    let file = bench.path("image.tar");
    for (bytes, format) in [(saved, "`docker save`"), (layout, "an image layout (OCI)")] {
        fs::write(&file, bytes).unwrap();
        let image = file.display().to_string();
        for above in [&[][..], &["--image", &image]] {
            let outcome = bench.bare(&[above, &["--image", &image]].concat(), &["true"]);
            assert_eq!(outcome.code, 125);
            let begin = format!("step08-overlay: --image {image}: it is ");
            let words = [&*begin, format, "archives of layers", "help: "];
            for words in words {
                assert!(
                    outcome.errors.contains(words),
                    "{words}: {}",
                    outcome.errors
                );
            }
        }
        assert_eq!(unpacked(&bench), Vec::<PathBuf>::new());
        bench.is_clean();
    }
}

/// An image of as many layers as overlayfs takes runs, is saved, and leaves nothing behind.
#[test]
fn hundreds_of_layers() {
    let bench = Bench::new();
    let mut flags = Vec::new();
    for number in 0..498 {
        let path = bench.path(&format!("layer-{number}"));
        layer(&path, &[(&format!("srv/{number}"), "x")]);
        flags.extend(["--image".to_owned(), path.display().to_string()]);
    }
    let commit = bench.path("all.tar").display().to_string();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let line = "pwd; ls /srv | wc -l; rm /srv/7";
    let outcome = bench.run(
        &[&flags[..], &["-w", "/srv", "--commit", &commit]].concat(),
        line,
    );
    assert_eq!((&*outcome.output, &*outcome.errors), ("/srv\n498\n", ""));
    let names = run(Command::new("tar").args(["-tf", &commit]));
    let count = names
        .lines()
        .filter(|name| name.starts_with("srv/"))
        .count();
    assert_eq!(count, 497);
    let many: Vec<&str> = flags[..2].iter().copied().cycle().take(2 * 499).collect();
    let outcome = bench.run(&many, "true");
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("500 layers by --image"),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}

/// Every way in which GNU tar and others write a file with holes, long names, and times: the tree is the one that was
/// packed.
#[test]
fn archives_of_other_programs() {
    if !have("tar", "tar") || !have("busybox", "busybox-static") {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    odd_root(&root);
    let keeps = |path: &Path| {
        let mut lines = everything(path);
        lines.retain(|line| {
            !["proc ", "sys ", "dev ", "etc ", " ", "etc/"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        lines
    };
    let before = keeps(&root);
    let xattrs = ["--xattrs", "--xattrs-include=*"];
    let gnu: [&[&str]; 7] = [
        &["--format=gnu"],
        &["--format=gnu", "-S"],
        &["--format=posix"],
        &["--format=posix", "-S", "--sparse-version=0.0"],
        &["--format=posix", "-S", "--sparse-version=0.1"],
        &["--format=posix", "-S", "--sparse-version=1.0"],
        &["--format=posix", "-S", "--sort=inode"],
    ];
    for flags in gnu {
        let file = bench.path("gnu.tar");
        let with = if flags[0] == "--format=gnu" {
            &[][..]
        } else {
            &xattrs
        };
        run(Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("--numeric-owner")
            .args(flags)
            .args(with)
            .arg("-cf")
            .arg(&file)
            .arg("."));
        let image = file.display().to_string();
        let outcome = bench.bare(&["--image", &image], &["true"]);
        assert_eq!((outcome.code, &*outcome.errors), (0, ""), "{flags:?}");
        let images = unpacked(&bench);
        let after = keeps(&images[0]);
        // Without PAX records there is no place for fractions of a second, and for attributes.
        let known = |line: &String| match with.is_empty() {
            true => line.split(' ').next().unwrap_or_default().to_owned(),
            false => line.clone(),
        };
        let (before, after): (Vec<_>, Vec<_>) = (
            before.iter().map(known).collect(),
            after.iter().map(known).collect(),
        );
        assert_eq!(before, after, "{flags:?}");
        let sparse = |folder: &Path| {
            use std::os::unix::fs::MetadataExt;
            folder.join("odd/sparse").metadata().unwrap().blocks()
        };
        if flags.contains(&"-S") {
            assert_eq!(sparse(&images[0]), sparse(&root), "{flags:?}");
        }
        fs::remove_dir_all(bench.path("state/images")).unwrap();
    }
    bench.is_clean();
}

/// A list without what some formats have no place for: fractions of a second, and attributes.
fn without_extensions(mut lines: Vec<String>) -> Vec<String> {
    for line in &mut lines {
        line.truncate(line.rfind(" [").unwrap_or(line.len()));
        let words = line.split(' ').enumerate();
        let words = words.map(|(number, word)| match number {
            3 => word.split('.').next().unwrap_or_default(),
            _ => word,
        });
        *line = words.collect::<Vec<_>>().join(" ");
    }
    lines.retain(|line| line.starts_with("srv/"));
    lines
}

/// Writers of archives that aren't GNU tar, and compressors that write in several parts.
#[test]
fn archives_of_more_programs() {
    let tools = [
        ("busybox", "busybox-static"),
        ("bsdtar", "libarchive-tools"),
        ("python3", "python3"),
        ("pigz", "pigz"),
        ("pzstd", "zstd"),
    ];
    if !tools.iter().all(|(tool, package)| have(tool, package)) {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    bench.root.copy(&root);
    let shell = "mkdir -p \"$0/srv/deep/er\"; cd \"$0/srv\"; echo z >z; ln z a; ln -s z link; ln -s /nowhere dangling; mkfifo fifo
        mknod device c 4 5; echo s >suid; chown 1234:5678 suid; chmod 4751 suid; mkdir -m 1777 sticky; : >empty
        head -c 300000 /dev/urandom >large; touch -d '2001-02-03 04:05:06 UTC' z; touch -d '2002-02-03 04:05:06 UTC' deep/er deep";
    run(Command::new("sh").args(["-ec", shell]).arg(&root));
    let wanted = without_extensions(everything(&root));
    assert!(wanted.len() >= 12, "{wanted:?}");
    let python = |format: &str| {
        format!(
            "python3 -c 'import sys, tarfile; t = tarfile.open(fileobj=sys.stdout.buffer, mode=\"w|\", \
             format=tarfile.{format}_FORMAT); t.add(\".\"); t.close()'"
        )
    };
    // A full backup of GNU tar lists the entries of each directory beside it.
    let mut writers: Vec<String> = [
        "busybox tar -cf - .",
        "rm -f \"$1.list\"; tar -g \"$1.list\" -cf - .",
        "tar --format=oldgnu -cf - .",
    ]
    .map(String::from)
    .into();
    for format in ["gnutar", "pax", "paxr", "ustar"] {
        writers.push(format!("bsdtar -cf - --format={format} ."));
    }
    writers.extend(["GNU", "PAX", "USTAR"].map(python));
    for compressor in ["pigz", "gzip | cat", "zstd -q", "pzstd -q"] {
        writers.push(format!("tar -cf - . | {compressor}"));
    }
    let file = bench.path("image");
    for writer in writers {
        let line = format!("cd \"$0\" && {writer} >\"$1\"");
        run(Command::new("sh")
            .args(["-ec", &line])
            .arg(&root)
            .arg(&file));
        let outcome = bench.bare(&["--image", &file.display().to_string()], &["true"]);
        assert_eq!((outcome.code, &*outcome.errors), (0, ""), "{writer}");
        let images = unpacked(&bench);
        assert_eq!(
            without_extensions(everything(&images[0])),
            wanted,
            "{writer}"
        );
        fs::remove_dir_all(bench.path("state/images")).unwrap();
    }
    bench.is_clean();
}

/// Podman takes what `commit` writes, and has the same tree; what it exports of a container of that is the same again.
#[test]
fn podman_imports_and_exports() {
    if nested() {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    odd_root(&root);
    let (image, file) = (
        root.display().to_string(),
        bench.path("committed.tar").display().to_string(),
    );
    let outcome = bench.bare(&["--image", &image, "--commit", &file], &["true"]);
    assert_eq!((outcome.code, &*outcome.errors), (0, ""));
    // Podman knows no time before 1970.
    let odd = |path: &Path| {
        let mut lines = everything(path);
        lines.retain(|line| line.starts_with("odd/") && !line.starts_with("odd/closed "));
        lines.retain(|line| {
            !["odd/holes ", "odd/old "]
                .iter()
                .any(|name| line.starts_with(name))
        });
        lines
    };
    let wanted = odd(&root);
    let exported = bench.path("exported.tar").display().to_string();
    {
        let Some(podman) = Podman::new() else { return };
        podman.ok(&["import", "-q", &file, "localhost/odd:1"]);
        let mounted = podman.ok(&["image", "mount", "localhost/odd:1"]);
        assert_eq!(odd(Path::new(mounted.trim())), wanted, "imported");
        podman.ok(&["image", "umount", "localhost/odd:1"]);
        let container = podman.ok(&["create", "--network", "none", "localhost/odd:1", "true"]);
        podman.ok(&["export", "-o", &exported, container.trim()]);
    }
    let outcome = bench.bare(&["--image", &exported], &["true"]);
    assert_eq!((outcome.code, &*outcome.errors), (0, ""));
    // What podman exports has no fractions of a second, and each link is one of its own. The other words: name, mode, owner.
    let kept = |lines: Vec<String>| -> Vec<String> {
        let plain = lines
            .iter()
            .filter(|line| !line.contains(['\n']) && !line.contains("with space"));
        let words = plain.map(|line| line.split(' ').collect::<Vec<_>>());
        words
            .map(|words| {
                format!(
                    "{} {} {} {}",
                    words[0],
                    words[1],
                    words[2],
                    words[6..].join(" ")
                )
            })
            .filter(|line| !line.contains("trusted.") && !line.contains("soft "))
            .collect()
    };
    assert!(kept(wanted.clone()).len() > 12);
    assert_eq!(kept(odd(&unpacked(&bench)[0])), kept(wanted), "exported");
    bench.is_clean();
}

/// What `commit` writes other programs read: GNU tar, Python, and by umoci the archive reader of Go, which engines have.
#[test]
fn other_programs_read_what_is_committed() {
    if !have("skopeo", "skopeo") || !have("umoci", "umoci") || !have("python3", "python3") {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    odd_root(&root);
    let image = root.display().to_string();
    let committed = bench.path("committed.tar");
    let file = committed.display().to_string();
    let outcome = bench.bare(&["--image", &image, "--commit", &file], &["true"]);
    assert_eq!((outcome.code, &*outcome.errors), (0, ""));
    let names = |path: &Path| {
        let mut lines = everything(path);
        // Not every program keeps attributes, and each has its own way with those of links.
        for line in &mut lines {
            line.truncate(line.rfind(" [").unwrap_or(line.len()));
        }
        lines.retain(|line| line.starts_with("odd/") && !line.starts_with("odd/closed "));
        lines
    };
    let wanted = names(&root);
    let gnu = bench.path("gnu");
    fs::create_dir(&gnu).unwrap();
    run(Command::new("tar")
        .arg("-C")
        .arg(&gnu)
        .args(["--numeric-owner", "-xpf", &file]));
    assert_eq!(names(&gnu), wanted, "GNU tar");
    let listed = run(Command::new("python3").args([
        "-c",
        "import sys, tarfile\nfor each in tarfile.open(sys.argv[1]): print(each.name, each.size)",
        &file,
    ]));
    assert!(listed.contains("\nodd/sparse 5000000\n"), "{listed}");
    let layout = bench.path("layout").display().to_string();
    run(Command::new("skopeo").args([
        "copy",
        "-q",
        "--insecure-policy",
        &format!("tarball:{file}"),
        &format!("oci:{layout}:it"),
    ]));
    let bundle = bench.path("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image", &format!("{layout}:it")])
        .arg(&bundle));
    assert_eq!(names(&bundle.join("rootfs")), wanted, "umoci");
}
