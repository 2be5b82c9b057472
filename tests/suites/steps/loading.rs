//! Step 11: archives of images, as others write them and as they mustn't be.

use crate::attacks::tried;
use crate::stage::bench::STEP as STEP08;
use crate::stage::clients::{Buildah, Client, Podman};
use crate::stage::depot::{Depot, STEP, layers};
use crate::stage::dock::ended;
use crate::stage::engine::Engine;
use crate::stage::{Printed, Root, have, mount_apart, nested, run, step};
use crate::steps::commits::odd_root;
use crate::steps::registries::{in_four_layers, is_as_umoci_unpacks, packed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use progress::host::container::eventually;
use progress::host::registry::{CONFIG, INDEX, LAYER, MANIFEST, archive, configuration, digest};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};

const FULL_NAME: &str = "io.containerd.image.name";
const SHORT_NAME: &str = "org.opencontainers.image.ref.name";

/// The files of an archive, in their order.
#[derive(Default, Clone)]
struct Files(Vec<(String, tar::EntryType, Vec<u8>)>);

impl Files {
    fn with(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Files {
        self.0.push((name.into(), Regular, bytes.as_ref().into()));
        self
    }

    fn link(mut self, name: &str, kind: tar::EntryType, to: &str) -> Files {
        self.0.push((name.into(), kind, to.into()));
        self
    }

    /// Other bytes in the place of the file `name`, or of the first whose name ends so.
    fn swap(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Files {
        let file = self.0.iter_mut().find(|file| file.0.ends_with(name));
        file.unwrap().2 = bytes.as_ref().into();
        self
    }

    fn without(mut self, name: &str) -> Files {
        let before = self.0.len();
        self.0.retain(|file| !file.0.ends_with(name));
        assert!(self.0.len() < before);
        self
    }

    /// A blob of a layout; returns its descriptor.
    fn blob(&mut self, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let name = format!("blobs/sha256/{}", &digest["sha256:".len()..]);
        if !self.0.iter().any(|file| file.0 == name) {
            self.0.push((name, Regular, bytes.into()));
        }
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    fn json(&mut self, kind: &str, value: &Value) -> Value {
        self.blob(kind, &serde_json::to_vec(value).unwrap())
    }

    /// An image of a layout; returns its descriptor.
    fn image(&mut self, layers: &[Vec<u8>], config: &[u8]) -> Value {
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(LAYER, layer)).collect();
        let config = self.blob(CONFIG, config);
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.json(MANIFEST, &manifest)
    }

    /// What makes a layout of it.
    fn layout(self, manifests: &[Value]) -> Files {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        self.with("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#)
            .with("index.json", index.to_string())
    }

    fn packed(&self) -> Vec<u8> {
        let entries = self.0.iter();
        let entries: Vec<_> = entries
            .map(|(name, kind, bytes)| (name.as_str(), *kind, bytes.as_slice()))
            .collect();
        archive(&entries)
    }

    fn write(&self, to: &Path) -> String {
        fs::write(to, self.packed()).unwrap();
        to.display().to_string()
    }
}

fn named(mut descriptor: Value, key: &str, name: &str) -> Value {
    descriptor["annotations"] = json!({key: name});
    descriptor
}

fn for_platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    descriptor
}

fn plain_configuration(layers: &[Vec<u8>], config: &Value) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    configuration(&diff_ids, config)
}

/// What Docker wrote before it wrote layouts.
fn saved(layers: &[Vec<u8>], config: &[u8], names: &Value) -> Files {
    let digits = &digest(config)["sha256:".len()..];
    let mut files = Files::default().with(&format!("{digits}.json"), config);
    let mut paths = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let path = format!("{number:064}/layer.tar");
        files = files.with(&path, layer);
        paths.push(path);
    }
    let manifest =
        json!([{"Config": format!("{digits}.json"), "RepoTags": names, "Layers": paths}]);
    files.with("manifest.json", manifest.to_string())
}

/// The archive of a root that has programs.
fn root_layer(folder: &Path) -> Vec<u8> {
    let packed = folder.join("root.tar");
    run(Command::new("tar")
        .args(["--numeric-owner", "-cf"])
        .arg(&packed)
        .arg("-C")
        .arg(Root::shared().path())
        .arg("."));
    fs::read(packed).unwrap()
}

/// All that is in the store, with the sizes of files.
fn listing(depot: &Depot) -> Vec<String> {
    let registry = depot.state.join("registry");
    let listed = run(Command::new("find").arg(&registry).args([
        "-mindepth",
        "1",
        "-type",
        "d",
        "-printf",
        "%P\\n",
        "-o",
        "-printf",
        "%P %s\\n",
    ]));
    let mut listed: Vec<String> = listed.lines().map(String::from).collect();
    listed.sort();
    listed.extend(fs::read_to_string(registry.join("names.json")));
    listed
}

/// Layouts that umoci and skopeo have written, and skopeo's form of what Docker writes; compressed or not.
#[test]
fn what_umoci_and_skopeo_write() {
    if nested() || !have("skopeo", "skopeo") || !have("umoci", "umoci") || !have("zstd", "zstd") {
        return;
    }
    mount_apart();
    let depot = Depot::new();
    let at = |name: &str| depot.folder.path().join(name);
    let file = |name: &str| at(name).display().to_string();
    odd_root(&at("odd"));
    let image = in_four_layers(depot.folder.path(), "odd", &at("odd"));
    let pack = |word: &str, to: &str| {
        run(Command::new("tar").args([word, "-cf", &file(to), "-C", &file("layout"), "."]));
    };
    pack("--no-auto-compress", "plain");
    pack("--gzip", "gzip");
    pack("--zstd", "zstd");
    for (kind, to) in [("docker-archive", "docker"), ("oci-archive", "oci")] {
        run(Command::new("skopeo")
            .args(["copy", "-q"])
            .arg(format!("oci:{image}"))
            .arg(format!("{kind}:{}:shop/odd:{to}", file(to))));
    }
    for (archive, name) in [
        ("plain", "odd:latest"),
        ("gzip", "odd:latest"),
        ("zstd", "odd:latest"),
        ("docker", "shop/odd:docker"),
        ("oci", "shop/odd:oci"),
    ] {
        let loaded = depot.ok(&["load", "-i", &file(archive)]);
        assert_eq!(loaded, format!("Loaded image: {name}\n"), "{archive}");
        is_as_umoci_unpacks(&depot, &image, name);
        depot.ok(&["rmi", name]);
        depot.has_nothing();
    }
}

/// What an engine saves: of one name and of two, of two images, and of one without a name.
#[test]
fn what_docker_saves() {
    if nested() || !have("dockerd", "docker.io") {
        return;
    }
    let depot = Depot::new();
    let file = |name: &str| depot.folder.path().join(name).display().to_string();
    root_layer(depot.folder.path());
    let engine = Engine::start();
    let docker = |words: &[&str]| run(engine.docker().args(words));
    docker(&[
        "import",
        "-c",
        "CMD [\"sh\", \"-c\", \"echo one\"]",
        &file("root.tar"),
        "one:1",
    ]);
    docker(&["tag", "one:1", "localhost:5000/one:2"]);
    let other = docker(&[
        "import",
        "-c",
        "CMD [\"sh\", \"-c\", \"echo two\"]",
        &file("root.tar"),
    ]);
    let other = other.trim();
    docker(&[
        "save",
        "-o",
        &file("named"),
        "one:1",
        "localhost:5000/one:2",
    ]);
    docker(&["save", "-o", &file("bare"), other]);
    let loaded = depot.ok(&["load", "-q", "-i", &file("named")]);
    let mut lines: Vec<&str> = loaded.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["Loaded image: localhost:5000/one:2", "Loaded image: one:1"]
    );
    let id = docker(&["image", "inspect", "-f", "{{.Id}}", "one:1"]);
    assert_eq!(depot.ok(&["images", "-q", "--no-trunc"]), id);
    let loaded = depot.ok(&["load", "-i", &file("bare")]);
    assert_eq!(loaded, format!("Loaded image ID: {other}\n"));
    for (name, words) in [
        ("one:1", "one\n"),
        ("localhost:5000/one:2", "one\n"),
        (other, "two\n"),
    ] {
        depot.run(&["run", "--rm", name]).success().stdout(words);
    }
    // An engine that keeps images as containerd does, and one that doesn't, say the same to who loads.
    assert_eq!(
        docker(&["load", "-q", "-i", &file("bare")]),
        format!("Loaded image ID: {other}\n")
    );
    depot.ok(&["rmi", "one:1", "localhost:5000/one:2", other]);
    depot.has_nothing();
}

/// What Podman and Buildah write of an image, each in both forms, and Buildah of a container.
#[test]
fn what_podman_and_buildah_write() {
    if nested() || !have("skopeo", "skopeo") || !have("umoci", "umoci") {
        return;
    }
    let depot = Depot::new();
    let at = |name: &str| depot.folder.path().join(name);
    let file = |name: &str| at(name).display().to_string();
    odd_root(&at("odd"));
    let image = in_four_layers(depot.folder.path(), "odd", &at("odd"));
    let given = format!("docker-archive:{}", file("given"));
    run(Command::new("skopeo")
        .args(["copy", "-q"])
        .arg(format!("oci:{image}"))
        .arg(format!("{given}:localhost/odd:1")));
    let mut written = Vec::new();
    {
        let Some(podman) = Podman::new() else { return };
        podman.ok(&["load", "-q", "-i", &file("given")]);
        for form in ["docker-archive", "oci-archive"] {
            let to = format!("podman-{form}");
            podman.ok(&[
                "save",
                "-q",
                "--format",
                form,
                "-o",
                &file(&to),
                "localhost/odd:1",
            ]);
            written.push((to, "localhost/odd:1"));
        }
    }
    {
        let Some(buildah) = Buildah::new() else {
            return;
        };
        buildah.ok(&["pull", "-q", &given]);
        let container = buildah.ok(&["from", "localhost/odd:1"]);
        for form in ["docker-archive", "oci-archive"] {
            let to = format!("buildah-{form}");
            let name = format!("{form}:{}:localhost/odd:2", file(&to));
            buildah.ok(&["push", "-q", "localhost/odd:1", &name]);
            written.push((to, "localhost/odd:2"));
            let to = format!("buildah-commit-{form}");
            let name = format!("{form}:{}:localhost/odd:3", file(&to));
            buildah.ok(&["commit", "-q", container.trim(), &name]);
            written.push((to, "localhost/odd:3"));
        }
        buildah.ok(&["rm", "-a"]);
    }
    for (archive, name) in written {
        let loaded = depot.ok(&["load", "-i", &file(&archive)]);
        // Buildah writes down all names that the image has.
        let names: Vec<&str> = loaded
            .lines()
            .map(|line| line.strip_prefix("Loaded image: ").unwrap())
            .collect();
        assert!(names.contains(&name), "{archive}: {loaded}");
        is_as_umoci_unpacks(&depot, &image, name);
        depot.ok(&[&["rmi"], &names[..]].concat());
        depot.has_nothing();
    }
}

/// What Docker wrote for years: a layer that is there already is a link to the other image's. Step 8 says where to go
/// with it, and there it runs.
#[test]
fn the_old_form_of_docker() {
    let depot = Depot::new();
    let root = root_layer(depot.folder.path());
    let top = archive(&[("data", Regular, b"from the image\n")]);
    let config = json!({"Cmd": ["cat", "/data"]});
    let layers = [root.clone(), top.clone(), top];
    let one = plain_configuration(&layers, &config);
    let other = plain_configuration(&layers[..2], &config);
    let [name_of_one, name_of_other] =
        [&one, &other].map(|config| format!("{}.json", &digest(config)[7..]));
    let manifest = json!([
        {"Config": name_of_one, "RepoTags": ["one:1", "one:2"], "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]},
        {"Config": name_of_other, "RepoTags": null, "Layers": ["d/layer.tar", "b/layer.tar"]},
    ]);
    let files = Files::default()
        .with(&name_of_one, &one)
        .link("a", Directory, "")
        .with("a/VERSION", "1.0")
        .with("./a/layer.tar", root)
        .link("d/layer.tar", Link, "a/layer.tar")
        .with("b/layer.tar", &layers[1])
        .link("c/layer.tar", Symlink, "../d/../b/layer.tar")
        .with(&name_of_other, &other)
        .with("manifest.json", manifest.to_string())
        .with("repositories", "{}");
    let file = files.write(&depot.folder.path().join("saved.tar"));
    let mut step08 = Command::new(step(STEP08));
    let refused = ended(
        step08
            .args(["--image", &file, "true"])
            .env("TEN_STEPS_STATE", &depot.state),
    );
    refused.code(125).complains("`step11-pull load -i FILE`");
    let loaded = depot.run(&["load", "-i", &file]).success();
    let id = digest(&other);
    assert_eq!(
        loaded.printed(),
        format!("Loaded image: one:1\nLoaded image: one:2\nLoaded image ID: {id}\n")
    );
    loaded.complains("Loaded");
    for name in ["one:2", &id] {
        depot
            .run(&["run", "--rm", name])
            .success()
            .stdout("from the image\n");
    }
    let described = depot.ok(&[
        "image",
        "inspect",
        "-f",
        "{{json .RepoTags}} {{json .RepoDigests}}",
        "one:1",
    ]);
    assert_eq!(described, "[\"one:1\",\"one:2\"] []\n");
    // Once more, from standard input: all of it is there, and there is nothing to see.
    let before = listing(&depot);
    let words = format!("exec {} load -q <\"$0\"", step(STEP).display());
    let mut again = Command::new("sh");
    again
        .args(["-c", &words, &file])
        .env("TEN_STEPS_STATE", &depot.state);
    ended(&mut again)
        .success()
        .stdout(loaded.printed())
        .stderr("");
    assert_eq!(listing(&depot), before);
    depot.ok(&["rmi", "one:1", "one:2", &id]);
    depot.has_nothing();
}

/// Names in layouts, and several images of which one is for this machine.
#[test]
fn names_and_platforms_in_layouts() {
    let depot = Depot::new();
    let mut files = Files::default();
    let mut image = |word: &str, architecture: &str| {
        let layer = archive(&[("word", Regular, word.as_bytes())]);
        let mut config: Value = serde_json::from_slice(&plain_configuration(
            std::slice::from_ref(&layer),
            &json!({}),
        ))
        .unwrap();
        config["architecture"] = json!(architecture);
        for_platform(
            files.image(&[layer], &serde_json::to_vec(&config).unwrap()),
            architecture,
        )
    };
    let [amd64, arm64, third, fourth] = [
        ("amd64", "amd64"),
        ("arm64", "arm64"),
        ("third", "amd64"),
        ("fourth", "amd64"),
    ]
    .map(|(word, architecture)| image(word, architecture));
    let proof = json!({"mediaType": MANIFEST, "digest": digest(b"proof"), "size": 5,
        "platform": {"os": "unknown", "architecture": "unknown"}});
    let signature =
        json!({"mediaType": "application/vnd.example", "digest": digest(b"x"), "size": 1});
    let both = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [proof, arm64, amd64]});
    let both = files.json(INDEX, &both);
    let mut nested = named(both.clone(), FULL_NAME, "docker.io/library/nested:1");
    nested["annotations"][SHORT_NAME] = json!("1");
    let some = [
        proof,
        signature,
        nested,
        named(both, SHORT_NAME, "again"),
        named(amd64, SHORT_NAME, "flat:1"),
        named(arm64, SHORT_NAME, "flat:1"),
    ];
    let all = [&some[..], &[named(third, SHORT_NAME, "Not+a+name"), fourth]].concat();
    for (architecture, manifests, ids) in [("amd64", &all[..], 2), ("arm64", &some[..], 0)] {
        let file = files.clone().layout(manifests);
        let file = file.write(&depot.folder.path().join("layout.tar"));
        let loaded = depot.ok(&["load", "-i", &file, "--platform", architecture]);
        let mut told: Vec<&str> = loaded.lines().collect();
        told.sort_unstable();
        let of_ids = told
            .iter()
            .filter(|line| line.starts_with("Loaded image ID: sha256:"));
        assert_eq!(of_ids.count(), ids, "{told:?}");
        for name in ["nested:1", "again:latest", "flat:1"] {
            assert!(
                told.contains(&&*format!("Loaded image: {name}")),
                "{told:?}"
            );
            let word = fs::read_to_string(depot.lower(name)[0].join("word")).unwrap();
            assert_eq!(word, architecture, "{name}");
        }
    }
    // What was there under these names has none now, and its ID.
    assert_eq!(depot.ok(&["images", "-q", "--no-trunc"]).lines().count(), 4);
    let file = depot.folder.path().join("layout.tar").display().to_string();
    depot.fails(
        &["load", "-i", &file, "--platform", "riscv64"],
        "there is no image for linux/riscv64: there is one for linux/amd64, linux/arm64\nhelp: --platform takes",
    );
}

/// What is no archive of images, or one that somebody has changed, is refused in words, and the store is as it was.
#[test]
fn what_is_refused() {
    let _attack = tried("CVE-2014-9358");
    let depot = Depot::new();
    let at = |name: &str| depot.folder.path().join(name);
    let layers = layers();
    let config = plain_configuration(&layers, &json!({}));
    let docker = saved(&layers, &config, &json!(["bad:1"]));
    let config_name = docker.0[0].0.clone();
    let manifest = |value: Value| docker.clone().swap("manifest.json", value.to_string());
    let entry = |config: &str, tags: Value, layers: Value| json!([{"Config": config, "RepoTags": tags, "Layers": layers}]);
    let paths = ["0", "1"].map(|end| format!("{}{end}/layer.tar", "0".repeat(63)));
    let mut files = Files::default();
    let image = files.image(&layers, &config);
    let layout = files
        .clone()
        .layout(&[named(image.clone(), SHORT_NAME, "bad:1")]);
    let of = |value: &Value| value["digest"].as_str().unwrap()[7..].to_owned();
    let indexed = |value: Value| layout.clone().swap("index.json", value.to_string());
    let other = archive(&[("other", Regular, b"")]);
    let leads_out = archive(&[("../../../out", Regular, b"out")]);
    let with_bad_layer = [layers[0].clone(), leads_out];
    let long = format!("{}{}", " ".repeat(5 << 20), "{}");
    let wide = |text: &[u8]| [text, &vec![b' '; 4 << 20][text.len()..]].concat();
    let wide_config = wide(&config);
    let wide_name = format!("{}.json", &digest(&wide_config)[7..]);
    let of_wide = json!({"Config": wide_name, "RepoTags": ["bad:1"], "Layers": paths});
    let many_texts = json!(vec![of_wide; 9]).to_string();
    let windows = String::from_utf8(config.clone())
        .unwrap()
        .replace("linux", "windows");
    let zeros = archive(&[("zeros", Regular, &vec![0; 4 << 20])]);
    let bomb = packed(&zeros, "+gzip", depot.folder.path());
    let small = packed(&docker.packed(), "+gzip", depot.folder.path());
    let nothing = Files::default();
    let one_config = plain_configuration(&layers[..1], &json!({}));
    let one_config_name = format!("{}.json", &digest(&one_config)[7..]);
    let mut two = files.clone();
    let second = two.image(&layers[..1], &one_config);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "it is empty"),
        ("a text", b"no archive".repeat(99), "it is no tar archive"),
        ("a root", archive(&[("./", Directory, b""), ("./usr/", Directory, b"")]), "help: `step10-exec run --image FILE` runs a root"),
        ("anything else", nothing.clone().with("file", "text").packed(), "it has neither manifest.json nor oci-layout"),
        ("cut off", docker.packed()[..9999].into(), "it is cut off"),
        ("cut off between entries", docker.packed()[..1 << 10].into(), "it is damaged or cut off, behind"),
        ("cut off and compressed", small[..small.len() - 4].into(), "behind its last entry"),
        ("twice", docker.clone().with("./manifest.json", "[]").packed(), "its entry ./manifest.json: it is there twice"),
        ("out by its name", docker.clone().with("../../out", "").packed(), "it has .. in its name"),
        ("out by a link", docker.clone().link("a/b", Symlink, "../../state").packed(), "it leads out of the archive, to ../../state"),
        ("out by an absolute link", docker.clone().link("a", Symlink, "/etc/passwd").packed(), "it leads out of the archive, to /etc/passwd"),
        ("out by a hard link", docker.clone().link("a", Link, "../x").packed(), "it has .. in its name"),
        ("in a circle", manifest(entry("a", json!(null), json!([]))).link("a", Symlink, "b").link("b", Symlink, "./a").packed(), "a link that leads in a circle"),
        ("a pipe", docker.clone().link("a", Fifo, "").packed(), "neither a plain file nor a link"),
        ("a name to count", docker.clone().with(&"a/".repeat(40), "x").packed(), "is no file"),
        ("no JSON", docker.clone().swap("manifest.json", "[").packed(), "manifest.json: EOF"),
        ("no list", docker.clone().swap("manifest.json", "null").packed(), "manifest.json: invalid type"),
        ("no image", docker.clone().swap("manifest.json", "[]").packed(), "there is no image in it"),
        ("too long", docker.clone().swap("manifest.json", &long).packed(), "manifest.json: it has more than 4 MiB"),
        ("an index too long", layout.clone().swap("index.json", &long).packed(), "index.json: it has more than 4 MiB"),
        ("much text", manifest(json!([])).swap("manifest.json", &many_texts).with(&wide_name, &wide_config).packed(), "more bytes than those of a thousand images"),
        ("a lost configuration", docker.clone().without(&config_name).packed(), "its configuration: "),
        ("a lost layer", docker.clone().without("1/layer.tar").packed(), "1/layer.tar isn't in it"),
        ("a layer on the host", manifest(entry(&config_name, json!([]), json!(["/etc/passwd", "../x"]))).packed(), "etc/passwd isn't in it"),
        ("a layer above", manifest(entry(&config_name, json!([]), json!(["../../x"]))).packed(), "it has .. in its name"),
        ("another configuration", docker.clone().swap(&config_name, "{}").packed(), "its bytes are not those of its digest"),
        ("another layer", docker.clone().swap("1/layer.tar", &other).packed(), "its bytes are not those of its digest"),
        ("the layers exchanged", manifest(entry(&config_name, json!([]), json!([paths[1], paths[0]]))).packed(), "its bytes are not those of its digest"),
        ("one layer", manifest(entry(&config_name, json!([]), json!([paths[0]]))).packed(), "its manifest has 1 layers, and its configuration 2"),
        ("many images", docker.clone().swap("manifest.json", json!(vec![json!({"Config": config_name, "RepoTags": [], "Layers": paths}); 1001]).to_string()).packed(), "it has 1001 images, and may have 1000"),
        ("many images of a layout", indexed(json!({"schemaVersion": 2, "manifests": vec![&image; 1001]})).packed(), "it has 1001 images, and may have 1000"),
        ("many layers", manifest(entry(&config_name, json!([]), json!(vec![&paths[0]; 1000]))).packed(), "it has 1000 layers, and may have"),
        ("no name", manifest(entry(&config_name, json!(["../A"]), json!(paths))).packed(), "can't be an image's name"),
        ("a bad layer above a good one", saved(&with_bad_layer, &plain_configuration(&with_bad_layer, &json!({})), &json!([])).packed(), "layer 2 of 2"),
        ("another system", saved(&layers, windows.as_bytes(), &json!([])).packed(), "windows/"),
        ("a layer that grows", saved(&[bomb], &configuration(&[digest(&zeros)], &json!({})), &json!([])).packed(), "what its archive unpacks to: it holds more than 2097152 bytes\nhelp: --max-size"),
        ("another blob", layout.clone().swap(&digest(&layers[0])[7..], &other).packed(), "its bytes are not those of its digest: they have sha256:"),
        ("a lost blob", layout.clone().without(&digest(&layers[1])[7..]).packed(), "layer 2 of 2"),
        ("a lost manifest", layout.clone().without(&of(&image)).packed(), "its manifest: sha256:"),
        ("a lost configuration of a layout", layout.clone().without(&digest(&config)[7..]).packed(), "its configuration: sha256:"),
        ("another version", layout.clone().swap("oci-layout", r#"{"imageLayoutVersion": "2.0"}"#).packed(), "it is of version \"2.0\""),
        ("no index", layout.clone().without("index.json").packed(), "index.json isn't in it"),
        ("an index without images", indexed(json!({"schemaVersion": 2, "manifests": []})).packed(), "none of what its index.json names is an image"),
        ("a wrong size", indexed(json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": image["digest"], "size": 1}]})).packed(), "and 1 are said"),
        ("two of one name", two.layout(&[named(image.clone(), SHORT_NAME, "bad:1"), named(second, SHORT_NAME, "bad:1")]).packed(), "it has two images that are called bad:1"),
        ("two of one name, as Docker has it", docker.clone().swap("manifest.json", json!([
            {"Config": config_name, "RepoTags": ["bad:1"], "Layers": paths},
            {"Config": one_config_name, "RepoTags": ["bad:1"], "Layers": [paths[0]]},
        ]).to_string()).with(&one_config_name, &one_config).packed(), "it has two images that are called bad:1"),
        ("another machine", layout.packed(), "there is none for linux/riscv64"),
        ("too large", nothing.with("zeros", vec![0; 3 << 20]).packed(), "it holds more than 2097152 bytes\nhelp: --max-size allows more"),
        ("too large behind", [docker.packed(), vec![0; 4 << 20]].concat(), "it holds more than"),
    ];
    // There is an image already, of the same name and the same lowest layer, whose archive is another.
    let gzip = packed(&layers[0], "+gzip", depot.folder.path());
    let there = saved(&[gzip], &one_config, &json!(["bad:1"]));
    depot.ok(&["load", "-i", &there.write(&at("there.tar"))]);
    // What a killed pull has left isn't for a load to remove.
    let part = format!("registry/blobs/sha256-{}.part", "a".repeat(64));
    fs::write(depot.state.join(part), "begun").unwrap();
    let before = listing(&depot);
    for (what, bytes, words) in cases {
        let file = at("bad.tar");
        for compressed in [false, true] {
            let bytes = match compressed {
                false => bytes.clone(),
                true if bytes.is_empty() || bytes.starts_with(&[0x1f, 0x8b]) => continue,
                true => packed(&bytes, "+gzip", depot.folder.path()),
            };
            fs::write(&file, bytes).unwrap();
            let mut command = vec!["load", "-i", file.to_str().unwrap()];
            match what {
                "another machine" => command.extend(["--platform", "riscv64"]),
                "too large" | "too large behind" | "a layer that grows" => {
                    command.extend(["--max-size", "2m"])
                }
                _ => {}
            }
            let failed = depot.run(&command).code(125).errors();
            assert!(failed.contains(words), "{what}: {failed}");
            assert!(failed.contains("bad.tar: "), "{what}: {failed}");
            assert_eq!(listing(&depot), before, "{what}");
        }
    }
    assert!(!at("out").exists());
    depot.fails(
        &["load", "-i", "no/such/file"],
        "load no/such/file: there is no such file\nhelp: ",
    );
    depot.fails(
        &[
            "load",
            "-i",
            at("docker").parent().unwrap().to_str().unwrap(),
        ],
        "it is a directory\nhelp: `tar",
    );
    depot.fails(&["load"], "load from standard input: it is empty");
    assert_eq!(listing(&depot), before);
    // The same archive as it was is an image.
    depot.ok(&["load", "-i", &docker.write(&at("good.tar"))]);
    depot.ok(&["load", "-i", &layout.write(&at("good.tar"))]);
    assert_eq!(depot.lower("bad:1").len(), 2);
}

/// A load that is killed leaves what the next one sweeps, and whoever tidies up.
#[test]
fn a_killed_load_leaves_nothing_for_long() {
    let depot = Depot::new();
    let layers = layers();
    let config = plain_configuration(&layers, &json!({}));
    let bytes = saved(&layers, &config, &json!(["app:1"])).packed();
    let file = depot.folder.path().join("app.tar");
    fs::write(&file, &bytes).unwrap();
    let aside = depot.state.join("registry/aside");
    let kept = || {
        let folders = fs::read_dir(&aside).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten());
        files
            .flatten()
            .map(|file| file.metadata().map_or(0, |found| found.len()))
            .sum::<u64>()
    };
    for next in [
        &["image", "prune"][..],
        &["load", "-i", file.to_str().unwrap()],
    ] {
        let mut load = depot.command(&["load"]);
        let mut load = load
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = load.stdin.take().unwrap();
        input.write_all(&bytes[..bytes.len() / 2]).unwrap();
        eventually(|| (kept() > 256 << 10).then_some(())).expect("some of it comes");
        // Who is at work isn't disturbed.
        depot.ok(&["image", "prune"]);
        assert!(kept() > 0);
        kill(Pid::from_raw(load.id() as i32), Signal::SIGKILL).unwrap();
        load.wait().unwrap();
        assert!(kept() > 0);
        assert_eq!(depot.ok(&["images", "-q"]), "");
        assert_eq!(
            (depot.whole("blobs").len(), depot.whole("layers").len()),
            (0, 0)
        );
        depot.ok(next);
        assert_eq!(fs::read_dir(&aside).unwrap().count(), 0, "{next:?}");
    }
    assert_eq!(depot.whole("layers").len(), 2);
}

/// A large layer takes no more memory than a small one.
#[test]
fn a_large_layer_in_little_memory() {
    const MOST: u64 = 192 << 20;
    let depot = Depot::new();
    let layer = archive(&[("zeros", Regular, &vec![0; 256 << 20])]);
    let config = plain_configuration(std::slice::from_ref(&layer), &json!({}));
    let file =
        saved(&[layer], &config, &json!(["large:1"])).write(&depot.folder.path().join("large.tar"));
    let words = format!(
        "ulimit -v {}; exec {} load -i \"$0\"",
        MOST >> 10,
        step(STEP).display()
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &words, &file])
        .env("TEN_STEPS_STATE", &depot.state);
    ended(&mut command)
        .success()
        .stdout("Loaded image: large:1\n");
}
