//! Chapter 11: images from a registry.

use crate::course::Exercise;
use crate::course::workbench::Workbench;
use crate::host::container::{RunOutcome, run_with};
use crate::host::registry::{Answer, Asked, PretendRegistry, archive, digest, refusal};
use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use nix::sys::resource::{Resource, setrlimit};
use probe::Claim;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tar::{Builder, EntryType, Header};

/// The exercises of chapter 11.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "challenges",
        heart: "a comma stands between two things of two kinds",
        check: challenges,
        scenes: &[],
        mistakes: &[],
        read: "RFC 9110, section 11.6.1",
        show: "curl -sI https://registry-1.docker.io/v2/ | grep -i www-authenticate",
        hints: [
            "Behind a comma comes a word. What has to stand behind that word when it is a parameter, and what when \
             it is a scheme? And what moves you on when there is no word at all?",
            "Loop: pass over blanks and commas; take the word up to a blank, ',', '=' or '\"'. With '=' behind it and a \
             challenge before it: value() reads on, push a parameter. With a word and no '=': push a challenge. Else \
             pass over one character. All names to_lowercase().",
        ],
    },
    Exercise {
        name: "read",
        heart: "nothing counts before the end",
        check: read,
        scenes: &[],
        mistakes: &[],
        read: "the documentation of std::io::Read, sha256sum(1)",
        show: "sha256sum /var/lib/ten-steps/registry/blobs/*",
        hints: [
            "When do you know that there are too many bytes, when that there are too few, and when that they are \
             others? Which of these can't wait for the end?",
            "read of inner; update the hash with buffer[..read], add to seen. seen > size: mismatch. read > 0 or no room \
             in buffer: that's all. At the end seen < size: mismatch; Digest::finish(hash.clone()) != digest: mismatch.",
        ],
    },
];

/// The program with a state folder of its own, and a registry to pull from.
pub struct Puller<'a> {
    bench: &'a Workbench,
    /// The registry.
    pub registry: PretendRegistry,
    folder: PathBuf,
}

/// The most memory of a program that reads what strangers send.
const MEMORY: u64 = 4 << 30;

/// An account of the registry, as a file of accounts has it.
const ACCOUNT: &str = "bWU6c2VjcmV0";

impl Puller<'_> {
    /// One whose state folder is called `name`.
    ///
    /// # Errors
    /// There is no loopback.
    pub fn new<'a>(bench: &'a Workbench, name: &str) -> Result<Puller<'a>> {
        let folder = bench.scratch.join(name);
        fs::create_dir_all(folder.join("docker"))?;
        Ok(Puller {
            bench,
            registry: PretendRegistry::start()?,
            folder,
        })
    }

    /// Runs a subcommand.
    ///
    /// # Errors
    /// It hangs.
    pub fn run(&self, arguments: &[&str]) -> Result<RunOutcome> {
        let mut command = Command::new(&self.bench.program);
        command.args(arguments);
        command.env("TEN_STEPS_STATE", self.folder.join("state"));
        // Nobody's accounts, and nobody's detours.
        command.env("DOCKER_CONFIG", self.folder.join("docker"));
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy).env_remove(proxy.to_lowercase());
        }
        // SAFETY: setrlimit is async-signal-safe.
        unsafe { command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?)) };
        run_with(&mut command)
    }

    /// Pulls the image `path` of the registry.
    ///
    /// # Errors
    /// The program hangs.
    pub fn pull(&self, path: &str) -> Result<RunOutcome> {
        self.run(&["pull", "--quiet", &self.registry.image(path)])
    }

    /// The same; a program that hangs has its end, too.
    fn pulled(&self, path: &str) -> Pulled {
        match self.pull(path) {
            Ok(outcome) => Pulled {
                code: Some(outcome.code),
                words: match outcome.code {
                    FAILED => "it ended with exit code 125".into(),
                    _ => outcome
                        .in_words()
                        .replace(&self.registry.name(), "REGISTRY"),
                },
            },
            Err(hang) => Pulled {
                code: None,
                words: format!("{hang:#}"),
            },
        }
    }

    /// Where a folder of the program's images is.
    fn place(&self, name: &str) -> PathBuf {
        self.folder.join("state/registry").join(name)
    }

    /// Where the topmost of the layers is unpacked whose archives have these digests.
    fn layer(&self, diff_ids: &[String]) -> PathBuf {
        let (lowest, others) = diff_ids.split_first().expect("a layer");
        let chain_id = others.iter().fold(lowest.clone(), |below, diff_id| {
            digest(format!("{below} {diff_id}").as_bytes())
        });
        self.place("layers")
            .join(chain_id.replace(':', "-"))
            .join("root")
    }

    /// What is left of an image that isn't one: the words for it, or `nothing`.
    pub fn left(&self, path: &str) -> String {
        let mut left = BTreeSet::new();
        if entries(&self.place("layers"))
            .iter()
            .any(|name| !name.starts_with('.'))
        {
            left.insert("a layer");
        }
        let names = fs::read_to_string(self.place("names.json")).unwrap_or_default();
        if names.contains(&self.registry.image(path)) {
            left.insert("its name");
        }
        for name in entries(&self.place("blobs")) {
            let bytes = fs::read(self.place("blobs").join(&name)).unwrap_or_default();
            if name.ends_with(".part") {
                left.insert("a part of a blob");
            } else if digest(&bytes).replace(':', "-") != name {
                left.insert("a blob that hasn't the digest in its name");
            }
        }
        match left.is_empty() {
            true => "nothing".into(),
            false => Vec::from_iter(left).join(", "),
        }
    }
}

/// What became of a pull.
struct Pulled {
    /// The exit code; none of a program that hangs.
    code: Option<u8>,
    /// How it ended.
    words: String,
}

/// The exit code of a program that has failed by itself.
pub const FAILED: u8 = 125;

/// The names in a folder, which need not be there.
fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// An archive with one file, `srv/file`.
fn one_file(content: &[u8]) -> Vec<u8> {
    archive(&[
        ("srv/", EntryType::Directory, b""),
        ("srv/file", EntryType::Regular, content),
    ])
}

/// What a registry wants, and what has to come of it.
struct Wish {
    /// What is special about it.
    what: &'static str,
    /// The headers WWW-Authenticate; `REALM` is where tokens are to be had.
    headers: &'static [&'static str],
    /// What has to stand behind the question mark when the token is asked for; `PATH` is the image's path.
    query: &'static str,
    /// What is wrong otherwise.
    why: &'static str,
}

const WISHES: &[Wish] = &[
    Wish {
        what: "a challenge as most registries send it",
        headers: &[r#"Bearer realm="REALM",service="Registry""#],
        query: "service=Registry&scope=repository:PATH:pull",
        why: "scheme and names are wanted in small letters, and each value as value() reads it",
    },
    Wish {
        what: "a challenge whose value has a comma in quotes",
        headers: &[r#"Bearer realm="REALM",service="a, b",scope="repository:PATH:pull,push""#],
        query: "service=a,%20b&scope=repository:PATH:pull,push",
        why: "a comma in quotes belongs to the value",
    },
    Wish {
        what: "a challenge in capital letters",
        headers: &[r#"BEARER Realm="REALM",SERVICE="Loud""#],
        query: "service=Loud&scope=repository:PATH:pull",
        why: "schemes and the names of parameters are the same in capital letters, and values aren't",
    },
    Wish {
        what: "a challenge with blanks around = and before commas",
        headers: &["Bearer  realm = \"REALM\" ,\tservice\t=\tblank"],
        query: "service=blank&scope=repository:PATH:pull",
        why: "blanks may stand around = and around a comma",
    },
    Wish {
        what: "a challenge without quotes",
        headers: &["Bearer realm=REALM,service=plain"],
        query: "service=plain&scope=repository:PATH:pull",
        why: "a value may be without quotes, and ends at a comma or a blank then",
    },
    Wish {
        what: "a challenge with a backslash in quotes",
        headers: &[r#"Bearer realm="REALM",service="a \"b\" \\, c""#],
        query: "service=a%20%22b%22%20%5C,%20c&scope=repository:PATH:pull",
        why: "in quotes a backslash takes away the meaning of what follows it",
    },
    Wish {
        what: "two challenges in one header",
        headers: &[r#"Basic realm="here, there", service="other", Bearer realm="REALM""#],
        query: "scope=repository:PATH:pull",
        why: "behind a comma a word without = is the scheme of a new challenge, which has parameters of its own",
    },
    Wish {
        what: "a challenge without parameters before another",
        headers: &[r#"Negotiate, Bearer realm="REALM",service="s""#],
        query: "service=s&scope=repository:PATH:pull",
        why: "a challenge may have no parameters",
    },
    Wish {
        what: "a challenge with another behind it",
        headers: &[r#"Bearer realm="REALM",service="s", Basic realm="here""#],
        query: "service=s&scope=repository:PATH:pull",
        why: "the parameters of the second challenge aren't those of the first",
    },
    Wish {
        what: "two challenges in two headers",
        headers: &[r#"Basic realm="here""#, r#"Bearer realm="REALM",service=s"#],
        query: "service=s&scope=repository:PATH:pull",
        why: "each header has challenges",
    },
    Wish {
        what: "two challenges of one scheme",
        headers: &[r#"Bearer realm="REALM",service=first, Bearer realm="REALM",service=second"#],
        query: "service=first&scope=repository:PATH:pull",
        why: "the challenges are in the order of the header",
    },
    Wish {
        what: "what is no challenge, and one behind it",
        headers: &[r#", =,, = , Bearer realm="REALM",service=s"#],
        query: "service=s&scope=repository:PATH:pull",
        why: "what is no challenge at all is passed over, and what comes behind it counts",
    },
];

/// What is no challenge, or half of one.
const GARBAGE: &[&str] = &[
    "=",
    "====",
    "\"",
    ",,,",
    "= \"",
    "realm=\"x\"",
    "Bearer",
    "Bearer realm",
    "Bearer =",
    "Bearer = , =\"",
    "Bearer realm=",
    "Bearer realm=\"",
    "Bearer realm=\"\\",
];

const TOKEN: &str = "token-4711";

/// 11.1: the registry is asked for the token that its challenge names, and gives the image for that token.
pub fn challenges(bench: &Workbench) -> Result<Vec<Claim>> {
    let puller = Puller::new(bench, "challenges")?;
    let realm = format!("http://{}/token", puller.registry.name());
    let mut claims = Vec::new();
    for (number, wish) in WISHES.iter().enumerate() {
        let path = format!("box/{number}");
        let fill = |text: &str| text.replace("REALM", &realm).replace("PATH", &path);
        let layer = one_file(path.as_bytes());
        puller
            .registry
            .push(&path, "latest", from_ref(&layer), &json!({}));
        let headers = wish.headers.iter().map(|header| fill(header)).collect();
        guard(&puller.registry, headers, format!("Bearer {TOKEN}"));
        let pulled = puller.pulled(&path);
        let asked = puller.registry.asked().into_iter();
        let asked: Vec<String> = asked
            .filter_map(|asked| Some(asked.path.strip_prefix("/token?")?.to_owned()))
            .collect();
        let is_there = puller.layer(&[digest(&layer)]).join("srv/file").exists();
        let wanted = fill(wish.query);
        claims.push(
            Claim::new(
                format!(
                    "{}: the token is asked for by ?{wanted}, and the image comes",
                    wish.what
                ),
                match &*asked {
                    [] => format!("no token was asked for; {}", pulled.words),
                    asked if is_there => format!("asked for was ?{}", asked.join(" and ?")),
                    asked => format!("asked for was ?{}; {}", asked.join(" and ?"), pulled.words),
                },
                asked == [wanted] && is_there,
            )
            .because(Some(wish.why.into())),
        );
        puller.registry.forget();
        // Who can't do the simplest is told of that alone, and one that hangs is enough.
        if (number == 0 && !is_there) || pulled.code.is_none() {
            return Ok(claims);
        }
    }
    claims.push(by_account(bench)?);

    let mut ends = BTreeSet::new();
    puller
        .registry
        .push("garbage", "latest", &[one_file(b"")], &json!({}));
    for header in GARBAGE {
        guard(&puller.registry, vec![(*header).into()], String::new());
        let pulled = puller.pulled("garbage");
        if pulled.code != Some(FAILED) {
            ends.insert(format!("{header}: {}", pulled.words));
        }
        // One that hangs is enough.
        if pulled.code.is_none() {
            break;
        }
    }
    claims.push(
        Claim::new(
            "what is no challenge, or half of one, ends in a plain error, with exit code 125",
            match ends.is_empty() {
                true => "exit code 125, each time".into(),
                false => Vec::from_iter(ends.clone()).join("\n"),
            },
            ends.is_empty(),
        )
        .because(Some(
            "a header is a stranger's text: whatever stands there, each turn of the loop has to take some of it away"
                .into(),
        )),
    );
    Ok(claims)
}

/// Has the registry send whoever comes without this header Authorization away, with a challenge.
fn guard(registry: &PretendRegistry, challenges: Vec<String>, authorization: String) {
    registry.answer(move |asked| {
        if asked.path.starts_with("/token?") {
            return Some(Answer::new(200, json!({"token": TOKEN}).to_string()));
        }
        if asked.headers.get("authorization") == Some(&authorization) {
            return None;
        }
        let refused = refusal(401, "UNAUTHORIZED", "authentication required");
        let all = challenges.iter();
        Some(all.fold(refused, |answer, header| {
            answer.with("WWW-Authenticate", header)
        }))
    });
}

/// A name and a password are shown where the registry wants these.
fn by_account(bench: &Workbench) -> Result<Claim> {
    let puller = Puller::new(bench, "account")?;
    let accounts = json!({"auths": {puller.registry.name(): {"auth": ACCOUNT}}});
    fs::write(
        puller.folder.join("docker/config.json"),
        accounts.to_string(),
    )?;
    let layer = one_file(b"");
    puller
        .registry
        .push("box", "latest", from_ref(&layer), &json!({}));
    let header = "bAsIc realm=\"a, b\", charset=UTF-8".to_owned();
    guard(&puller.registry, vec![header], format!("Basic {ACCOUNT}"));
    let pulled = puller.pulled("box");
    let is_there = puller.layer(&[digest(&layer)]).exists();
    Ok(Claim::new(
        "a registry that wants a name and a password gets those of its account, and gives the image",
        match is_there {
            true => "the layer is in state/registry/layers".into(),
            false => format!("there is no layer; {}", pulled.words),
        },
        is_there,
    )
    .because(Some("the scheme is basic, however it is written".into())))
}

/// A layer's file, too long for one piece, and without a pattern that repeats with the pieces.
fn content() -> Vec<u8> {
    (0..600 * 1024_u32)
        .map(|at| (at / 251 + at) as u8)
        .collect()
}

/// A way to get other bytes than were promised: what it is, what is wrong with a program that takes them, and what makes
/// it, which returns what to pull.
type Lie = (
    &'static str,
    &'static str,
    fn(&PretendRegistry) -> Result<String>,
);

const LIES: &[Lie] = &[
    (
        "a layer of other bytes and of the same size",
        OTHERS,
        |registry| {
            let (_, layer) = push(registry);
            let mut other = content();
            other[300_000] ^= 1;
            registry.swap(&digest(&layer), &one_file(&other));
            Ok("box".into())
        },
    ),
    (
        "a layer that unpacks to the right archive, from other bytes",
        OTHERS,
        |registry| {
            let (mut manifest, layer) = push(registry);
            let (right, wrong) = (gzip(&layer, 1)?, gzip(&layer, 2)?);
            manifest["layers"][0] = json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": registry.blob(&right),
                "size": right.len(),
            });
            registry.swap(&digest(&right), &wrong);
            registry.manifest("box", "latest", &manifest);
            Ok("box".into())
        },
    ),
    (
        "a layer that unpacks to another archive than the configuration names",
        OTHERS,
        |registry| {
            let (mut manifest, _) = push(registry);
            let mut other = content();
            other[300_000] ^= 1;
            let other = one_file(&other);
            manifest["layers"][0]["digest"] = registry.blob(&other).into();
            registry.manifest("box", "latest", &manifest);
            Ok("box".into())
        },
    ),
    (
        "a configuration of other bytes and of the same size",
        OTHERS,
        |registry| {
            let (manifest, config) = (push(registry).0, config());
            let wrong = String::from_utf8(config)?.replace("2024", "2023");
            let digest = manifest["config"]["digest"].as_str().context("a digest")?;
            registry.swap(digest, wrong.as_bytes());
            Ok("box".into())
        },
    ),
    (
        "another manifest than that of the digest that was typed",
        OTHERS,
        |registry| {
            let right = digest(&serde_json::to_vec(&push(registry).0)?);
            let other = one_file(b"other");
            let other = registry.push("other", "latest", &[other], &json!({}));
            let text = serde_json::to_vec(&other)?;
            registry.answer(move |asked| {
                let is_manifest = asked.path.contains("/manifests/sha256:");
                let kind = "application/vnd.oci.image.manifest.v1+json";
                is_manifest.then(|| Answer::new(200, text.clone()).with("Content-Type", kind))
            });
            Ok(format!("box@{right}"))
        },
    ),
    ("a configuration that is cut off", FEWER, |registry| {
        let (manifest, config) = (push(registry).0, config());
        let digest = manifest["config"]["digest"].as_str().context("a digest")?;
        registry.swap(digest, &config[..config.len() - 1]);
        Ok("box".into())
    }),
    (
        "a configuration with fewer bytes than its size says, and the right digest",
        FEWER,
        |registry| {
            let (mut manifest, config) = (push(registry).0, config());
            manifest["config"]["size"] = (config.len() + 1).into();
            registry.manifest("box", "latest", &manifest);
            Ok("box".into())
        },
    ),
    (
        "a layer with more bytes than its size says, and the right digest",
        MORE,
        |registry| {
            let (mut manifest, layer) = push(registry);
            manifest["layers"][0]["size"] = (layer.len() - 1).into();
            registry.manifest("box", "latest", &manifest);
            Ok("box".into())
        },
    ),
    (
        "a layer with some bytes more than was promised",
        MORE,
        |registry| {
            let (_, layer) = push(registry);
            let longer = [&layer[..], &[0; 512]].concat();
            registry.swap(&digest(&layer), &longer);
            Ok("box".into())
        },
    ),
];

const OTHERS: &str =
    "bytes of another digest are no use, however many they are: at the end the digest decides";
const FEWER: &str = "a stream that ends before its size isn't whole, whatever its digest is";
const MORE: &str =
    "a stream with more bytes than its size isn't what was promised, whatever its digest is";

/// 11.2: what has the right bytes is kept, and of anything else nothing.
pub fn read(bench: &Workbench) -> Result<Vec<Claim>> {
    let mut claims = vec![right_bytes(bench)?];
    if !claims[0].holds {
        return Ok(claims);
    }
    for (number, (what, why, lie)) in LIES.iter().enumerate() {
        let puller = Puller::new(bench, &format!("read-{number}"))?;
        let pulled = puller.pulled(&lie(&puller.registry)?);
        let left = puller.left("box");
        claims.push(
            Claim::new(
                format!("{what}: the pull fails, with exit code 125, and keeps nothing"),
                format!("{}; kept in state/registry: {left}", pulled.words),
                pulled.code == Some(FAILED) && left == "nothing",
            )
            .because(Some((*why).into())),
        );
    }
    claims.push(endless(bench)?);
    claims.extend(cut_off(bench)?);
    Ok(claims)
}

/// Puts an image of one layer there: its manifest, and the layer's archive.
fn push(registry: &PretendRegistry) -> (Value, Vec<u8>) {
    let layer = one_file(&content());
    let manifest = registry.push("box", "latest", from_ref(&layer), &json!({}));
    (manifest, layer)
}

/// That image's configuration.
fn config() -> Vec<u8> {
    let diff_id = digest(&one_file(&content()));
    crate::host::registry::configuration(&[diff_id], &json!({}))
}

/// The archive compressed, with a time in the header that says nothing.
fn gzip(archive: &[u8], time: u32) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new()
        .mtime(time)
        .write(Vec::new(), Compression::fast());
    writer.write_all(archive)?;
    Ok(writer.finish()?)
}

fn right_bytes(bench: &Workbench) -> Result<Claim> {
    let puller = Puller::new(bench, "read-right")?;
    let (_, layer) = push(&puller.registry);
    let pulled = puller.pulled("box");
    let unpacked = puller.layer(&[digest(&layer)]).join("srv/file");
    let has_file = fs::read(unpacked).is_ok_and(|bytes| bytes == content());
    let left = puller.left("box");
    Ok(Claim::new(
        "the right bytes: the pull succeeds, and the layer has its file, byte by byte",
        format!(
            "{}; the layer's file is {}; kept in state/registry: {left}",
            pulled.words,
            if has_file { "the right one" } else { "not there, or another" },
        ),
        pulled.code == Some(0) && has_file && left == "a layer, its name",
    )
    .because(Some(
        "all bytes that come are to be hashed, once, in their order, and no others: a buffer may be longer than what \
         was read into it"
            .into(),
    )))
}

/// How far an endless layer goes that isn't endless.
const ENDLESS: u64 = 64 << 20;

fn endless(bench: &Workbench) -> Result<Claim> {
    let puller = Puller::new(bench, "read-endless")?;
    let (_, layer) = push(&puller.registry);
    let taken = Arc::new(AtomicU64::new(0));
    let (blob, counter) = (format!("/blobs/{}", digest(&layer)), Arc::clone(&taken));
    let mut body = vec![0; ENDLESS as usize];
    body[..layer.len()].copy_from_slice(&layer);
    puller.registry.answer(move |asked| {
        asked.path.contains(&blob).then(|| Answer {
            taken: Arc::clone(&counter),
            ..Answer::new(200, body.clone())
        })
    });
    let pulled = puller.pulled("box");
    let (left, taken) = (puller.left("box"), taken.load(Ordering::Relaxed));
    // What the kernel holds for a reader who doesn't read is far less than this.
    let at_once = 0 < taken && taken < ENDLESS / 2;
    Ok(Claim::new(
        "a layer that goes on and on behind its size: the pull fails at once, with exit code 125, and keeps nothing",
        format!(
            "{}; of {} MiB the registry could send {}; kept in state/registry: {left}",
            pulled.words,
            ENDLESS >> 20,
            match taken {
                0 => "nothing",
                _ if at_once => "a small part",
                _ => "more than half",
            },
        ),
        pulled.code == Some(FAILED) && at_once && left == "nothing",
    )
    .because(Some(
        "that there are too many bytes is known with the first of them: a stream may never end".into(),
    )))
}

/// A connection that fails is no wrong blob: what has come is good, and the next pull goes on behind it.
fn cut_off(bench: &Workbench) -> Result<Vec<Claim>> {
    let puller = Puller::new(bench, "read-cut-off")?;
    let (_, layer) = push(&puller.registry);
    let name = digest(&layer);
    let (blob, half) = (format!("/blobs/{name}"), layer[..layer.len() / 2].to_vec());
    let (length, asked_before) = (layer.len() as u64, AtomicUsize::new(0));
    puller.registry.answer(move |asked| {
        let is_first = asked
            .path
            .contains(&blob)
            .then(|| asked_before.fetch_add(1, Ordering::Relaxed) == 0)?;
        Some(match is_first {
            true => Answer {
                length: Some(length),
                ..Answer::new(200, half.clone())
            },
            false => refusal(403, "DENIED", "not any more"),
        })
    });
    let pulled = puller.pulled("box");
    let part = puller.place("blobs").join(name.replace(':', "-") + ".part");
    let part = fs::read(part).unwrap_or_default();
    let is_good = !part.is_empty() && layer.starts_with(&part);
    let why =
        "an error of the source isn't a mismatch: it says nothing against the bytes that have come";
    let mut claims = vec![
        Claim::new(
            "a connection that is cut off, and then refused: the pull fails, with exit code 125, and keeps what has come",
            format!(
                "{}; in state/registry/blobs is {}",
                pulled.words,
                if is_good { "the beginning of the layer" } else { "no beginning of the layer" }
            ),
            pulled.code == Some(FAILED) && is_good,
        )
        .because(Some(why.into())),
    ];
    puller.registry.answer(|_: &Asked| None);
    puller.registry.forget();
    let pulled = puller.pulled("box");
    let wanted = format!("bytes={}-", part.len());
    let asked = puller.registry.asked();
    let goes_on = asked
        .iter()
        .any(|asked| asked.headers.get("range") == Some(&wanted));
    let is_there = puller.layer(&[name]).join("srv/file").exists();
    claims.push(
        Claim::new(
            "the next pull asks for the rest, and is the whole image",
            format!(
                "{}; the registry was {} for the rest; the layer {}",
                pulled.words,
                if goes_on { "asked" } else { "not asked" },
                if is_there { "is there" } else { "isn't there" },
            ),
            goes_on && is_there,
        )
        .because(Some(why.into())),
    );
    Ok(claims)
}

/// A root filesystem from this machine's programs, as an archive, with a program `greet` in it that says something.
pub fn root(bench: &Workbench, said: &str) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", bench.root()?)?;
    let script = format!("#!/bin/sh\necho {said}\n");
    let mut header = Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(script.len() as u64);
    builder.append_data(&mut header, "usr/bin/greet", script.as_bytes())?;
    Ok(builder.into_inner()?)
}
