//! Servers, and addresses on them: who may be told what, and where a redirect leads.

use anyhow::{Context, Result, bail};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use ureq::http::Uri;

/// A server as the web knows it: scheme, host and port. Who differs in one of them is somebody else. See RFC 6454.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether what is said is encrypted: `https`.
    pub is_secure: bool,
    /// The host, in small letters.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// The server of `host`, which may have a port.
    pub fn new(is_secure: bool, host: &str) -> Result<Origin> {
        let scheme = if is_secure { "https" } else { "http" };
        Origin::of(&format!("{scheme}://{host}/"))
    }

    /// The server of the address `url`.
    ///
    /// # Errors
    /// An address that isn't of the web, or has a name and a password in it.
    pub fn of(url: &str) -> Result<Origin> {
        let uri: Uri = url
            .parse()
            .with_context(|| format!("the address {url:?}"))?;
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("the address {url:?} is neither https nor http"),
        };
        let authority = uri.authority().context("an address without a host")?;
        if authority.as_str().contains('@') {
            bail!("the address {url:?} has an account in it");
        }
        Ok(Origin {
            is_secure,
            host: authority.host().to_lowercase(),
            port: authority
                .port_u16()
                .unwrap_or(if is_secure { 443 } else { 80 }),
        })
    }

    /// Whether the server is this machine itself: nobody listens on the way there.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// The address `path` on this server.
    pub fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (scheme, usual) = match self.is_secure {
            true => ("https", 443),
            false => ("http", 80),
        };
        match self.port {
            port if port == usual => write!(f, "{scheme}://{}", self.host),
            port => write!(f, "{scheme}://{}:{port}", self.host),
        }
    }
}

/// Where a redirect from `url` to `location` leads.
///
/// # Errors
/// The way leads from encrypted to plain, or nowhere.
pub fn redirected(url: &str, location: &str) -> Result<String> {
    let from = Origin::of(url)?;
    let next = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        let scheme = if from.is_secure { "https" } else { "http" };
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        from.url(location)
    } else {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
        format!("{folder}/{location}")
    };
    if from.is_secure && !Origin::of(&next)?.is_secure {
        bail!("{from} sends us on to {next}, where everybody on the way can listen");
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |url: &str| Origin::of(url).unwrap();
        assert_eq!(of("https://A.de/x"), of("https://a.de:443/y"));
        for other in [
            "http://a.de/",
            "https://a.de:444/",
            "https://b.a.de/",
            "https://a.de.b/",
        ] {
            assert_ne!(of("https://a.de/"), of(other), "{other}");
        }
        assert_eq!(of("http://a:5000/x?y").to_string(), "http://a:5000");
        for wrong in [
            "",
            "ftp://a/",
            "/a",
            "https://user:secret@a/",
            "https://a b/",
        ] {
            assert!(Origin::of(wrong).is_err(), "{wrong}");
        }
        for (host, is) in [
            ("127.0.0.1", true),
            ("[::1]", true),
            ("localhost", true),
            ("10.0.0.1", false),
            ("localhost.evil.de", false),
            ("127.0.0.1.evil.de", false),
        ] {
            assert_eq!(of(&format!("http://{host}:1/")).is_loopback(), is, "{host}");
        }
    }

    #[test]
    fn redirects_never_leave_encryption() {
        let to = |location| redirected("https://a/v2/x?y=/z", location);
        assert_eq!(to("https://b/c").unwrap(), "https://b/c");
        assert_eq!(to("/c?d").unwrap(), "https://a/c?d");
        assert_eq!(to("//b/c").unwrap(), "https://b/c");
        assert_eq!(to("c").unwrap(), "https://a/v2/c");
        for wrong in ["http://a/v2/x", "ftp://b/", "HTTP://a/", ":// "] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
        assert!(redirected("http://127.0.0.1/", "http://b/").is_ok());
    }
}
