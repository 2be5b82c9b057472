//! Names of images: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`. See the reference grammar of the distribution project.

use crate::Digest;
use anyhow::{Result, anyhow, bail};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// The registry that a name without one means.
pub const HUB: &str = "docker.io";

/// Where that registry is asked.
const HUB_SERVER: &str = "registry-1.docker.io";

/// The most bytes of a path, and of a tag.
const LONGEST_PATH: usize = 255;
const LONGEST_TAG: usize = 128;

/// The name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// The registry, as it is written: a host, with its port where there is one.
    pub registry: String,
    /// The path of the images in that registry, which have it in common: `library/ubuntu`.
    pub path: String,
    /// The one that is meant.
    pub version: ImageVersion,
}

/// Which of the images of a path is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageVersion {
    /// The one that the registry has given this tag to, just now.
    Tag(String),
    /// The one with this digest, for ever.
    Digest(Digest),
}

impl ImageName {
    /// The host and port of the registry's server.
    pub fn server(&self) -> &str {
        server(&self.registry)
    }

    /// The registry and the path, without what needs no saying: `ubuntu`.
    pub fn repository(&self) -> String {
        let official = self.path.strip_prefix("library/");
        let official = official.filter(|official| !official.contains('/'));
        let first = self.path.split('/').next().unwrap_or_default();
        match (&*self.registry, official) {
            (HUB, Some(official)) => official.into(),
            // Without it the first part would be taken for a registry.
            (HUB, None) if !is_host(first) => self.path.clone(),
            (registry, _) => format!("{registry}/{}", self.path),
        }
    }

    /// The same path with another tag.
    pub fn with_tag(&self, tag: &str) -> ImageName {
        ImageName {
            version: ImageVersion::Tag(tag.into()),
            ..self.clone()
        }
    }
}

/// Where the registry that is called `registry` is asked.
pub fn server(registry: &str) -> &str {
    match registry {
        HUB => HUB_SERVER,
        other => other,
    }
}

/// The registry that is called `text`; Docker Hub has several names.
pub fn registry(text: &str) -> &str {
    match text {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => HUB,
        other => other,
    }
}

impl Display for ImageName {
    /// As it can be typed: `ubuntu:latest`.
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let repository = self.repository();
        match &self.version {
            ImageVersion::Tag(tag) => write!(f, "{repository}:{tag}"),
            ImageVersion::Digest(digest) => write!(f, "{repository}@{digest}"),
        }
    }
}

impl FromStr for ImageName {
    type Err = anyhow::Error;

    /// # Errors
    /// A name that no image can have.
    fn from_str(text: &str) -> Result<ImageName> {
        read(text).map_err(|error| anyhow!("{text:?} can't be an image's name: {error}"))
    }
}

fn read(text: &str) -> Result<ImageName> {
    if text.is_empty() {
        bail!("it is empty");
    }
    if text.contains("://") {
        bail!("it is a name, and no address\nhelp: leave out what stands before ://, and that");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse::<Digest>().map_err(anyhow::Error::msg)?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (before, last) = rest
        .rsplit_once('/')
        .map_or((None, rest), |(before, last)| (Some(before), last));
    let (last, tag) = match last.split_once(':') {
        Some((last, tag)) => (last, Some(tag)),
        None => (last, None),
    };
    if let Some(tag) = tag {
        valid_tag(tag)?;
    }
    let path = before.map_or(last.to_owned(), |before| format!("{before}/{last}"));
    let (host, path) = match path.split_once('/') {
        Some((host, path)) if is_host(host) => (Some(host.to_owned()), path.to_owned()),
        _ => (None, path),
    };
    if let Some(host) = &host {
        valid_host(host)?;
    }
    let registry = registry(host.as_deref().unwrap_or(HUB)).to_owned();
    let path = match path.contains('/') || registry != HUB {
        true => path,
        false => format!("library/{path}"),
    };
    valid_path(&path)?;
    Ok(ImageName {
        registry,
        path,
        // With a digest, a tag says nothing more.
        version: match (digest, tag) {
            (Some(digest), _) => ImageVersion::Digest(digest),
            (None, tag) => ImageVersion::Tag(tag.unwrap_or("latest").into()),
        },
    })
}

/// Whether the first part of a name is a registry: a path can't look like this.
fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.bytes().any(|b| b.is_ascii_uppercase())
}

/// Fails unless `host` is a host, with its port where there is one.
pub fn valid_host(host: &str) -> Result<()> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        bail!("{host:?} has no port that can be");
    }
    let inner = |name: &str| name.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    let is_v6 = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .is_some_and(inner);
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match is_v6 || name.split('.').all(is_label) {
        true => Ok(()),
        false => bail!("{name:?} is no host"),
    }
}

fn valid_path(path: &str) -> Result<()> {
    if path.len() > LONGEST_PATH {
        bail!("its path has more than {LONGEST_PATH} bytes");
    }
    for part in path.split('/') {
        if part.bytes().any(|byte| byte.is_ascii_uppercase()) {
            bail!("{part:?} has capital letters, which no path has");
        }
        if !is_part(part) {
            bail!(
                "{part:?} isn't made of small letters and digits, with one . or _, two _, or - between them"
            );
        }
    }
    Ok(())
}

/// Whether a part of a path is made of letters and digits, with separators between them.
fn is_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let words = part.split(['.', '_', '-']);
    let separators: Vec<&str> = part
        .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
        .filter(|between| !between.is_empty())
        .collect();
    let is_separator = |between: &&str| {
        matches!(*between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
    };
    words.flat_map(str::bytes).all(is_word)
        && part.bytes().next().is_some_and(is_word)
        && part.bytes().last().is_some_and(is_word)
        && separators.iter().all(is_separator)
}

/// Fails unless `tag` can be a tag.
pub fn valid_tag(tag: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let whole = !tag.is_empty() && tag.len() <= LONGEST_TAG && tag.bytes().all(plain);
    match whole && !tag.starts_with(['.', '-']) {
        true => Ok(()),
        false => bail!(
            "{tag:?} can't be a tag: those have 1 to {LONGEST_TAG} letters, digits, _, . and -, and begin with \
             none of the last two"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, server, path, shown) in [
            ("ubuntu", HUB_SERVER, "library/ubuntu", "ubuntu:latest"),
            ("ubuntu:24.04", HUB_SERVER, "library/ubuntu", "ubuntu:24.04"),
            (
                "docker.io/library/ubuntu",
                HUB_SERVER,
                "library/ubuntu",
                "ubuntu:latest",
            ),
            (
                "grafana/loki:main",
                HUB_SERVER,
                "grafana/loki",
                "grafana/loki:main",
            ),
            ("localhost/a", "localhost", "a", "localhost/a:latest"),
            (
                "localhost:5000/a/b__c",
                "localhost:5000",
                "a/b__c",
                "localhost:5000/a/b__c:latest",
            ),
            ("[::1]:5000/a", "[::1]:5000", "a", "[::1]:5000/a:latest"),
            (
                "quay.io/a/b---c:V_1",
                "quay.io",
                "a/b---c",
                "quay.io/a/b---c:V_1",
            ),
            ("Host/a", "Host", "a", "Host/a:latest"),
        ] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!((name.server(), &*name.path), (server, path), "{text}");
            assert_eq!(name.to_string(), shown);
        }
        for text in [
            "docker.io/library/a/b:1",
            "docker.io/localhost/a:1",
            "docker.io/b.c/a:1",
        ] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!(name.to_string().parse::<ImageName>().unwrap(), name);
        }
        let by_digest: ImageName = format!("a:1@{digest}").parse().unwrap();
        assert_eq!(by_digest.to_string(), format!("a@{digest}"));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for wrong in [
            "",
            ":",
            "a:",
            ":a",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a:b:c",
            "a b",
            "a\n",
            "a\0b",
            "ä",
            "a..b",
            "a._b",
            "a___b",
            "-a",
            "a-",
            "..",
            "../a",
            "a/../b",
            "a@",
            "a@sha256:0",
            "a@md5:0",
            "http://a/b",
            "a:.b",
            "a:-b",
            "host:0/a",
            "host:70000/a",
            "host:x/a",
            "-h.de/a",
            "h..de/a",
            "a?b",
            "a#b",
            "a%2fb",
            "a\\b",
            "a;b",
            "a`b",
            "$(a)",
            "user:pw@host/a",
        ] {
            assert!(wrong.parse::<ImageName>().is_err(), "{wrong:?}");
        }
        assert!("a".repeat(256).parse::<ImageName>().is_err());
        assert!(
            format!("a:{}", "b".repeat(129))
                .parse::<ImageName>()
                .is_err()
        );
    }
}
