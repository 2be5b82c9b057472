//! Step 11: registries, as they are and as they mustn't be.

use crate::attacks::tried;
use crate::stage::depot::{Depot, layers, noise};
use crate::stage::{Printed, have, mount_apart, run, write_program};
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use progress::host::container::eventually;
use progress::host::registry::{
    Answer, Asked, CONFIG, INDEX, LAYER, MANIFEST, PretendRegistry, archive, configuration, digest,
    refusal,
};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use tar::EntryType;

fn header<'a>(asked: &'a Asked, name: &str) -> &'a str {
    asked.headers.get(name).map_or("", String::as_str)
}

fn is_blob(asked: &Asked) -> bool {
    asked.path.contains("/blobs/")
}

/// All that comes is kept by its digest, and a second pull asks for the manifest alone.
#[test]
fn what_is_here_is_not_fetched_again() {
    let depot = Depot::new();
    let (name, manifest) = depot.push("some/image");
    let pulled = depot.run(&["pull", &name]).success();
    let of_manifest = digest(&serde_json::to_vec(&manifest).unwrap());
    pulled.prints(&format!("Digest: {of_manifest}\n"));
    pulled.prints("Status: Downloaded newer image");
    for blob in depot.whole("blobs") {
        let bytes = fs::read(depot.state.join("registry/blobs").join(&blob)).unwrap();
        assert_eq!(blob.replace('-', ":"), digest(&bytes));
    }
    assert_eq!(
        (depot.whole("blobs").len(), depot.whole("layers").len()),
        (4, 2)
    );
    depot.registry.forget();
    depot
        .run(&["pull", &name])
        .success()
        .prints("Image is up to date");
    let asked: Vec<String> = depot
        .registry
        .asked()
        .iter()
        .map(|asked| asked.path.clone())
        .collect();
    assert_eq!(asked, ["/v2/", "/v2/some/image/manifests/1"]);
    // Another name of the same image, and another image of the same layers.
    let by_digest = depot.registry.image(&format!("some/image@{of_manifest}"));
    assert_eq!(
        depot.ok(&["pull", "-q", &by_digest]),
        format!("{by_digest}\n")
    );
    depot
        .registry
        .push("other", "1", &layers(), &json!({"Env": ["A=1"]}));
    depot.registry.forget();
    depot.ok(&["pull", &depot.registry.image("other:1")]);
    assert_eq!(depot.registry.count("/blobs/"), 1, "its configuration");
    assert_eq!(depot.whole("layers").len(), 2);
}

/// Which server got which Authorization.
#[test]
fn who_we_are_is_told_to_who_asked_for_it() {
    let _attack = tried("CVE-2020-15157");
    let depot = Depot::new();
    let (auth, storage) = (
        PretendRegistry::start().unwrap(),
        PretendRegistry::start().unwrap(),
    );
    let (name, _) = depot.push("app");
    let basic = "Basic bWU6c2VjcmV0";
    fs::create_dir(depot.folder.path().join("docker")).unwrap();
    let accounts = json!({"auths": {depot.registry.name(): {"auth": "bWU6c2VjcmV0"}}});
    fs::write(
        depot.folder.path().join("docker/config.json"),
        accounts.to_string(),
    )
    .unwrap();
    for layer in layers() {
        storage.blob(&layer);
    }
    // The token is good for three requests: it expires in the middle of the pull.
    let given = Arc::new(AtomicUsize::new(0));
    let giving = Arc::clone(&given);
    auth.answer(move |asked| {
        let which = giving.fetch_add(1, Ordering::SeqCst);
        let right = header(asked, "authorization") == basic
            && asked.path == "/token?service=the%20shop,%20and%20more&scope=repository:app:pull";
        let field = if which == 0 { "token" } else { "access_token" };
        Some(match right {
            true => Answer::new(200, json!({field: format!("t{which}")}).to_string()),
            false => refusal(401, "UNAUTHORIZED", "wrong password"),
        })
    });
    let (realm, elsewhere) = (auth.name(), storage.name());
    let uses = Arc::new(Mutex::new(Vec::new()));
    depot.registry.answer(move |asked| {
        let mut uses = uses.lock().unwrap();
        let token = header(asked, "authorization").to_owned();
        let used = uses.iter().filter(|used| **used == token).count();
        if !token.starts_with("Bearer t") || used == 3 {
            return Some(
                refusal(401, "UNAUTHORIZED", "authentication required")
                    .with("WWW-Authenticate", "Basic realm=\"a, b\", Negotiate abc==")
                    .with(
                        "WWW-Authenticate",
                        &format!("BEARER Realm=\"http://{realm}/token\" , service = \"the shop, and more\",error=invalid_token"),
                    ),
            );
        }
        uses.push(token);
        let digest = asked.path.strip_prefix("/v2/app/blobs/")?;
        // The configuration is here; the layers are elsewhere.
        layers().iter().any(|layer| progress::host::registry::digest(layer) == digest).then(|| {
            Answer::new(307, "").with("Location", &format!("http://{elsewhere}{}", asked.path))
        })
    });
    depot.ok(&["pull", &name]);
    assert_eq!(given.load(Ordering::SeqCst), 2, "tokens");
    assert!(
        auth.asked()
            .iter()
            .all(|asked| header(asked, "authorization") == basic)
    );
    assert_eq!(storage.count("/blobs/"), 2);
    for asked in storage.asked() {
        assert_eq!(header(&asked, "authorization"), "", "{asked:?}");
    }
    for asked in depot.registry.asked() {
        assert!(
            !header(&asked, "authorization").starts_with("Basic"),
            "{asked:?}"
        );
    }
    // A server that others send us to gets nothing, even if it asks.
    storage.answer(|_| {
        Some(refusal(401, "UNAUTHORIZED", "give").with("WWW-Authenticate", "Basic realm=\"mine\""))
    });
    depot.ok(&["rmi", &name]);
    depot.fails(&["pull", &name], "401");
    for asked in storage.asked() {
        assert_eq!(header(&asked, "authorization"), "", "{asked:?}");
    }
}

/// A password isn't sent where everybody can listen, whoever wants that, and not to a server that isn't there.
#[test]
fn a_realm_that_wants_too_much() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    fs::create_dir(depot.folder.path().join("docker")).unwrap();
    let accounts = json!({"auths": {depot.registry.name(): {"auth": "bWU6c2VjcmV0"}}});
    fs::write(
        depot.folder.path().join("docker/config.json"),
        accounts.to_string(),
    )
    .unwrap();
    for (realm, words) in [
        (
            "http://registry.invalid/token",
            "where everybody on the way can listen",
        ),
        ("ftp://127.0.0.1/", "neither https nor http"),
        ("", "where its tokens are to be had"),
        ("https://me:you@127.0.0.1/", "has an account in it"),
    ] {
        depot.registry.answer(move |_| {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
            Some(refusal(401, "UNAUTHORIZED", "no").with("WWW-Authenticate", &challenge))
        });
        depot.fails(&["pull", &name], words);
    }
    depot.registry.answer(|_| {
        let nothing = "Bearer service=x, , ,=,\"";
        Some(refusal(401, "UNAUTHORIZED", "no").with("WWW-Authenticate", nothing))
    });
    depot.fails(&["pull", &name], "doesn't say whose");
    depot.has_nothing();
}

/// Redirects: few, and with an end.
#[test]
fn redirects_have_an_end() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    depot.registry.answer(|asked| {
        let here = asked.path.replace("/blobs/", "/elsewhere/");
        match asked.path.split_once("/elsewhere/") {
            None if is_blob(asked) => Some(Answer::new(302, "").with("Location", &here)),
            Some((_, digest)) => {
                let layer = layers()
                    .into_iter()
                    .find(|layer| progress::host::registry::digest(layer) == digest);
                Some(layer.map_or_else(
                    || {
                        Answer::new(307, "")
                            .with("Location", &format!("/v2/app/blobs/{digest}?again"))
                    },
                    |layer| Answer::new(200, layer),
                ))
            }
            None => None,
        }
    });
    // The configuration goes round and round.
    depot.fails(&["pull", &name], "sends us on more than 5 times");
    depot
        .registry
        .answer(|asked| is_blob(asked).then(|| Answer::new(301, "")));
    depot.fails(&["pull", &name], "doesn't say where to");
    depot.has_nothing();
}

/// One fault after the other, each of which passes: the image comes all the same.
#[test]
fn faults_that_pass() {
    let whole = layers()[0].clone();
    let large = digest(&whole);
    let half = whole.len() / 2;
    type Fault = Box<dyn Fn(&Asked, usize) -> Option<Answer> + Send + Sync>;
    let of_large = move |asked: &Asked| asked.path.ends_with(&large);
    let is_large = of_large.clone();
    let cut = whole.clone();
    let cut: Fault = Box::new(move |asked, turn| {
        let length = Some(cut.len() as u64);
        let first = turn == 0 && is_large(asked);
        first.then(|| Answer {
            length,
            ..Answer::new(200, &cut[..half])
        })
    });
    let is_large = of_large.clone();
    let all = whole.clone();
    let without_ranges: Fault = Box::new(move |asked, turn| {
        let length = Some(all.len() as u64);
        is_large(asked).then(|| match turn {
            0 => Answer {
                length,
                ..Answer::new(200, &all[..half])
            },
            _ => Answer::new(200, all.clone()),
        })
    });
    let too_many: Fault = Box::new(|_, turn| {
        (turn < 2).then(|| refusal(429, "TOOMANYREQUESTS", "slow down").with("Retry-After", "0"))
    });
    let ill: Fault = Box::new(|asked, turn| {
        (turn < 2 && asked.path != "/v2/").then(|| Answer::new(503, "<html>come back"))
    });
    let is_large = of_large.clone();
    let hangs: Fault = Box::new(move |asked, turn| {
        let first = turn == 0 && is_large(asked);
        let (length, stalls) = (Some(whole.len() as u64), true);
        first.then(|| Answer {
            length,
            stalls,
            ..Answer::new(200, &whole[..half])
        })
    });
    for (what, fault, asks_for_the_rest) in [
        ("cut", cut, true),
        ("without ranges", without_ranges, true),
        ("too many", too_many, false),
        ("ill", ill, false),
        ("hangs", hangs, true),
    ] {
        let depot = Depot::new();
        let (name, _) = depot.push("app");
        let turns: Mutex<std::collections::HashMap<String, usize>> = Mutex::default();
        depot.registry.answer(move |asked| {
            let mut turns = turns.lock().unwrap();
            let turn = turns.entry(asked.path.clone()).or_default();
            *turn += 1;
            fault(asked, *turn - 1)
        });
        depot.run(&["pull", &name]).success();
        let range = format!("bytes={half}-");
        let asked = depot.registry.asked();
        let ranges: Vec<&str> = asked.iter().map(|asked| header(asked, "range")).collect();
        assert_eq!(
            ranges.contains(&range.as_str()),
            asks_for_the_rest,
            "{what}: {ranges:?}"
        );
        assert_eq!(depot.whole("layers").len(), 2, "{what}");
    }
}

/// Faults that don't pass: each is told by its name, and nothing that is wrong stays.
#[test]
fn faults_that_stay() {
    let large = layers()[0].clone();
    let other = noise(large.len());
    let longer = [&large[..], b"and more"].concat();
    let blob = |bytes: Vec<u8>| {
        move |asked: &Asked| is_blob(asked).then(|| Answer::new(200, bytes.clone()))
    };
    type Handler = Box<dyn Fn(&Asked) -> Option<Answer> + Send + Sync>;
    let only_large = |answer: Answer| -> Handler {
        let digest = digest(&layers()[0]);
        Box::new(move |asked| asked.path.ends_with(&digest).then(|| answer.clone()))
    };
    let shorter = || Answer::new(200, &large[..large.len() / 2]);
    let manifest = |answer: Answer| -> Handler {
        Box::new(move |asked| asked.path.contains("/manifests/").then(|| answer.clone()))
    };
    let cases: Vec<(&str, Handler, &str)> = vec![
        (
            "other bytes",
            only_large(Answer::new(200, other)),
            "its bytes are not those of its digest",
        ),
        (
            "longer",
            only_large(Answer::new(200, longer)),
            "more bytes come than its size says",
        ),
        ("shorter", only_large(shorter()), "after 6 attempts"),
        (
            "other configuration",
            Box::new(blob(b"{}".to_vec())),
            "its configuration: it ends before its size",
        ),
        (
            "no blob",
            only_large(refusal(404, "BLOB_UNKNOWN", "blob unknown")),
            "blob unknown",
        ),
        (
            "no manifest",
            manifest(refusal(404, "MANIFEST_UNKNOWN", "unknown")),
            "no such image, or none with this tag",
        ),
        (
            "no right",
            manifest(refusal(403, "DENIED", "not for you")),
            "not for you\nhelp: look at the name; if it is right, `login",
        ),
        (
            "ill for ever",
            manifest(Answer::new(500, "")),
            "it answers 500",
        ),
        (
            "no patience",
            manifest(Answer::new(429, "").with("Retry-After", "3600")),
            "it asks us to wait for 3600 s",
        ),
        (
            "no JSON",
            manifest(Answer::new(200, "<html>")),
            "its manifest: expected value",
        ),
        (
            "a manifest of 100 MB",
            manifest(Answer::new(200, vec![b' '; 100 << 20])),
            "more than 4 MiB",
        ),
        (
            "another digest",
            manifest(Answer::new(200, "{}").with("Docker-Content-Digest", &digest(b"x"))),
            "its bytes are not those of its digest",
        ),
        (
            "another range",
            Box::new({
                let (digest, half) = (digest(&large), large[..99].to_vec());
                move |asked| {
                    asked
                        .path
                        .ends_with(&digest)
                        .then(|| match header(asked, "range") {
                            "" => Answer {
                                length: Some(1 << 20),
                                ..Answer::new(200, half.clone())
                            },
                            _ => Answer::new(206, half.clone())
                                .with("Content-Range", "bytes 5-103/104"),
                        })
                }
            }),
            "another part than was asked for",
        ),
    ];
    let (mut rest, mut running) = (cases.into_iter(), 0);
    // They wait most of the time.
    std::thread::scope(|scope| {
        for (what, handler, words) in rest.by_ref() {
            running += 1;
            scope.spawn(move || {
                let depot = Depot::new();
                let (name, _) = depot.push("app");
                depot.registry.answer(handler);
                let failed = depot.run(&["pull", &name]).code(125);
                let errors = failed.errors();
                assert!(errors.contains(words), "{what}: {errors}");
                depot.has_nothing();
                // The next time all is well.
                depot.registry.answer(|_| None);
                depot.ok(&["pull", &name]);
                assert_eq!(depot.whole("layers").len(), 2, "{what}");
            });
        }
    });
    assert_eq!(running, 13);
}

/// A body that never ends is cut off where its size ends, and not when the disk is full.
#[test]
fn an_endless_layer() {
    let _attack = tried("");
    let depot = Depot::new();
    let (name, manifest) = depot.push("app");
    let size = manifest["layers"][0]["size"].as_u64().unwrap();
    let large = digest(&layers()[0]);
    depot.registry.answer(move |asked| {
        let body = vec![0; 64 << 20];
        asked.path.ends_with(&large).then(|| Answer {
            length: Some(u64::MAX / 2),
            ..Answer::new(200, body)
        })
    });
    depot.fails(&["pull", &name], "more bytes come than its size says");
    let blobs = fs::read_dir(depot.state.join("registry/blobs"))
        .unwrap()
        .flatten();
    let most = blobs
        .map(|blob| blob.metadata().unwrap().len())
        .max()
        .unwrap_or(0);
    assert!(most <= size, "{most} bytes were kept");
    depot.has_nothing();
}

/// What can't be an image is refused in words.
#[test]
fn what_is_no_image() {
    let depot = Depot::new();
    let registry = &depot.registry;
    let layer = layers()[0].clone();
    let (blob, size) = (registry.blob(&layer), layer.len());
    let config = configuration(std::slice::from_ref(&blob), &json!({}));
    let config_blob = registry.blob(&config);
    let sound = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config_blob, "size": config.len()},
        "layers": [{"mediaType": LAYER, "digest": blob, "size": size}],
    });
    let with = |pointer: &str, value: Value| {
        let mut changed = sound.clone();
        match changed.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => changed[pointer.trim_start_matches('/')] = value,
        }
        changed
    };
    let configured = |text: Value| {
        let bytes = serde_json::to_vec(&text).unwrap();
        let named =
            json!({"mediaType": CONFIG, "digest": registry.blob(&bytes), "size": bytes.len()});
        with("/config", named)
    };
    let mut foreign = with(
        "/layers/0/mediaType",
        json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    );
    foreign["layers"][0]["urls"] = json!(["https://elsewhere.invalid/layer"]);
    let windows = json!({"architecture": "amd64", "os": "windows", "config": {}, "rootfs": {"type": "layers", "diff_ids": [blob]}});
    let unknown = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": digest(b"x"), "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}},
        {"mediaType": MANIFEST, "digest": digest(b"y"), "size": 1},
    ]});
    for (what, manifest, words) in [
        (
            "schema 1",
            json!({"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [], "history": []}),
            "schema 1",
        ),
        (
            "both",
            with("/manifests", json!([])),
            "an image and an index at once",
        ),
        (
            "neither",
            json!({"schemaVersion": 2}),
            "neither which layers it has nor which images",
        ),
        (
            "another type",
            with("/mediaType", json!("application/vnd.example+json")),
            "it is no image, but",
        ),
        (
            "an artifact",
            with(
                "/config/mediaType",
                json!("application/vnd.cncf.helm.config.v1+json"),
            ),
            "an artifact of the type application/vnd.cncf.helm",
        ),
        (
            "an artifact of another form",
            with("/artifactType", json!("application/x-thing")),
            "an artifact of the type application/x-thing",
        ),
        (
            "an encrypted layer",
            with(
                "/layers/0/mediaType",
                json!("application/vnd.oci.image.layer.v1.tar+encrypted"),
            ),
            "isn't unpacked here",
        ),
        ("a foreign layer", foreign, "it is somewhere else"),
        (
            "a digest that we don't compare",
            with(
                "/layers/0/digest",
                json!(format!("sha512:{}", "0".repeat(128))),
            ),
            "is no digest",
        ),
        (
            "no layer",
            with("/layers", json!([])),
            "0 layers, and its configuration 1",
        ),
        (
            "another number of layers",
            configured(
                json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}),
            ),
            "1 layers, and its configuration 0",
        ),
        (
            "another layer",
            configured(
                serde_json::from_slice(&configuration(&[digest(b"other")], &json!({}))).unwrap(),
            ),
            "its bytes are not those of its digest",
        ),
        (
            "another system",
            configured(windows),
            "windows/amd64, and containers here run Linux",
        ),
        (
            "no configuration",
            configured(json!([])),
            "its configuration",
        ),
        (
            "a large configuration",
            with("/config/size", json!(1_u64 << 40)),
            "its configuration has",
        ),
        (
            "an index of nothing",
            unknown,
            "none of what its index names is an image",
        ),
        ("a key twice", Value::Null, "duplicate field"),
    ] {
        match &manifest {
            Value::Null => {
                let text = sound
                    .to_string()
                    .replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
                registry.raw_manifest("odd", "1", MANIFEST, text.into_bytes())
            }
            manifest => registry.manifest("odd", "1", manifest),
        };
        let failed = depot.run(&["pull", &registry.image("odd:1")]).code(125);
        assert!(
            failed.errors().contains(words),
            "{what}: {}",
            failed.errors()
        );
        depot.has_nothing();
    }
}

/// An index has an image for each machine. The best that serves is chosen, and nothing that is no image.
#[test]
fn platforms() {
    let depot = Depot::new();
    let registry = &depot.registry;
    let manifest = |word: &str, os: &str, architecture: &str, variant: &str| {
        let layer = archive(&[("etc/platform", EntryType::Regular, word.as_bytes())]);
        let digest = registry.blob(&layer);
        let config = json!({"architecture": architecture, "os": os, "variant": variant,
            "rootfs": {"type": "layers", "diff_ids": [digest]}, "config": {}});
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": registry.blob(&config), "size": config.len()},
            "layers": [{"mediaType": LAYER, "digest": digest, "size": layer.len()}]});
        let digest = registry.manifest("multi", word, &manifest);
        let size = serde_json::to_vec(&manifest).unwrap().len();
        let platform = match variant {
            "" => json!({"os": os, "architecture": architecture}),
            variant => json!({"os": os, "architecture": architecture, "variant": variant}),
        };
        json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
    };
    let mut proof = manifest("proof", "linux", "amd64", "");
    proof["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        proof,
        manifest("windows", "windows", "amd64", ""),
        manifest("v6", "linux", "arm", "v6"),
        manifest("v7", "linux", "arm", "v7"),
        manifest("v5", "linux", "arm", "v5"),
        manifest("v8", "linux", "arm64", "v8"),
        manifest("amd64", "linux", "amd64", ""),
        manifest("amd64v3", "linux", "amd64", "v3"),
    ]});
    let of_index = registry.manifest("multi", "1", &index);
    let name = registry.image("multi:1");
    let chosen = |platform: &[&str]| {
        depot.ok(&[&["pull"], platform, &[&name]].concat());
        let root = &depot.lower(&name)[0];
        fs::read_to_string(root.join("etc/platform")).unwrap()
    };
    let here = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "v8"
    };
    assert_eq!(chosen(&[]), here);
    for (wanted, gets) in [
        ("linux/arm/v7", "v7"),
        ("linux/arm", "v7"),
        ("linux/arm/v6", "v6"),
        ("linux/arm/v5", "v5"),
        ("linux/arm64", "v8"),
        ("linux/arm64/v8", "v8"),
        ("aarch64", "v8"),
        ("linux/amd64", "amd64"),
        ("linux/amd64/v3", "amd64v3"),
        ("linux/amd64/v2", "amd64"),
        ("linux/x86_64", "amd64"),
    ] {
        assert_eq!(chosen(&["--platform", wanted]), gets, "{wanted}");
    }
    depot.fails(
        &["pull", "--platform", "linux/s390x", &name],
        "there is one for windows/amd64, linux/arm/v6",
    );
    depot.fails(&["pull", "--platform", "a/b/c/d", &name], "OS/ARCHITECTURE");
    // The digest is the index's, whatever was chosen.
    let by_digest = registry.image(&format!("multi@{of_index}"));
    depot
        .run(&["pull", &by_digest])
        .success()
        .prints(&format!("Digest: {of_index}\n"));
    let listed = depot.ok(&["images", "--digests", "--no-trunc"]);
    assert!(listed.contains(&of_index), "{listed}");
    // One image for another machine than the one that is asked for.
    depot.fails(
        &[
            "pull",
            "--platform",
            "linux/arm64",
            &registry.image("multi:v6"),
        ],
        "the image is for linux/arm/v6",
    );
    depot.fails(
        &[
            "run",
            "--rm",
            "--pull",
            "never",
            "--platform",
            "linux/riscv64",
            &name,
        ],
        "no such image",
    );
}

/// All tags of a name, which come a page at a time.
#[test]
fn all_tags() {
    let depot = Depot::new();
    for tag in ["1", "2", "latest"] {
        depot.registry.push(
            "many",
            tag,
            &layers(),
            &json!({"Env": [format!("TAG={tag}")]}),
        );
    }
    depot.registry.answer(|asked| {
        let rest = asked.path.strip_prefix("/v2/many/tags/list?n=1000")?;
        Some(match rest {
            "" => Answer::new(200, r#"{"name":"many","tags":["1","2"]}"#)
                .with("Link", "</v2/many/tags/list?n=1000&last=2>; rel=\"next\""),
            _ => Answer::new(200, r#"{"name":"many","tags":["latest"]}"#),
        })
    });
    let name = depot.registry.image("many");
    depot.ok(&["pull", "-a", &name]);
    let listed = depot.ok(&["images", "--format", "{{.Repository}} {{.Tag}}"]);
    let expected = ["1", "2", "latest"]
        .map(|tag| format!("{name} {tag}\n"))
        .concat();
    assert_eq!(listed, expected);
    depot.fails(&["pull", "-a", &format!("{name}:1")], "--all-tags");
    depot.registry.answer(|asked| {
        asked.path.contains("/tags/").then(|| {
            let elsewhere = "<http://127.0.0.2:1/v2/many/tags/list>; rel=\"next\"";
            Answer::new(200, r#"{"tags":["1"]}"#).with("Link", elsewhere)
        })
    });
    depot.fails(&["pull", "-a", &name], "has the rest of its list elsewhere");
}

/// Names that no image can have leave nothing behind, and ask nobody.
#[test]
fn names_that_cannot_be() {
    let depot = Depot::new();
    for name in [
        "",
        "A",
        "a:",
        "a@sha256:1",
        "../a",
        "a/../../b",
        "http://a/b",
        "a b",
        "a\nb",
        "a:\u{7}",
        "-a/b",
        "a?x=y",
    ] {
        for command in ["pull", "run"] {
            let ran = depot.run(&[command, "--", name]).code(125);
            assert!(!ran.errors().contains('\u{7}'), "{ran}");
        }
        depot.run(&["tag", "a", "--", name]).code(125);
    }
    depot.fails(&["pull", "Ubuntu"], "\"Ubuntu\" has capital letters");
    depot.fails(
        &["pull", "https://127.0.0.1/a"],
        "leave out what stands before ://",
    );
    assert!(depot.registry.asked().is_empty());
    depot.has_nothing();
}

/// A registry that isn't there, and one that is something else.
#[test]
fn no_registry() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    let gone = PretendRegistry::start().unwrap().image("app:1");
    depot.fails(&["pull", &gone], "Connection refused");
    depot.fails(
        &["pull", "registry.invalid/app"],
        "the registry registry.invalid",
    );
    depot.registry.answer(|_| Some(Answer::new(404, "<html>")));
    depot.fails(&["pull", &name], "that is no registry of version 2");
    depot.has_nothing();
}

/// login, logout, Docker's file, and a helper that keeps accounts.
#[test]
fn accounts() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    let wanted = "Basic bWU6c2VjcmV0";
    depot.registry.answer(move |asked| {
        (header(asked, "authorization") != wanted).then(|| {
            refusal(401, "UNAUTHORIZED", "who are you?").with("WWW-Authenticate", "Basic realm=x")
        })
    });
    let server = depot.registry.name();
    depot.fails(&["pull", &name], &format!("`login {server}`"));
    let login = |password: &str, words: &[&str]| {
        let mut command = depot.command(
            &[
                &["login", "-u", "me", "--password-stdin"],
                words,
                &[&server],
            ]
            .concat(),
        );
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(password.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let wrong = login("wrong", &[]);
    assert_eq!(wrong.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("who are you?"),
        "{wrong:?}"
    );
    let config = depot.folder.path().join("docker/config.json");
    assert!(!config.exists());
    assert_eq!(login("secret\n", &[]).stdout, b"Login Succeeded\n");
    let noted: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    assert_eq!(noted["auths"][&server]["auth"], "bWU6c2VjcmV0");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(&config).unwrap().permissions().mode() & 0o777,
        0o600
    );
    depot.ok(&["pull", &name]);
    assert_eq!(
        depot.ok(&["logout", &server]),
        format!("Removing login credentials for {server}\n")
    );
    assert_eq!(
        depot.ok(&["logout", &server]),
        format!("Not logged in to {server}\n")
    );
    depot.fails(&["pull", &name], "who are you?");
    depot.fails(&["login", "-u", "me", &server], "there is no terminal");

    // A helper, which is asked for each account and told each.
    let helper = depot.folder.path().join("docker-credential-test");
    let kept = depot.folder.path().join("kept");
    let script = format!(
        "#!/bin/sh\nread -r server\ncase $1 in\nget) cat {0} 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }} ;;\n\
         store) printf '%s' \"$server\" >{0} ;;\nerase) rm {0} ;;\nesac\n",
        kept.display()
    );
    write_program(&helper, script);
    fs::write(
        &config,
        json!({"credHelpers": {&server: "test"}}).to_string(),
    )
    .unwrap();
    let path = format!(
        "{}:{}",
        depot.folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let with_helper =
        |words: &[&str]| crate::stage::dock::ended(depot.command(words).env("PATH", &path));
    with_helper(&["pull", &name])
        .code(125)
        .complains("who are you?");
    with_helper(&["login", "-u", "me", "-p", "secret", &server]).success();
    assert!(
        fs::read_to_string(&kept)
            .unwrap()
            .contains("\"Secret\":\"secret\"")
    );
    with_helper(&["pull", &name]).success();
    assert!(!fs::read_to_string(&config).unwrap().contains("bWU6"));
    with_helper(&["logout", &server]).success();
    assert!(!kept.exists());
    depot.fails(&["pull", &name], "docker-credential-test get");
    fs::write(&config, "{").unwrap();
    depot.fails(&["pull", &name], "config.json");
}

/// A registry with a token of its own for who has logged in by one: OAuth 2.
#[test]
fn an_identity_token() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    fs::create_dir(depot.folder.path().join("docker")).unwrap();
    let accounts = json!({"auths": {depot.registry.name(): {"identitytoken": "refresh me"}}});
    fs::write(
        depot.folder.path().join("docker/config.json"),
        accounts.to_string(),
    )
    .unwrap();
    let server = depot.registry.name();
    depot
        .registry
        .answer(move |asked| match asked.path.as_str() {
            "/token" => {
                let right = asked.method == "POST"
                    && asked.body.contains("grant_type=refresh_token")
                    && asked.body.contains("refresh_token=refresh+me");
                let right = right || asked.body.contains("refresh_token=refresh%20me");
                Some(match right {
                    true => Answer::new(200, r#"{"access_token":"good"}"#),
                    false => refusal(401, "UNAUTHORIZED", &asked.body),
                })
            }
            _ if header(asked, "authorization") == "Bearer good" => None,
            _ => Some(refusal(401, "UNAUTHORIZED", "no").with(
                "WWW-Authenticate",
                &format!(
                    "Bearer realm=\"http://{server}/token\",service=s,scope=\"repository:app:pull\""
                ),
            )),
        });
    depot.ok(&["pull", &name]);
}

/// A gate in a registry: who comes waits until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Waits as a visitor.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        while !state.1 {
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Whether somebody waits.
    fn has_visitors(&self) -> bool {
        self.state.lock().unwrap().0 > 0
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// A pull that is killed goes on the next time where it was. One that is interrupted does, too.
#[test]
fn a_killed_pull_goes_on() {
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let depot = Depot::new();
        let (name, manifest) = depot.push("app");
        let large = layers()[0].clone();
        let of_large = digest(&large);
        let half = large.len() / 2;
        let (of_blob, bytes) = (of_large.clone(), large.clone());
        depot.registry.answer(move |asked| {
            let (length, stalls) = (Some(bytes.len() as u64), true);
            asked.path.ends_with(&of_blob).then(|| Answer {
                length,
                stalls,
                ..Answer::new(200, &bytes[..half])
            })
        });
        let mut child = depot
            .command(&["pull", &name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let part = depot.state.join(format!(
            "registry/blobs/{}.part",
            of_large.replace(':', "-")
        ));
        let kept = || fs::metadata(&part).is_ok_and(|part| part.len() == half as u64);
        eventually(|| kept().then_some(())).expect("half of it comes");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap();
        // What is kept doesn't count yet, and stays also when somebody else tidies up nothing of it.
        assert_eq!(depot.ok(&["images", "-q"]), "");
        assert_eq!(depot.whole("layers"), [""; 0]);
        assert!(kept());
        if signal == Signal::SIGINT {
            // Whoever tidies up takes what a dead pull has left, the layer that it had begun as well.
            depot.ok(&["image", "prune"]);
            for folder in ["blobs", "layers", "leases"] {
                let left = fs::read_dir(depot.state.join("registry").join(folder)).unwrap();
                assert_eq!(left.count(), 0, "{folder}");
            }
            continue;
        }
        depot.registry.answer(|_| None);
        depot.registry.forget();
        depot.ok(&["pull", &name]);
        let asked = depot.registry.asked();
        let of_part = asked
            .iter()
            .find(|asked| asked.path.ends_with(&of_large))
            .unwrap();
        assert_eq!(header(of_part, "range"), format!("bytes={half}-"));
        let root = depot.lower(&name);
        assert_eq!(fs::read(root[1].join("large")).unwrap(), noise(1 << 20));
        assert_eq!(
            manifest["layers"].as_array().unwrap().len(),
            depot.whole("layers").len()
        );
    }
}

/// What was kept may have been changed by a disk, or a hand: all of it is hashed again, and fetched anew.
#[test]
fn what_was_kept_is_hashed_again() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    depot.ok(&["images"]);
    let part = format!(
        "registry/blobs/{}.part",
        digest(&layers()[0]).replace(':', "-")
    );
    fs::write(depot.state.join(&part), vec![7; 1000]).unwrap();
    depot.ok(&["pull", &name]);
    assert_eq!(
        fs::read(depot.lower(&name)[1].join("large")).unwrap(),
        noise(1 << 20)
    );
    assert!(!depot.state.join(&part).exists());
    // Longer than the whole.
    depot.ok(&["rmi", &name]);
    fs::write(depot.state.join(&part), vec![7; 4 << 20]).unwrap();
    depot.ok(&["pull", &name]);
    assert_eq!(
        fs::read(depot.lower(&name)[1].join("large")).unwrap(),
        noise(1 << 20)
    );
}

/// Two pulls of one image at once: what the one fetches, the other finds.
#[test]
fn two_pulls_at_once() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    let gate = Arc::new(Gate::default());
    let at_gate = Arc::clone(&gate);
    let large = digest(&layers()[0]);
    let of_large = large.clone();
    depot.registry.answer(move |asked| {
        if asked.path.ends_with(&of_large) {
            at_gate.pass();
        }
        None
    });
    let begin = || {
        let mut command = depot.command(&["pull", &name]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut pulls = [begin(), begin()];
    eventually(|| gate.has_visitors().then_some(())).expect("one of them fetches");
    // The other has its manifest, and waits for the first; or it will find all there.
    eventually(|| (depot.registry.count("/manifests/") == 2).then_some(())).expect("both ask");
    gate.open();
    for pull in &mut pulls {
        assert!(pull.wait().unwrap().success());
    }
    assert_eq!(depot.registry.count(&large), 1);
    assert_eq!(
        (depot.whole("layers").len(), depot.whole("leases").len()),
        (2, 0)
    );
}

/// Somebody tidies up while an image comes: nothing of that image goes.
#[test]
fn a_pull_beside_a_prune() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    let gate = Arc::new(Gate::default());
    let at_gate = Arc::clone(&gate);
    let large = digest(&layers()[0]);
    depot.registry.answer(move |asked| {
        if asked.path.ends_with(&large) {
            at_gate.pass();
        }
        None
    });
    let mut pull = depot
        .command(&["pull", &name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(|| gate.has_visitors().then_some(())).expect("it fetches");
    let before = depot.whole("blobs");
    assert!(!before.is_empty());
    depot.ok(&["image", "prune", "-a"]);
    let after = depot.whole("blobs");
    assert!(
        before.iter().all(|blob| after.contains(blob)),
        "{before:?} {after:?}"
    );
    gate.open();
    assert!(pull.wait().unwrap().success());
    assert_eq!(depot.lower(&name).len(), 2);
    depot.ok(&["image", "prune"]);
    assert_eq!(
        (depot.whole("layers").len(), depot.whole("blobs").len()),
        (2, 4)
    );
    depot.ok(&["image", "prune", "-a"]);
    depot.has_nothing();
}

/// A full disk: told with its place, and once there is space again the pull goes on.
#[test]
fn a_full_disk() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    mount_apart();
    fs::create_dir(&depot.state).unwrap();
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "small"])
        .arg(&depot.state));
    depot.fails(&["pull", &name], "No space left on device");
    assert_eq!(depot.ok(&["images", "-q"]), "");
    assert_eq!(depot.whole("layers"), [""; 0]);
    run(Command::new("mount")
        .args(["-o", "remount,size=16m"])
        .arg(&depot.state));
    depot.ok(&["pull", &name]);
    assert_eq!(depot.lower(&name).len(), 2);
    depot.ok(&["image", "prune", "-a"]);
    depot.has_nothing();
    run(Command::new("umount").arg(&depot.state));
}

/// A layer that grows: the limit is for what it unpacks to.
#[test]
fn a_layer_that_unpacks_to_too_much() {
    let _attack = tried("");
    let depot = Depot::new();
    let bomb = archive(&[("zeros", EntryType::Regular, &vec![0; 64 << 20])]);
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&bomb).unwrap();
    let packed = packed.finish().unwrap();
    let config = configuration(&[digest(&bomb)], &json!({}));
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": depot.registry.blob(&config), "size": config.len()},
        "layers": [{"mediaType": format!("{LAYER}+gzip"), "digest": depot.registry.blob(&packed), "size": packed.len()}]});
    depot.registry.manifest("bomb", "1", &manifest);
    let name = depot.registry.image("bomb:1");
    depot.fails(&["pull", "--max-size", "1m", &name], "it holds more than");
    depot.has_nothing();
    depot.ok(&["pull", "--max-size", "1g", &name]);
}

/// TLS: a certificate that nobody knows, one that is too old, one for another name, and one that is right.
#[test]
fn certificates() {
    if !have("docker-registry", "docker-registry") || !have("openssl", "openssl") {
        return;
    }
    let depot = Depot::new();
    let at = |name: &str| depot.folder.path().join(name).display().to_string();
    let certificate = |name: &str, subject: &str, days: &str| {
        run(Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args([
                "-keyout",
                &at(&format!("{name}.key")),
                "-out",
                &at(&format!("{name}.crt")),
            ])
            .args([
                "-subj",
                "/CN=test",
                "-addext",
                &format!("subjectAltName={subject}"),
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-days",
                days,
            ]));
    };
    certificate("good", "IP:127.0.0.1,DNS:localhost", "2");
    certificate("elsewhere", "DNS:elsewhere.invalid", "2");
    // One that has ended: its whole life lies in the past.
    let past = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout old.key -subj /CN=test \
        -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE -out old.csr && mkdir ca && touch ca/index && echo 01 >ca/serial && \
        printf '[ca]\\ndefault_ca=d\\n[d]\\ndir=ca\\ndatabase=ca/index\\nserial=ca/serial\\nnew_certs_dir=ca\\ndefault_md=sha256\\n\
        policy=p\\ncopy_extensions=copy\\n[p]\\ncommonName=supplied\\n' >ca.conf && openssl ca -batch -config ca.conf -selfsign \
        -keyfile old.key -in old.csr -out old.crt -startdate 20200101000000Z -enddate 20200102000000Z";
    run(Command::new("sh")
        .args(["-c", past])
        .current_dir(depot.folder.path()));
    for (certificate, words) in [
        ("good", ""),
        ("elsewhere", "certificate"),
        ("old", "certificate"),
    ] {
        let server = crate::steps::registries::RealRegistry::start(Some(
            depot.folder.path().join(certificate),
        ));
        let name = server.image("nothing:1");
        let pull = |flags: &[&str], trusted: bool| {
            let mut command = depot.command(&[&["pull"], flags, &[&name]].concat());
            if trusted {
                command.env("SSL_CERT_FILE", at(&format!("{certificate}.crt")));
            }
            crate::stage::dock::ended(&mut command).code(125).errors()
        };
        let missing = "no such image, or none with this tag";
        let unknown = pull(&[], false);
        assert!(
            unknown.contains("certificate") && unknown.contains("/etc/docker/certs.d/127.0.0.1:"),
            "{unknown}"
        );
        let trusted = pull(&[], true);
        match words {
            "" => assert!(trusted.contains(missing), "{trusted}"),
            words => assert!(
                trusted.contains(words) && trusted.contains("help: "),
                "{trusted}"
            ),
        }
        let unproved = pull(&["--tls-verify=false"], false);
        assert!(unproved.contains(missing), "{unproved}");
    }
}

/// Plain HTTP is for this machine alone, unless somebody says that no proof is wanted.
#[test]
fn plain_http_is_for_loopback() {
    if !have("ip", "iproute2") {
        return;
    }
    // This thread has a network of its own, and so has what it starts.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for words in [
        &["link", "set", "lo", "up"][..],
        &["addr", "add", "192.0.2.1/32", "dev", "lo"],
    ] {
        run(Command::new("ip").args(words));
    }
    let depot = Depot::new();
    let far = PretendRegistry::at("192.0.2.1").unwrap();
    far.push("app", "1", &layers(), &json!({}));
    let name = far.image("app:1");
    let failed = depot.run(&["pull", &name]).code(125);
    assert_eq!(far.count("/"), 0, "nothing is asked plainly: {failed}");
    depot.has_nothing();
    depot.ok(&["pull", "--tls-verify=false", &name]);
    // Here it is allowed.
    let (name, _) = depot.push("app");
    depot.ok(&["pull", &name]);
}

/// A proxy that the environment names isn't told what is for this machine alone.
#[test]
fn a_proxy_is_not_for_loopback() {
    let _attack = tried("");
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    let proxy = PretendRegistry::start().unwrap();
    let address = format!("http://{}", proxy.name());
    let mut pull = depot.command(&["pull", &name]);
    for variable in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
    ] {
        pull.env(variable, &address);
    }
    crate::stage::dock::ended(&mut pull).success();
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
}

/// What an image's maker writes reaches no terminal as it is, and breaks no list.
#[test]
fn words_of_an_image() {
    let _attack = tried("");
    let depot = Depot::new();
    let layer = layers()[1].clone();
    let blob = depot.registry.blob(&layer);
    let hostile = "\u{1b}]0;pwned\u{7}";
    for (tag, created) in [
        ("old", "1970-01-01T00:00:00+01:00"),
        ("new", "9999-12-31T23:59:59-01:00"),
        ("odd", hostile),
    ] {
        let config = json!({
            "architecture": hostile, "os": "linux", "created": created, "author": hostile,
            "config": {"Labels": {hostile: hostile}}, "rootfs": {"type": "layers", "diff_ids": [blob]},
            "history": [{"created": created, "created_by": hostile, "comment": hostile}],
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": depot.registry.blob(&config), "size": config.len()},
            "layers": [{"mediaType": LAYER, "digest": blob, "size": layer.len()}]});
        depot.registry.manifest("words", tag, &manifest);
        let name = depot.registry.image(&format!("words:{tag}"));
        let pulled = depot.run(&["pull", &name]).success();
        assert!(
            !pulled.errors().contains('\u{1b}') && pulled.errors().contains("pwned"),
            "{pulled}"
        );
        for words in [
            &["history", &name][..],
            &["image", "inspect", &name],
            &["images"],
        ] {
            let printed = depot.ok(words);
            assert!(
                !printed.contains('\u{1b}') && !printed.contains('\u{7}'),
                "{printed}"
            );
        }
    }
    assert_eq!(depot.ok(&["images"]).matches("N/A").count(), 3);
}

/// What is larger than it may be isn't even asked for; and files that a layer brings up from below count.
#[test]
fn what_counts_towards_the_limit() {
    let _attack = tried("");
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    let failed = depot.fails(
        &["pull", "--max-size", "100k", &name],
        "may unpack to 102400",
    );
    let layer = digest(&layers()[0]);
    assert_eq!(depot.registry.count(&layer), 0, "{failed}");
    let large = noise(1 << 20);
    let below = |name: &'static str| archive(&[(name, EntryType::Regular, &large)]);
    let links = archive(&[
        ("x", EntryType::Link, b"a"),
        ("y", EntryType::Link, b"b"),
        ("z", EntryType::Link, b"c"),
    ]);
    depot.registry.push(
        "links",
        "1",
        &[below("a"), below("b"), below("c"), links],
        &json!({}),
    );
    let name = depot.registry.image("links:1");
    depot.fails(
        &["pull", "--max-size", "2m", &name],
        "makes the layer larger than it may be",
    );
    depot.ok(&["pull", "--max-size", "4m", &name]);
    let size = depot.ok(&["image", "inspect", "-f", "{{.Size}}", &name]);
    assert!(size.trim().parse::<u64>().unwrap() > 6 << 20, "{size}");
    // More layers than can be mounted; and many.
    let layers: Vec<_> = (0..500)
        .map(|number| archive(&[("number", EntryType::Regular, format!("{number}").as_bytes())]))
        .collect();
    depot.registry.push("many", "500", &layers, &json!({}));
    depot
        .registry
        .push("many", "200", &layers[300..], &json!({}));
    depot.fails(
        &["pull", &depot.registry.image("many:500")],
        "it has 500 layers, and may have 499",
    );
    let name = depot.registry.image("many:200");
    depot.ok(&["pull", "-q", &name]);
    assert_eq!(depot.lower(&name).len(), 200);
}

/// Connections that are cut where one doesn't think of it: at the first word, in a manifest, in what is passed over.
#[test]
fn cuts_in_odd_places() {
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    let large = layers()[0].clone();
    let of_large = digest(&large);
    let turns: Mutex<std::collections::HashMap<String, usize>> = Mutex::default();
    depot.registry.answer(move |asked| {
        let mut turns = turns.lock().unwrap();
        let turn = turns.entry(asked.path.clone()).or_default();
        *turn += 1;
        let cut = |bytes: &[u8], at: usize| {
            let length = Some(bytes.len() as u64);
            Answer {
                length,
                ..Answer::new(200, &bytes[..at])
            }
        };
        match (*turn, &asked.path) {
            (1, path) if path.contains("/manifests/") => Some(cut(&[b' '; 1000], 10)),
            (1, path) if path.ends_with(&of_large) => Some(cut(&large, large.len() / 2)),
            // All of it once more, cut before what is new.
            (2, path) if path.ends_with(&of_large) => Some(cut(&large, large.len() / 4)),
            _ => None,
        }
    });
    depot.ok(&["pull", &name]);
    assert_eq!(
        fs::read(depot.lower(&name)[1].join("large")).unwrap(),
        noise(1 << 20)
    );
}

/// Several who tidy up at once, beside pulls: all succeed.
#[test]
fn many_prunes_at_once() {
    let depot = Depot::new();
    let names: Vec<String> = (0..3)
        .map(|number| {
            let path = format!("app{number}");
            depot.registry.push(
                &path,
                "1",
                &layers(),
                &json!({"Env": [format!("A={number}")]}),
            );
            depot.registry.image(&format!("{path}:1"))
        })
        .collect();
    std::thread::scope(|scope| {
        for name in &names {
            let depot = &depot;
            scope.spawn(move || {
                for _ in 0..6 {
                    depot.ok(&["pull", "-q", name]);
                    depot.ok(&["image", "prune", "-a"]);
                }
            });
        }
    });
    depot.ok(&["image", "prune", "-a"]);
    depot.has_nothing();
    let left = fs::read_dir(depot.state.join("registry/layers"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

/// A registry on this machine doesn't send us to another one that speaks plainly.
#[test]
fn no_plain_way_out_of_loopback() {
    let _attack = tried("");
    let depot = Depot::new();
    let (name, _) = depot.push("app");
    depot.registry.answer(|asked| {
        asked
            .path
            .contains("/manifests/")
            .then(|| Answer::new(307, "").with("Location", "http://192.0.2.2/v2/app/manifests/1"))
    });
    depot.fails(
        &["pull", &name],
        "where everybody on the way can listen and change what comes",
    );
    depot.has_nothing();
}
