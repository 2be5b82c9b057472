//! A registry that may be hurt, and may hurt: a small web server on loopback that has images in memory, and answers as
//! the test wants.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tar::{Builder, EntryType, Header};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// GET, HEAD or POST.
    pub method: String,
    /// The path, with what stands behind a question mark.
    pub path: String,
    /// The headers, by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// What was sent.
    pub body: String,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The status, such as 200.
    pub status: u16,
    /// The headers but Content-Length.
    pub headers: Vec<(String, String)>,
    /// The bytes.
    pub body: Vec<u8>,
    /// What Content-Length says, where that isn't the truth: the connection ends behind the bytes.
    pub length: Option<u64>,
    /// Whether nothing more is sent behind the bytes, and the connection stays.
    pub stalls: bool,
    /// How many of the bytes the other side has let us send.
    pub taken: Arc<AtomicU64>,
}

impl Answer {
    /// Bytes, with a status.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            body: body.into(),
            ..Answer::default()
        }
    }

    /// The same with one more header.
    pub fn with(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// What the registry has.
#[derive(Debug, Default)]
pub struct Contents {
    /// Blobs, by digest.
    pub blobs: HashMap<String, Vec<u8>>,
    /// Manifests with their media types, by `PATH TAG` or `PATH DIGEST`.
    pub manifests: HashMap<String, (String, Vec<u8>)>,
}

type Handler = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

struct Shared {
    contents: Mutex<Contents>,
    log: Mutex<Vec<Asked>>,
    handler: Mutex<Arc<Handler>>,
}

/// A registry that runs until this goes away.
pub struct PretendRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: TcpListener,
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PretendRegistry {
    /// Starts it on a port that is free, with nothing in it.
    ///
    /// # Errors
    /// There is no loopback.
    pub fn start() -> Result<PretendRegistry> {
        PretendRegistry::at("127.0.0.1")
    }

    /// The same on another `address` of this machine.
    ///
    /// # Errors
    /// This machine hasn't got the address.
    pub fn at(address: &str) -> Result<PretendRegistry> {
        let listener = TcpListener::bind((address, 0))?;
        let shared = Arc::new(Shared {
            contents: Mutex::default(),
            log: Mutex::default(),
            handler: Mutex::new(Arc::new(|_: &Asked| None)),
        });
        let (accepting, serving) = (listener.try_clone()?, Arc::clone(&shared));
        thread::spawn(move || {
            for stream in accepting.incoming() {
                let Ok(stream) = stream else { return };
                let shared = Arc::clone(&serving);
                // Whoever asks may go away at any time.
                thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Ok(PretendRegistry {
            address: listener.local_addr()?,
            shared,
            listener,
        })
    }

    /// Its name: host and port.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// The name of an image in it.
    pub fn image(&self, path: &str) -> String {
        format!("{}/{path}", self.name())
    }

    /// Has `handler` answer first; `None`: as a registry does that has what was put here.
    pub fn answer(&self, handler: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) {
        *held(&self.shared.handler) = Arc::new(handler);
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        held(&self.shared.log).clone()
    }

    /// How often something was asked whose path has `part` in it.
    pub fn count(&self, part: &str) -> usize {
        self.asked()
            .iter()
            .filter(|asked| asked.path.contains(part))
            .count()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        held(&self.shared.log).clear();
    }

    /// Keeps a blob, and returns its digest.
    pub fn blob(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        held(&self.shared.contents)
            .blobs
            .insert(digest.clone(), bytes.into());
        digest
    }

    /// Puts another blob in the place of the one with `digest`.
    pub fn swap(&self, digest: &str, bytes: &[u8]) {
        held(&self.shared.contents)
            .blobs
            .insert(digest.into(), bytes.into());
    }

    /// Keeps a manifest or an index, under a tag and under its digest, which is returned.
    pub fn manifest(&self, path: &str, tag: &str, manifest: &Value) -> String {
        let bytes = serde_json::to_vec(manifest).unwrap_or_default();
        let kind = manifest["mediaType"]
            .as_str()
            .unwrap_or(MANIFEST)
            .to_owned();
        self.raw_manifest(path, tag, &kind, bytes)
    }

    /// The same with any bytes.
    pub fn raw_manifest(&self, path: &str, tag: &str, kind: &str, bytes: Vec<u8>) -> String {
        let digest = digest(&bytes);
        let mut contents = held(&self.shared.contents);
        for version in [tag, &digest] {
            let key = format!("{path} {version}");
            contents.manifests.insert(key, (kind.into(), bytes.clone()));
        }
        digest
    }

    /// Keeps an image of `layers`, which are tar archives, with `config` in its configuration; returns its manifest.
    pub fn push(&self, path: &str, tag: &str, layers: &[Vec<u8>], config: &Value) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let named = layers.iter().map(|layer| {
            let digest = self.blob(layer);
            json!({"mediaType": LAYER, "digest": digest, "size": layer.len()})
        });
        let named: Vec<Value> = named.collect();
        let config = configuration(&diff_ids, config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": self.blob(&config), "size": config.len()},
            "layers": named,
        });
        self.manifest(path, tag, &manifest);
        manifest
    }
}

impl Drop for PretendRegistry {
    fn drop(&mut self) {
        // The thread that accepts is woken up, finds that nobody listens any more, and ends.
        use std::os::fd::AsRawFd;
        // SAFETY: takes integers.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// Media types of the OCI image specification.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that isn't compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The text of a configuration for this machine.
pub fn configuration(diff_ids: &[String], config: &Value) -> Vec<u8> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let text = json!({
        "architecture": architecture,
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&text).unwrap_or_default()
}

/// The digest of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// A tar archive of our own making: of each entry its name, its type, and its contents or the target of the link. A
/// directory and a regular file are everybody's to read, and to execute.
pub fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        header.set_entry_type(*kind);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let is_link = matches!(*kind, EntryType::Symlink | EntryType::Link);
        let data: &[u8] = if is_link { b"" } else { content };
        header.set_size(data.len() as u64);
        // Past the library, which has scruples about some names.
        if let Some(raw) = header.as_gnu_mut() {
            raw.name[..name.len()].copy_from_slice(name.as_bytes());
            if is_link {
                raw.linkname[..content.len()].copy_from_slice(content);
            }
        }
        header.set_cksum();
        // Writing to memory doesn't fail.
        let _ = builder.append(&header, data);
    }
    builder.into_inner().unwrap_or_default()
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    (&mut reader).take(64 * 1024).read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut asked = Asked {
        method: method.into(),
        path: path.into(),
        headers: BTreeMap::new(),
        body: String::new(),
    };
    if !path.starts_with('/') {
        // Somebody speaks TLS.
        return stream.shutdown(Shutdown::Both);
    }
    loop {
        let mut line = String::new();
        (&mut reader).take(64 * 1024).read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                asked
                    .headers
                    .insert(name.to_lowercase(), value.trim().into());
            }
            None => break,
        }
    }
    let length = asked.headers.get("content-length");
    let length: u64 = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    (&mut reader)
        .take(length.min(1 << 20))
        .read_to_string(&mut asked.body)?;
    held(&shared.log).push(asked.clone());
    let handler = Arc::clone(&held(&shared.handler));
    let answer = handler(&asked).unwrap_or_else(|| usual(&asked, &held(&shared.contents)));
    let length = answer.length.unwrap_or(answer.body.len() as u64);
    let mut head = format!(
        "HTTP/1.1 {} x\r\nContent-Length: {length}\r\n",
        answer.status
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    let mut writer = stream;
    writer.write_all(head.as_bytes())?;
    if asked.method != "HEAD" {
        for piece in answer.body.chunks(64 * 1024) {
            writer.write_all(piece)?;
            answer
                .taken
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    }
    writer.flush()?;
    if answer.stalls {
        // Until the other side has had enough.
        let _ = reader.read(&mut [0]);
    }
    stream.shutdown(Shutdown::Both)
}

/// What a registry answers that has `contents`.
fn usual(asked: &Asked, contents: &Contents) -> Answer {
    let path = asked.path.split('?').next().unwrap_or_default();
    if path == "/v2/" {
        return Answer::new(200, "{}");
    }
    let found = |marker: &str| {
        let (name, rest) = path.strip_prefix("/v2/")?.split_once(marker)?;
        Some((name.to_owned(), rest.to_owned()))
    };
    if let Some((name, version)) = found("/manifests/") {
        if let Some((kind, bytes)) = contents.manifests.get(&format!("{name} {version}")) {
            return Answer::new(200, bytes.clone())
                .with("Content-Type", kind)
                .with("Docker-Content-Digest", &digest(bytes));
        }
        return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown");
    }
    if let Some(bytes) = found("/blobs/").and_then(|(_, digest)| contents.blobs.get(&digest)) {
        let from = asked.headers.get("range");
        let from = from.and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        return match from {
            Some(from) if from < bytes.len() => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::new(206, &bytes[from..]).with("Content-Range", &range)
            }
            _ => Answer::new(200, bytes.clone()),
        };
    }
    if let Some((name, _)) = found("/tags/list") {
        let tags = contents
            .manifests
            .keys()
            .filter_map(|key| key.split_once(' '));
        let mut tags: Vec<&str> = tags
            .filter(|(path, tag)| *path == name && !tag.starts_with("sha256:"))
            .map(|(_, tag)| tag)
            .collect();
        tags.sort_unstable();
        return Answer::new(200, json!({"name": name, "tags": tags}).to_string());
    }
    refusal(404, "NAME_UNKNOWN", "repository name not known to registry")
}

/// A registry's words of refusal.
pub fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({"errors": [{"code": code, "message": message}]});
    Answer::new(status, body.to_string())
}
