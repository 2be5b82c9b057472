//! Step 11: images as others make them, in a registry that others have made, and what becomes of them here.

use crate::stage::depot::{Depot, STEP, lay, noise};
use crate::stage::dock::ended;
use crate::stage::{Printed, Root, debian, folder, have, held, mount_apart, nested, run, step};
use crate::steps::commits::{everything, odd_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use progress::host::container::eventually;
use progress::host::registry::{CONFIG, INDEX, LAYER, MANIFEST, archive, configuration, digest};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tar::EntryType::{self, Directory, Link, Regular, Symlink};
use tempfile::TempDir;

/// Debian's registry, on a port of its own choice. It ends when this goes away.
pub struct RealRegistry {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl RealRegistry {
    /// Starts it; with a certificate and its key, `certificate` with .crt and .key behind, it speaks TLS.
    pub fn start(certificate: Option<PathBuf>) -> RealRegistry {
        let folder = folder();
        let mut http = json!({"addr": "127.0.0.1:0"});
        if let Some(certificate) = certificate {
            http["tls"] = json!({
                "certificate": certificate.with_extension("crt"),
                "key": certificate.with_extension("key"),
            });
        }
        let config = json!({
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": http,
        });
        let path = folder.path().join("config.yml");
        fs::write(&path, config.to_string()).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let port = eventually(|| listens(process.id()));
        let port = port.unwrap_or_else(|| {
            panic!("{}", fs::read_to_string(folder.path().join("log")).unwrap())
        });
        RealRegistry {
            process,
            port,
            folder,
        }
    }

    pub fn image(&self, path: &str) -> String {
        format!("127.0.0.1:{}/{path}", self.port)
    }

    /// Copies an image of a layout, with all that it names, into the registry, and returns its name there.
    fn fill(&self, layout: &Path, tag: &str, path: &str) -> String {
        let name = self.image(path);
        run(Command::new("skopeo")
            .args(["copy", "--all", "-q", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{name}")));
        name
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let _ = self.process.wait();
        let _ = self.folder.path();
    }
}

/// The port on which a process listens: the inode of one of its sockets in the list of those that listen.
fn listens(pid: u32) -> Option<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let sockets: Vec<String> = descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|target| {
            Some(
                target
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours =
            fields.get(3) == Some(&"0A") && sockets.iter().any(|socket| socket == fields[9]);
        is_ours.then(|| u16::from_str_radix(fields[1].rsplit_once(':')?.1, 16).ok())?
    })
}

/// Whether the tools are here that make images.
fn have_tools() -> bool {
    have("docker-registry", "docker-registry") && have("skopeo", "skopeo") && have("umoci", "umoci")
}

fn umoci(words: &[&str]) -> String {
    run(Command::new("umoci").args(words))
}

/// A layout with an image without layers.
fn layout(folder: &Path, tag: &str) -> String {
    let layout = folder.join("layout").display().to_string();
    if !Path::new(&layout).exists() {
        umoci(&["init", "--layout", &layout]);
    }
    let image = format!("{layout}:{tag}");
    umoci(&["new", "--image", &image]);
    image
}

/// Adds a layer of what `tar` packs in `folder`.
fn add(image: &str, folder: &Path, words: &[&str]) {
    // Others may pack the same folder meanwhile.
    let aside = tempfile::tempdir().unwrap();
    let layer = aside.path().join("layer.tar");
    run(Command::new("tar")
        .args([
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "--format=posix",
            "-C",
        ])
        .arg(folder)
        .arg("-cf")
        .arg(&layer)
        .args(words));
    umoci(&[
        "raw",
        "add-layer",
        "--image",
        image,
        &layer.display().to_string(),
    ]);
}

/// A list without the attributes of a link itself, which umoci leaves out, and without an attribute whose name tar writes
/// in other words, which umoci doesn't read back.
fn plain(mut list: Vec<String>) -> Vec<String> {
    list.retain(|line| !line.starts_with("odd/closed "));
    for line in &mut list {
        if let Some(at) = line.find("[\"trusted.link=") {
            line.replace_range(at.., "[]");
        }
    }
    list
}

/// The tree that umoci unpacks, and the one that we lay out of layers, are the same, file by file and attribute by
/// attribute: for a root with one of everything, and for a Debian, each in several layers with whiteouts.
#[test]
fn the_same_tree_as_umoci_unpacks() {
    if nested() || !have_tools() {
        return;
    }
    mount_apart();
    let depot = Depot::new();
    let at = |name: &str| depot.folder.path().join(name);
    let odd = at("odd");
    odd_root(&odd);
    let registry = RealRegistry::start(None);
    for (name, root) in [("odd", Some(odd)), ("debian", debian())] {
        let Some(root) = root else { continue };
        let image = in_four_layers(depot.folder.path(), name, &root);
        let name = registry.fill(&at("layout"), name, name);
        depot.ok(&["pull", &name]);
        is_as_umoci_unpacks(&depot, &image, &name);
    }
}

/// Makes an image of `root` in a layout, with changes above it, and returns its name there.
pub fn in_four_layers(folder: &Path, name: &str, root: &Path) -> String {
    let at = |what: &str| folder.join(format!("{what}-{name}"));
    let image = layout(folder, name);
    add(&image, root, &["./usr"]);
    add(&image, root, &["--exclude=./usr", "--exclude=./dev/*", "."]);
    // Changes without their directories, removals, a directory in the place of a file and the other way round.
    let changes = at("changes");
    fs::create_dir_all(changes.join("etc")).unwrap();
    fs::create_dir_all(changes.join("usr")).unwrap();
    fs::write(changes.join("etc/.wh.passwd"), "").unwrap();
    fs::write(changes.join("etc/group"), "changed\n").unwrap();
    fs::write(changes.join("usr/.wh.bin"), "").unwrap();
    add(
        &image,
        &changes,
        &["./etc/.wh.passwd", "./etc/group", "./usr/.wh.bin"],
    );
    let last = at("last");
    fs::create_dir_all(last.join("etc/group")).unwrap();
    fs::create_dir_all(last.join("usr/bin")).unwrap();
    fs::write(last.join("etc/group/inside"), "new\n").unwrap();
    fs::write(last.join("usr/bin/new"), "new\n").unwrap();
    add(&image, &last, &["./etc/group", "./usr/bin"]);
    image
}

/// Fails unless our image `name` is the tree that umoci makes of its `image`.
#[track_caller]
pub fn is_as_umoci_unpacks(depot: &Depot, image: &str, name: &str) {
    let at = |name: &str| depot.folder.path().join(name);
    let bundle = at("bundle");
    umoci(&["unpack", "--image", image, &bundle.display().to_string()]);
    let ours = at("ours");
    lay(&depot.lower(name), &ours);
    let (theirs, ours_listed) = (
        plain(everything(&bundle.join("rootfs"))),
        plain(everything(&ours)),
    );
    assert!(theirs.len() > 50);
    let lost: Vec<_> = theirs
        .iter()
        .filter(|line| !ours_listed.contains(line))
        .collect();
    let new: Vec<_> = ours_listed
        .iter()
        .filter(|line| !theirs.contains(line))
        .collect();
    assert!(
        lost.is_empty() && new.is_empty(),
        "{name}: {lost:#?} became {new:#?}"
    );
    run(Command::new("umount").arg(&ours));
    fs::remove_dir_all(bundle).unwrap();
}

/// An archive of one layer, compressed as `end` says.
pub fn packed(layer: &[u8], end: &str, folder: &Path) -> Vec<u8> {
    let file = folder.join("packed");
    fs::write(&file, layer).unwrap();
    let program = match end {
        "" => "cat",
        "+gzip" => "gzip -c",
        _ => "zstd -q -c",
    };
    let packed = Command::new("sh")
        .arg("-c")
        .arg(format!("{program} <\"$0\""))
        .arg(&file)
        .output()
        .unwrap();
    assert!(packed.status.success());
    packed.stdout
}

/// Marks of layers, wherever they stand in the archive; each kind of compression; and an empty layer.
#[test]
fn marks_of_layers() {
    if !have("zstd", "zstd") {
        return;
    }
    mount_apart();
    let depot = Depot::new();
    let base = archive(&[
        ("d/", Directory, b""),
        ("d/old", Regular, b"old"),
        ("d/sub/", Directory, b""),
        ("d/sub/deep", Regular, b"deep"),
        ("again/", Directory, b""),
        ("again/old", Regular, b"old"),
        ("before/", Directory, b""),
        ("before/old", Regular, b"old"),
        ("behind/", Directory, b""),
        ("behind/old", Regular, b"old"),
        ("file", Regular, b"old"),
        ("gone", Regular, b"old"),
        ("link", Symlink, b"d"),
        ("target", Regular, b"the file below"),
        ("kept/", Directory, b""),
        ("kept/a", Regular, b"a"),
        ("implied/", Directory, b""),
        ("implied/b", Regular, b"b"),
    ]);
    let top = archive(&[
        (".wh.gone", Regular, b""),
        ("d/.wh.sub", Regular, b""),
        // A directory made anew, with the mark before it and behind it.
        (".wh.again", Regular, b""),
        ("again/", Directory, b""),
        ("again/new", Regular, b"new"),
        ("before/", Directory, b""),
        ("before/.wh..wh..opq", Regular, b""),
        ("before/new", Regular, b"new"),
        ("behind/", Directory, b""),
        ("behind/new", Regular, b"new"),
        (".wh.behind", Regular, b""),
        // A file of this layer stays, whatever its mark says of those below.
        ("file", Regular, b"new"),
        (".wh.file", Regular, b""),
        (".wh.link", Regular, b""),
        // The file below gets another name.
        ("another-name", Link, b"target"),
        // A mark for what isn't there, and notes of another filesystem.
        ("kept/.wh.nothing", Regular, b""),
        (".wh..wh.aufs", Regular, b""),
        ("implied/c", Regular, b"c"),
    ]);
    let nothing = vec![0; 1024];
    for end in ["", "+gzip", "+zstd"] {
        let layers = [&base, &nothing, &top, &nothing];
        let named: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let packed = packed(layer, end, depot.folder.path());
                json!({"mediaType": format!("{LAYER}{end}"), "digest": depot.registry.blob(&packed), "size": packed.len()})
            })
            .collect();
        let config = configuration(&layers.map(|layer| digest(layer)), &json!({}));
        let tag = end.replace('+', "t");
        let tag = if tag.is_empty() { "tar" } else { &tag };
        depot.registry.manifest("marks", tag, &json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": depot.registry.blob(&config), "size": config.len()},
            "layers": named}));
        let name = depot.registry.image(&format!("marks:{tag}"));
        depot.ok(&["pull", &name]);
        let lower = depot.lower(&name);
        let root = depot.folder.path().join("root");
        lay(&lower, &root);
        let listed = run(Command::new("find")
            .arg(".")
            .args(["-mindepth", "1", "-printf", "%P\\n"])
            .current_dir(&root));
        let mut listed: Vec<&str> = listed.lines().collect();
        listed.sort_unstable();
        assert_eq!(
            listed,
            [
                "again",
                "again/new",
                "another-name",
                "before",
                "before/new",
                "behind",
                "behind/new",
                "d",
                "d/old",
                "file",
                "implied",
                "implied/b",
                "implied/c",
                "kept",
                "kept/a",
                "target",
            ],
            "{end}"
        );
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!(
            (read("file"), read("another-name")),
            ("new".into(), "the file below".into())
        );
        let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
        assert_eq!(inode("target"), inode("another-name"));
        // What the layer on the disk has: whiteouts only where something is hidden.
        let layer = &lower[1];
        let is_whiteout = |name: &str| {
            let found = fs::symlink_metadata(layer.join(name));
            found.is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
        };
        let whiteouts: Vec<&str> = [
            "gone",
            "d/sub",
            "link",
            "kept/nothing",
            "file",
            "again",
            ".wh..wh.aufs",
        ]
        .into_iter()
        .filter(|name| is_whiteout(name))
        .collect();
        assert_eq!(whiteouts, ["gone", "d/sub", "link"]);
        run(Command::new("umount").arg(&root));
        depot.ok(&["rmi", &name]);
    }
}

/// A directory that a layer doesn't describe keeps what the layers below say of it.
#[test]
fn directories_that_a_layer_only_passes() {
    if nested() || !have_tools() {
        return;
    }
    mount_apart();
    let depot = Depot::new();
    let at = |name: &str| depot.folder.path().join(name);
    let base = at("base");
    fs::create_dir_all(base.join("a/b")).unwrap();
    step08_overlay::image::xattrs::set_attribute(
        &held(&base.join("a/b")),
        "user.colour".as_ref(),
        b"blue",
    )
    .unwrap();
    run(Command::new("sh")
        .args(["-c", "chmod 2750 a; chown 12:34 a; chmod 700 a/b; chown 56:78 a/b; chmod 711 .; chown 9:8 .; touch -d @1000000000.5 a/b a ."])
        .current_dir(&base));
    let image = layout(depot.folder.path(), "implied");
    add(&image, &base, &["."]);
    let top = at("top");
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("a/b/new"), "new").unwrap();
    fs::write(top.join("a/b/.wh.nothing"), "").unwrap();
    add(&image, &top, &["a/b/new", "a/b/.wh.nothing"]);
    let registry = RealRegistry::start(None);
    let name = registry.fill(&at("layout"), "implied", "implied");
    depot.ok(&["pull", &name]);
    let root = at("root");
    lay(&depot.lower(&name), &root);
    let mut ours = everything(&root);
    let mut theirs = everything(&base);
    ours.retain(|line| !line.starts_with("a/b/new "));
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);
    run(Command::new("umount").arg(&root));
}

/// Marks that want out, links to marks and to what is hidden: refused, and nothing stays.
#[test]
fn hostile_layers() {
    let _attack = crate::attacks::tried("CVE-2014-9357");
    let depot = Depot::new();
    let outside = depot.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "whole").unwrap();
    let out = outside.display().to_string();
    let base = archive(&[
        ("etc/", Directory, b""),
        ("etc/file", Regular, b"x"),
        ("dir/", Directory, b""),
    ]);
    let opaque = {
        let mut builder = tar::Builder::new(Vec::new());
        let mut record = Vec::new();
        let text = "trusted.overlay.redirect=/etc";
        let line = format!("SCHILY.xattr.{text}\n");
        record.extend(format!("{} {line}", line.len() + 3).bytes());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(record.len() as u64);
        header.set_path("x").unwrap();
        header.set_cksum();
        builder.append(&header, &record[..]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(Directory);
        header.set_size(0);
        header.set_mode(0o755);
        header.set_path("dir").unwrap();
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
        builder.into_inner().unwrap()
    };
    let up = format!("../../../../../..{out}/.wh.canary");
    for (what, layer, words) in [
        (
            "the directory itself",
            archive(&[("etc/.wh..", Regular, b"")]),
            "hides no name",
        ),
        (
            "the one above",
            archive(&[("etc/.wh...", Regular, b"")]),
            "hides no name",
        ),
        (
            "nothing",
            archive(&[("etc/.wh.", Regular, b"")]),
            "hides no name",
        ),
        ("a name with ..", archive(&[(&up, Regular, b"")]), ".."),
        (
            "a directory of marks",
            archive(&[("etc/.wh.d/x", Regular, b"")]),
            "called as a mark",
        ),
        (
            "a link to a mark",
            archive(&[("l", Link, b"etc/.wh.file")]),
            "a link to a mark",
        ),
        (
            "a link to what is hidden",
            archive(&[("l", Link, b"etc/file"), (".wh.etc", Regular, b"")]),
            "which isn't there",
        ),
        (
            "a link to a mark that has been set",
            archive(&[("etc/.wh.file", Regular, b""), ("l", Link, b"etc/file")]),
            "which this layer removes",
        ),
        (
            "a link to a directory below",
            archive(&[("l", Link, b"dir")]),
            "which is a directory",
        ),
        (
            "a link to nothing",
            archive(&[("l", Link, b"nothing")]),
            "which isn't there",
        ),
        (
            "an attribute of the kernel's",
            opaque,
            "its attribute trusted.overlay.redirect",
        ),
        (
            "a device 0/0",
            archive(&[("c", EntryType::Char, b"")]),
            "overlayfs hides",
        ),
        (
            "no archive",
            b"\0not a tar archive at all".repeat(100),
            "no tar archive",
        ),
    ] {
        depot
            .registry
            .push("hostile", "1", &[base.clone(), layer], &json!({}));
        let failed = depot
            .run(&["pull", &depot.registry.image("hostile:1")])
            .code(125);
        assert!(
            failed.errors().contains(words),
            "{what}: {}",
            failed.errors()
        );
        assert_eq!(depot.ok(&["images", "-q"]), "");
        assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "whole");
        depot.ok(&["image", "prune", "-a"]);
        depot.has_nothing();
    }
    // A link of the first layer that leads out, and a mark and a file through it in the second: both stay inside.
    let first = archive(&[("out", Symlink, out.as_bytes())]);
    let second = archive(&[
        ("out/.wh.canary", Regular, b""),
        ("out/spoilt", Regular, b"x"),
    ]);
    depot
        .registry
        .push("hostile", "2", &[first, second], &json!({}));
    let _ = depot.run(&["pull", &depot.registry.image("hostile:2")]);
    let names: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["canary"]);
    assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "whole");
}

/// What is linked to a file below has all that the file has, unless a later entry has its name.
#[test]
fn links_to_files_below() {
    mount_apart();
    let depot = Depot::new();
    let base = depot.folder.path().join("base");
    fs::create_dir(&base).unwrap();
    fs::write(base.join("file"), "below").unwrap();
    let set = |key: &str, value: &[u8]| {
        step08_overlay::image::xattrs::set_attribute(
            &held(&base.join("file")),
            key.as_ref(),
            value,
        )
        .unwrap();
    };
    set("trusted.colour", b"blue");
    set(
        "security.capability",
        &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    run(Command::new("sh")
        .args([
            "-c",
            "chown 12:34 file; chmod 4711 file; ln -s file soft; mkfifo fifo",
        ])
        .current_dir(&base));
    set(
        "security.capability",
        &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    let packed = depot.folder.path().join("base.tar");
    run(Command::new("tar")
        .args([
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "--format=posix",
            "-cf",
        ])
        .arg(&packed)
        .arg("-C")
        .arg(&base)
        .arg("."));
    let top = archive(&[
        ("hard", Link, b"file"),
        ("softer", Link, b"soft"),
        ("pipe", Link, b"fifo"),
        ("later", Link, b"file"),
        ("later", Regular, b"another"),
    ]);
    depot
        .registry
        .push("links", "1", &[fs::read(packed).unwrap(), top], &json!({}));
    let name = depot.registry.image("links:1");
    depot.ok(&["pull", &name]);
    let root = depot.folder.path().join("root");
    lay(&depot.lower(&name), &root);
    let lines = everything(&root);
    let line = |name: &str| {
        let line = lines
            .iter()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap();
        line.split_once(' ').unwrap().1.to_owned()
    };
    let below = everything(&base);
    for (one, other) in [("hard", "file"), ("softer", "soft"), ("pipe", "fifo")] {
        assert_eq!(line(one), line(other));
        let of_base = below
            .iter()
            .find(|line| line.starts_with(&format!("{other} ")))
            .unwrap();
        // Two links, and all else as it was.
        assert_eq!(
            line(other).replace(" 2 0 ", " 1 0 "),
            of_base.split_once(' ').unwrap().1
        );
    }
    assert_eq!(fs::read_to_string(root.join("later")).unwrap(), "another");
    run(Command::new("umount").arg(&root));
}

/// A layer that hides all that is below it: the layers below aren't mounted at all.
#[test]
fn an_opaque_root() {
    let depot = Depot::new();
    let layers = [
        archive(&[("old", Regular, b"old")]),
        archive(&[("new", Regular, b"new"), (".wh..wh..opq", Regular, b"")]),
        archive(&[("top", Regular, b"top")]),
    ];
    depot.registry.push("opaque", "1", &layers, &json!({}));
    let name = depot.registry.image("opaque:1");
    depot.ok(&["pull", &name]);
    assert_eq!(depot.lower(&name).len(), 2);
}

/// An index of three platforms, which skopeo copies from a layout with all that it names.
#[test]
fn an_index_that_skopeo_copies() {
    if nested() || !have_tools() {
        return;
    }
    let depot = Depot::new();
    let at = |name: &str| depot.folder.path().join(name);
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64", "s390x"] {
        let root = at(architecture);
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/platform"), architecture).unwrap();
        let image = layout(depot.folder.path(), architecture);
        add(&image, &root, &["."]);
        umoci(&[
            "config",
            "--image",
            &image,
            "--architecture",
            architecture,
            "--os",
            "linux",
        ]);
        let index: Value =
            serde_json::from_slice(&fs::read(at("layout/index.json")).unwrap()).unwrap();
        let mut named = index["manifests"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        named.as_object_mut().unwrap().remove("annotations");
        named["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(named);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let bytes = serde_json::to_vec(&index).unwrap();
    let of_index = digest(&bytes);
    fs::write(at("layout/blobs").join(of_index.replace(':', "/")), &bytes).unwrap();
    let top = json!({"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": of_index, "size": bytes.len(),
        "annotations": {"org.opencontainers.image.ref.name": "all"}}]});
    fs::write(at("layout/index.json"), top.to_string()).unwrap();
    let registry = RealRegistry::start(None);
    let name = registry.fill(&at("layout"), "all", "three");
    for architecture in ["amd64", "arm64", "s390x"] {
        depot.ok(&[
            "pull",
            "--platform",
            &format!("linux/{architecture}"),
            &name,
        ]);
        let platform = depot.lower(&name)[0].join("etc/platform");
        assert_eq!(fs::read_to_string(platform).unwrap(), architecture);
        let of = depot.ok(&[
            "image",
            "inspect",
            "-f",
            "{{.Architecture}} {{json .RepoDigests}}",
            &name,
        ]);
        assert!(
            of.starts_with(architecture) && of.contains(&of_index),
            "{of}"
        );
    }
    depot.fails(
        &["pull", "--platform", "linux/riscv64", &name],
        "linux/amd64, linux/arm64, linux/s390x",
    );
}

/// A root that runs, in the pretend registry, with `config`.
fn runnable(depot: &Depot, config: &Value) -> String {
    let root = Root::shared();
    let packed = depot.folder.path().join("root.tar");
    run(Command::new("tar")
        .args(["--numeric-owner", "-cf"])
        .arg(&packed)
        .arg("-C")
        .arg(root.path())
        .arg("."));
    let layer = fs::read(packed).unwrap();
    let change = archive(&[
        ("data/", Directory, b""),
        ("data/seed", Regular, b"from the image"),
        (
            "etc/passwd",
            Regular,
            b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
        ),
    ]);
    depot.registry.push("app", "1", &[layer, change], config);
    depot.registry.image("app:1")
}

/// All that an image says of a container, and what is typed in its place.
#[test]
fn what_an_image_says_of_a_container() {
    let depot = Depot::new();
    let name = runnable(
        &depot,
        &json!({
            "Entrypoint": ["sh", "-c", "echo \"$0 $*\"; echo $A $B; pwd; id -u; cat /data/seed; readlink /proc/self/ns/pid >/data/own"],
            "Cmd": ["usual", "words"],
            "Env": ["A=image", "B=image", "PATH=/usr/local/bin:/usr/bin:/bin"],
            "WorkingDir": "/made/for/this",
            "User": "app",
            "Volumes": {"/data": {}, "/new/volume": {}},
            "StopSignal": "SIGUSR1",
            "Labels": {"maker": "image", "kind": "image"},
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "true"]},
            "OnBuild": ["RUN true"],
            "Shell": ["/bin/sh"],
        }),
    );
    let ran = |words: &[&str]| depot.run(&[&["run", "--rm"], words].concat());
    let usual = ran(&[&name]);
    // A name that nobody has pulled is pulled, and run.
    usual.complains(&format!("Unable to find image '{name}' locally"));
    usual.complains("Pull complete");
    // /data is the image's: user 1000 may not write there.
    assert_eq!(
        usual.printed(),
        "usual words\nimage image\n/made/for/this\n1000\nfrom the image"
    );
    let typed = ran(&["-e", "A=typed", "-w", "/tmp", "-u", "0", &name, "other"]);
    typed
        .success()
        .stdout("other \ntyped image\n/tmp\n0\nfrom the image")
        .stderr("");
    // With another program the usual words don't count.
    ran(&["--entrypoint", "sh", &name]).success().stdout("");
    ran(&["--entrypoint", "sh", &name, "-c", "echo $0 $*", "a", "b"])
        .success()
        .stdout("a b\n");
    ran(&["--entrypoint", "", &name, "sh", "-c", "echo plain"])
        .success()
        .stdout("plain\n");
    ran(&["--entrypoint", "", &name])
        .code(125)
        .complains("the image names no command");

    let id = depot.ok(&[
        "run",
        "-d",
        "--name",
        "box",
        "-l",
        "kind=typed",
        "-l",
        "mine",
        "--entrypoint",
        "sleep",
        &name,
        "1000",
    ]);
    let inspect = |template: &str| depot.ok(&["inspect", "-f", template, "box"]);
    assert_eq!(
        inspect("{{.Config.StopSignal}} {{.Config.User}} {{.Image}}"),
        format!("SIGUSR1 app {name}\n")
    );
    assert_eq!(
        inspect("{{json .Config.Labels}}"),
        "{\"kind\":\"typed\",\"maker\":\"image\",\"mine\":\"\"}\n"
    );
    // The volumes are the container's own: they outlast a restart, and go with it.
    let mounts: Value = serde_json::from_str(&inspect("{{json .Mounts}}")).unwrap();
    let targets: Vec<_> = mounts
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["Destination"].as_str().unwrap())
        .collect();
    assert_eq!(targets, ["/data", "/new/volume"]);
    let source = PathBuf::from(mounts[0]["Source"].as_str().unwrap());
    assert!(source.starts_with(depot.state.join("containers").join(id.trim())));
    depot.ok(&[
        "exec",
        "-u",
        "0",
        "box",
        "sh",
        "-c",
        "echo mine >/data/mine; echo x >/new/volume/x",
    ]);
    depot.ok(&["restart", "-t", "0", "box"]);
    assert_eq!(
        depot.ok(&["exec", "-u", "0", "box", "cat", "/data/seed", "/data/mine"]),
        "from the imagemine\n"
    );
    let listed = depot.ok(&["ps", "--format", "json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&listed).unwrap()["Image"],
        name.as_str()
    );
    // What is in volumes is no change of the root. The directory that was made for the command is one.
    let changes = depot.ok(&["diff", "box"]);
    assert!(
        changes.contains("A /made/for/this\n") && !changes.contains("/data/mine"),
        "{changes}"
    );
    // A volume that is typed comes in place of the image's.
    let host = depot.folder.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("seed"), "from the host").unwrap();
    let volume = format!("{}:/data", host.display());
    ran(&["-v", &volume, "--entrypoint", "cat", &name, "/data/seed"])
        .success()
        .stdout("from the host");
    // The image is in use.
    depot.fails(&["rmi", &name], "container box is of it");
    depot.ok(&["image", "prune", "-a"]);
    depot.ok(&["rmi", "-f", &name]);
    assert_eq!(depot.ok(&["images", "-q"]), "");
    depot.ok(&["restart", "-t", "0", "box"]);
    assert_eq!(
        depot.ok(&["exec", "-u", "0", "box", "cat", "/data/mine"]),
        "mine\n"
    );
    depot.ok(&["rm", "-f", "box"]);
    assert!(!source.exists());
    depot.ok(&["image", "prune"]);
    depot.has_nothing();
}

/// The image gets nothing of the caller's environment, whatever it asks for.
#[test]
fn an_image_does_not_read_our_environment() {
    let _attack = crate::attacks::tried("");
    let depot = Depot::new();
    let name = runnable(
        &depot,
        &json!({
            "Env": ["SECRET", "=", "", "PATH=/usr/bin:/bin", "EMPTY="],
            "Cmd": ["sh", "-c", "echo \"[$SECRET]\"; tr '\\0' '\\n' </proc/self/environ | grep -c SECRET"],
        }),
    );
    let mut command = depot.command(&["run", "--rm", &name]);
    let printed = ended(command.env("SECRET", "hunter2")).printed();
    assert!(
        printed.starts_with("[]\n") && !printed.contains("hunter2"),
        "{printed}"
    );
    // Who types it gives it away.
    let mut typed = depot.command(&["run", "--rm", "-e", "SECRET", &name]);
    assert!(
        ended(typed.env("SECRET", "hunter2"))
            .printed()
            .starts_with("[hunter2]\n")
    );
}

/// Whatever the caller's umask is, others in the container reach what is made for them.
#[test]
fn the_umask_is_the_callers_own() {
    let depot = Depot::new();
    let name = runnable(
        &depot,
        &json!({
            "User": "app", "WorkingDir": "/made/for/this", "Volumes": {"/fresh": {}},
            "Cmd": ["sh", "-c", "stat -c '%a %n' . /made /fresh /"],
        }),
    );
    depot.ok(&["pull", &name]);
    let words = format!("umask 077; exec {} run --rm {name}", step(STEP).display());
    let mut command = Command::new("sh");
    command
        .args(["-c", &words])
        .env("TEN_STEPS_STATE", &depot.state);
    ended(&mut command)
        .success()
        .stdout("755 .\n755 /made\n755 /fresh\n755 /\n");
}

/// Images that share layers: a container of the one isn't one of the other.
#[test]
fn images_that_share_layers() {
    let depot = Depot::new();
    let child = runnable(&depot, &json!({"Cmd": ["sh", "-c", "cat /data/seed"]}));
    let packed = fs::read(depot.folder.path().join("root.tar")).unwrap();
    depot
        .registry
        .push("base", "1", &[packed], &json!({"Cmd": ["sh"]}));
    let base = depot.registry.image("base:1");
    depot.ok(&["pull", &base]);
    depot.ok(&["create", "--name", "box", &child]);
    depot.fails(&["rmi", &child], "container box is of it");
    depot.ok(&["rmi", &base]);
    assert_eq!(depot.ok(&["start", "-a", "box"]), "from the image");
    // A name with a digest is one of several names.
    let digests = depot.ok(&["image", "inspect", "-f", "{{json .RepoDigests}}", &child]);
    let digests: Vec<String> = serde_json::from_str(&digests).unwrap();
    depot.ok(&["tag", &child, "test:1"]);
    assert_eq!(
        depot.ok(&["rmi", &digests[0]]),
        format!("Untagged: {}\n", digests[0])
    );
    assert_eq!(
        depot.ok(&["images", "-a", "--format", "{{.Tag}}", "test"]),
        "1\n"
    );
    assert_eq!(depot.ok(&["images", "--format", "{{.Tag}}", "test:2"]), "");
    depot.ok(&["rm", "box"]);
}

/// When an image is pulled, and when not; create, and images by ID.
#[test]
fn when_an_image_is_pulled() {
    let depot = Depot::new();
    let name = runnable(&depot, &json!({"Cmd": ["sh", "-c", "echo one"]}));
    depot.fails(&["run", "--rm", "--pull", "never", &name], "no such image");
    depot
        .run(&["run", "--rm", "--pull", "always", &name])
        .success()
        .stdout("one\n");
    let first = depot.ok(&["images", "-q", "--no-trunc"]);
    let second = runnable(&depot, &json!({"Cmd": ["sh", "-c", "echo two"]}));
    assert_eq!(second, name);
    depot.registry.forget();
    depot
        .run(&["run", "--rm", &name])
        .success()
        .stdout("one\n")
        .stderr("");
    assert!(
        depot.registry.asked().is_empty(),
        "what is here isn't asked for"
    );
    depot
        .run(&["run", "--rm", "--pull", "always", &name])
        .success()
        .stdout("two\n");
    depot
        .run(&["run", "--rm", "--pull", "never", &name])
        .success()
        .stdout("two\n");
    // The first one has no name any more, and an ID.
    let id = &first.trim()["sha256:".len()..][..12];
    depot.run(&["run", "--rm", id]).success().stdout("one\n");
    let listed = depot.ok(&["images"]);
    assert!(listed.contains("<none>") && listed.contains(id), "{listed}");
    let made = depot.ok(&["create", "--name", "later", &name]);
    assert_eq!(depot.ok(&["start", "-a", "later"]), "two\n");
    assert_eq!(made.trim().len(), 64);
    // A layer that a hand has removed is fetched again.
    fs::remove_dir_all(depot.lower(&name)[0].parent().unwrap()).unwrap();
    depot.run(&["run", "--rm", &name]).success().stdout("two\n");
    // Without an image, with a directory in its place, and by step 10's flags.
    depot.fails(&["run"], "which image?");
    let root = Root::shared();
    let root = root.path().display().to_string();
    depot.fails(&["run", &root], "goes behind --image");
    depot
        .run(&["run", "--rm", "--image", &root, "sh", "-c", "echo three"])
        .success()
        .stdout("three\n");
    depot.fails(
        &["run", "--rm", "--image", &root, "--entrypoint", "sh"],
        "--entrypoint sh",
    );
    depot.ok(&["rm", "later"]);
}

/// images, tag, history, image inspect, rmi: what is printed.
#[test]
fn the_commands_about_images() {
    let depot = Depot::new();
    let layer = noise(100_000);
    let layer = archive(&[("data", Regular, &layer)]);
    let config = configuration(
        &[digest(&layer)],
        &json!({"Cmd": ["sh"], "Labels": null, "Volumes": null}),
    );
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["history"] = json!([
        {"created": "2024-01-02T03:04:05Z", "created_by": "/bin/sh -c #(nop) ADD file:\u{1b}[31m in / "},
        {"created": "2024-01-02T03:04:06Z", "created_by": "CMD [\"sh\"]", "empty_layer": true, "comment": "buildkit"},
    ]);
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": depot.registry.blob(&config), "size": config.len()},
        "layers": [{"mediaType": LAYER, "digest": depot.registry.blob(&layer), "size": layer.len()}]});
    let of_manifest = depot.registry.manifest("shop/tool", "v1", &manifest);
    let name = depot.registry.image("shop/tool:v1");
    let repository = depot.registry.image("shop/tool");
    let id = digest(&config);
    let short = &id["sha256:".len()..][..12];
    depot.ok(&["pull", "-q", &name]);
    depot.ok(&["tag", &name, "mine"]);
    depot.ok(&["tag", short, "mine:2"]);
    let listed = depot.ok(&["images"]);
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    );
    let names: Vec<_> = lines[1..]
        .iter()
        .map(|line| (line[0], line[1], line[2]))
        .collect();
    assert_eq!(
        names,
        [
            (&*repository, "v1", short),
            ("mine", "2", short),
            ("mine", "latest", short)
        ]
    );
    assert!(
        listed.contains("years ago") && listed.contains("kB"),
        "{listed}"
    );
    assert_eq!(depot.ok(&["images", "-q"]), format!("{short}\n"));
    assert_eq!(depot.ok(&["images", "-q", "mine"]).lines().count(), 1);
    assert_eq!(
        depot.ok(&["images", "--format", "{{.Tag}}", "mine:2"]),
        "2\n"
    );
    assert!(depot.ok(&["images", "--digests"]).contains(&of_manifest));
    let line: Value = serde_json::from_str(
        depot
            .ok(&["image", "ls", "--format", "json"])
            .lines()
            .next()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(
        (&line["Repository"], &line["ID"]),
        (&json!(repository), &json!(short))
    );
    let history = depot.ok(&["history", "mine"]);
    assert!(
        !history.contains('\u{1b}')
            && history.contains("buildkit")
            && history.contains("<missing>"),
        "{history}"
    );
    assert!(
        history.lines().nth(1).unwrap().contains("CMD [\"sh\"]"),
        "{history}"
    );
    let described: Value =
        serde_json::from_str(&depot.ok(&["image", "inspect", "mine", short])).unwrap();
    assert_eq!(described.as_array().unwrap().len(), 2);
    assert_eq!(described[0]["Id"], id.as_str());
    assert_eq!(
        described[0]["RepoTags"],
        json!([name, "mine:2", "mine:latest"])
    );
    assert_eq!(
        described[0]["RepoDigests"],
        json!([format!("{repository}@{of_manifest}")])
    );
    assert_eq!(described[0]["Config"]["Cmd"], json!(["sh"]));
    assert_eq!(described[0]["RootFS"]["Layers"], json!([digest(&layer)]));
    depot.fails(
        &["image", "inspect", "nothing"],
        "no such image: nothing\nhelp: `images` lists them, `pull nothing`",
    );
    depot
        .run(&["image", "inspect", "nothing", "mine"])
        .code(125)
        .prints(&id);
    depot.fails(&["tag", "nothing", "x"], "no such image");
    depot.fails(&["tag", "mine", &format!("x@{id}")], "nobody's to give");
    depot.fails(&["rmi", short], "has 3 names");
    assert_eq!(depot.ok(&["rmi", "mine:2"]), "Untagged: mine:2\n");
    assert_eq!(depot.ok(&["rmi", "mine"]), "Untagged: mine:latest\n");
    let removed = depot.ok(&["rmi", &name]);
    assert_eq!(
        removed,
        format!("Untagged: {name}\nUntagged: {repository}@{of_manifest}\nDeleted: {id}\n")
    );
    depot.fails(&["rmi", &name], "no such image");
    depot.has_nothing();
    // A list that a hand has changed is named, and nothing is removed for it.
    fs::write(depot.state.join("registry/names.json"), "{\"version\": 7}").unwrap();
    depot.fails(
        &["images"],
        "it is of version 7, and this program knows up to 1",
    );
    fs::write(depot.state.join("registry/names.json"), "{").unwrap();
    depot.fails(&["image", "prune"], "names.json, the list of images");
    fs::remove_file(depot.state.join("registry/names.json")).unwrap();
    depot.ok(&["pull", &name]);
}

/// On a terminal there are bars.
#[test]
fn bars_on_a_terminal() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    let mut command = Command::new("script");
    if !have("script", "bsdutils") {
        return;
    }
    let words = format!("{} pull {name}", step(STEP).display());
    command
        .args(["-qec", &words, "/dev/null"])
        .env("TEN_STEPS_STATE", &depot.state)
        .env("TERM", "xterm");
    let shown = ended(&mut command).success().printed();
    assert!(
        shown.contains("Pull complete") && shown.contains("Downloaded newer image"),
        "{shown}"
    );
}
