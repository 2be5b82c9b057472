//! One registry, and what it answers.
//!
//! Redirects are followed here and not by the library: whatever proves who we are goes to the server that has asked for
//! it, and to no other.

use crate::registry::account::Account;
use crate::registry::challenge::{Authorization, TokenAnswer, TokenRequest};
use crate::registry::name::{self, ImageName, valid_tag};
use crate::registry::origin::{Origin, redirected};
use crate::registry::retry::{Patience, asked, may_hold, may_pass};
use crate::{Challenge, Mismatch, challenges};
use anyhow::{Context, Error, Result, anyhow, bail};
use serde::Deserialize;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs};
use step01_uts::program::visible;
use ureq::http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

/// The most redirects of one request.
const MOST_REDIRECTS: usize = 5;

/// The most bytes of an answer that isn't an image: a token, a list of tags, an error.
const MOST: u64 = 4 * 1024 * 1024;

/// How long a small answer may take, all in all.
const SMALL: Duration = Duration::from_secs(120);

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(20);

/// Where the certificates are that this machine trusts.
const TRUSTED: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A registry that can be asked.
pub struct Registry {
    agent: Agent,
    /// What the registry is called.
    name: String,
    /// Its server.
    origin: Origin,
    account: Option<Account>,
    /// What was found out to prove who we are, by what it is for.
    known: Mutex<HashMap<String, Authorization>>,
    /// Whether others than this machine itself may be spoken to plainly.
    may_be_plain: bool,
}

/// What a registry says when it refuses.
#[derive(Deserialize)]
struct Refusals {
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A question to a registry.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The path on the server.
    pub path: String,
    /// What it is for: `repository:PATH:pull`.
    pub scope: String,
    /// The header Accept.
    pub accept: String,
    /// From which byte on the answer is wanted.
    pub from: u64,
    /// Whether the answer may take as long as it does, and isn't a small one.
    pub is_large: bool,
}

impl Registry {
    /// The registry that is called `name`. `verify`: it has to prove who it is. Finds out how the registry is spoken to:
    /// plainly only where it is this machine itself, or where nobody is to be asked for proof.
    ///
    /// # Errors
    /// The registry can't be reached, or can't prove who it is.
    pub fn connect(name: &str, account: Option<Account>, verify: bool) -> Result<Registry> {
        let server = name::server(name);
        let connect = |is_secure: bool| -> Result<Registry> {
            Ok(Registry {
                agent: agent(name, verify, &Origin::new(is_secure, server)?)?,
                name: name.into(),
                origin: Origin::new(is_secure, server)?,
                account: account.clone(),
                known: Mutex::default(),
                may_be_plain: !verify,
            })
        };
        let secure = connect(true)?;
        let Err(mut error) = tls_works_here().and_then(|()| secure.greet()) else {
            return Ok(secure);
        };
        // Whoever shows a certificate, a wrong one perhaps, isn't spoken to plainly.
        let is_plain = !format!("{error:#}").contains("certificate");
        let may_be_plain = is_plain && (!verify || secure.origin.is_loopback());
        if may_be_plain && (error.is::<ureq::Error>() || error.is::<TooOld>()) {
            let plain = connect(false)?;
            match plain.greet() {
                Ok(()) => return Ok(plain),
                Err(plainly) => error = plainly,
            }
        }
        Err(explained(error, name, verify)).with_context(|| format!("the registry {name}"))
    }

    /// Sees whether there is a registry, of version 2 of their specification.
    fn greet(&self) -> Result<()> {
        let url = self.origin.url("/v2/");
        let answer = self.walk(&url, &Request::default(), None)?.answer;
        match answer.status() {
            StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(()),
            // Whoever refuses for now is asked again, when there is something to ask.
            status if may_pass(status) => Ok(()),
            status => bail!(
                "{url} answers {status}: that is no registry of version 2\nhelp: look at the name"
            ),
        }
    }

    /// Proves that the account is good.
    ///
    /// # Errors
    /// It isn't.
    pub fn log_in(&self) -> Result<()> {
        let question = Request {
            path: "/v2/".into(),
            ..Request::default()
        };
        self.ask(&question).map(drop)
    }

    /// Asks, and returns an answer with what was asked for: 200, or 206 from the byte that was asked for.
    ///
    /// # Errors
    /// [`NotThere`]; the registry refuses, or can't be reached, or not any more.
    pub fn ask(&self, question: &Request) -> Result<Response<Body>> {
        let mut patience = Patience::default();
        loop {
            let answer = match self.attempt(question) {
                Ok(answer) => answer,
                Err(error) => {
                    let passes = error.downcast_ref().is_some_and(may_hold);
                    if !passes {
                        return Err(explained(error, &self.name, true));
                    }
                    patience.pause(None, error)?;
                    continue;
                }
            };
            match answer.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(answer),
                status if may_pass(status) => {
                    let asks = asked(answer.headers());
                    patience.pause(asks, refused(answer))?;
                }
                StatusCode::NOT_FOUND => return Err(Error::new(NotThere).context(refused(answer))),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let name = &self.name;
                    return Err(anyhow!(
                        "{}\nhelp: look at the name; if it is right, `login {name}` as somebody who may",
                        refused(answer)
                    ));
                }
                _ => return Err(refused(answer)),
            }
        }
    }

    /// Asks for something small, and has `read` read the answer, once more if the connection is cut.
    ///
    /// # Errors
    /// As for [`Registry::ask`]; an error of `read`.
    pub fn read(
        &self,
        request: &Request,
        mut read: impl FnMut(Response<Body>) -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let mut patience = Patience::default();
        loop {
            match read(self.ask(request)?) {
                Err(error) if is_cut(&error) => patience.pause(None, error)?,
                read => return read,
            }
        }
    }

    /// Asks once, and proves who we are if that is wanted.
    fn attempt(&self, question: &Request) -> Result<Response<Body>> {
        let url = self.origin.url(&question.path);
        let known = self.authorization(&question.scope);
        let first = self.walk(&url, question, known.as_ref())?;
        if first.answer.status() != StatusCode::UNAUTHORIZED || first.origin != self.origin {
            return Ok(first.answer);
        }
        let challenges = challenges_in(first.answer.headers());
        let Some(new) = self.meet(&challenges, &question.scope)? else {
            return Ok(first.answer);
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(question.scope.clone(), new.clone());
        drop(all);
        Ok(self.walk(&url, question, Some(&new))?.answer)
    }

    fn authorization(&self, scope: &str) -> Option<Authorization> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(scope).filter(|known| known.is_good()).cloned()
    }

    /// Follows redirects from `url`. The `authorization` is for the server of `url` alone.
    fn walk(
        &self,
        url: &str,
        question: &Request,
        authorization: Option<&Authorization>,
    ) -> Result<Walked> {
        let first = Origin::of(url)?;
        let mut url = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let origin = Origin::of(&url)?;
            let mut request = self.agent.get(&url);
            if !question.is_large {
                request = request.config().timeout_global(Some(SMALL)).build();
            }
            if !question.accept.is_empty() {
                request = request.header("Accept", &question.accept);
            }
            if question.from > 0 {
                request = request.header("Range", format!("bytes={}-", question.from));
            }
            if let Some(authorization) = authorization.filter(|_| origin == first) {
                request = request.header(AUTHORIZATION, &authorization.header);
            }
            let answer = request.call()?;
            if !answer.status().is_redirection() {
                return Ok(Walked { answer, origin });
            }
            let location = answer.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let location = location
                .with_context(|| format!("{origin} sends us on, and doesn't say where to"))?;
            url = redirected(&url, location)?;
            self.may_speak_to(&Origin::of(&url)?)?;
        }
        bail!("{first} sends us on more than {MOST_REDIRECTS} times, in the end to {url}")
    }

    /// Fails if `origin` is another machine, and would be spoken to plainly.
    fn may_speak_to(&self, origin: &Origin) -> Result<()> {
        match origin.is_secure || origin.is_loopback() || self.may_be_plain {
            true => Ok(()),
            false => bail!(
                "{} sends us on to {origin}, where everybody on the way can listen and change what comes",
                self.origin
            ),
        }
    }

    /// Meets a challenge; `None`: there is nothing that we could show.
    fn meet(&self, challenges: &[Challenge], scope: &str) -> Result<Option<Authorization>> {
        let by = |scheme: &str| challenges.iter().find(|known| known.scheme == scheme);
        let basic = by("basic");
        if let Some(challenge) = by("bearer") {
            match TokenRequest::new(challenge, scope, self.account.as_ref()) {
                Some(request) => return self.token(&request).map(Some),
                None if basic.is_some() => {}
                None => bail!("it wants a token, and doesn't say whose"),
            }
        }
        match (basic, &self.account) {
            (Some(_), Some(Account::Password { name, password })) => {
                Ok(Some(Authorization::basic(name, password)))
            }
            _ => Ok(None),
        }
    }

    /// Has a token given to us.
    fn token(&self, request: &TokenRequest) -> Result<Authorization> {
        let origin = Origin::of(&request.url).context("where its tokens are to be had")?;
        if self.origin.is_secure && !origin.is_secure {
            bail!(
                "{} wants us to prove who we are at {origin}, where everybody on the way can listen",
                self.origin
            );
        }
        self.may_speak_to(&origin)?;
        let ask = || -> Result<Response<Body>> {
            match &request.form {
                Some(form) => {
                    let form = form
                        .iter()
                        .map(|(key, value)| (key.as_str(), value.as_str()));
                    let post = self.agent.post(&request.url).config();
                    Ok(post.timeout_global(Some(SMALL)).build().send_form(form)?)
                }
                None => {
                    let authorization =
                        request.authorization.as_ref().map(|header| Authorization {
                            header: header.clone(),
                            until: None,
                        });
                    let question = Request::default();
                    Ok(self
                        .walk(&request.url, &question, authorization.as_ref())?
                        .answer)
                }
            }
        };
        let mut patience = Patience::default();
        let answer = loop {
            let answer = match ask() {
                // A connection that is cut may hold the next time, as for any other question.
                Err(error) if error.downcast_ref().is_some_and(may_hold) => {
                    patience.pause(None, error)?;
                    continue;
                }
                answer => answer.with_context(|| format!("{origin}, which gives tokens"))?,
            };
            if answer.status().is_success() {
                break answer;
            }
            let (status, asks) = (answer.status(), asked(answer.headers()));
            let name = &self.name;
            let error = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => anyhow!(
                    "{}\nhelp: `login {name}`, with the right password",
                    refused(answer)
                ),
                _ => refused(answer),
            };
            if !may_pass(status) {
                return Err(error.context(format!("{origin} gives us no token")));
            }
            patience.pause(asks, error)?;
        };
        let text = read(answer)?;
        let given: TokenAnswer = serde_json::from_slice(&text)
            .with_context(|| format!("what {origin} answers for a token"))?;
        let given = given.authorization();
        given.with_context(|| format!("{origin} answers, and gives no token"))
    }

    /// The tags of `name`'s path, in the registry's order.
    ///
    /// # Errors
    /// As for [`Registry::ask`]; more tags than anybody has.
    pub fn tags(&self, name: &ImageName) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        const MOST_TAGS: usize = 100_000;
        let mut path = format!("/v2/{}/tags/list?n=1000", name.path);
        let mut tags = Vec::new();
        loop {
            let request = Request {
                path: path.clone(),
                scope: scope(name),
                ..Request::default()
            };
            let mut next = None;
            let text = self.read(&request, |answer| {
                next = next_page(&self.origin, &path, answer.headers())?;
                read(answer)
            })?;
            let page: Page = serde_json::from_slice(&text).context("its list of tags")?;
            let page = page.tags.unwrap_or_default();
            let is_last = page.is_empty();
            for tag in page {
                valid_tag(&tag)?;
                tags.push(tag);
            }
            if tags.len() > MOST_TAGS {
                bail!("more than {MOST_TAGS} tags");
            }
            match next {
                Some(next) if !is_last => path = next,
                _ => return Ok(tags),
            }
        }
    }
}

/// An answer, and the server that gave it.
struct Walked {
    answer: Response<Body>,
    origin: Origin,
}

/// There is no such thing in the registry.
#[derive(Debug)]
pub struct NotThere;

impl std::fmt::Display for NotThere {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("it isn't there")
    }
}

impl std::error::Error for NotThere {}

/// Whether `error` is of a connection, and not of what came.
fn is_cut(error: &Error) -> bool {
    let of_stream = error.downcast_ref::<io::Error>();
    of_stream.is_some_and(|error| !error.get_ref().is_some_and(|inner| inner.is::<Mismatch>()))
}

/// What asks for the right to pull images of `name`'s path.
pub fn scope(name: &ImageName) -> String {
    format!("repository:{}:pull", name.path)
}

/// The path of the next page of a list, on the same server: RFC 8288.
fn next_page(origin: &Origin, path: &str, headers: &HeaderMap) -> Result<Option<String>> {
    let link = headers.get("link").and_then(|link| link.to_str().ok());
    let target = link
        .filter(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))
        .and_then(|link| link.split_once('<')?.1.split_once('>'));
    let Some((target, _)) = target else {
        return Ok(None);
    };
    let next = redirected(&origin.url(path), target)?;
    match next.strip_prefix(&origin.to_string()) {
        Some(path) if path.starts_with('/') => Ok(Some(path.into())),
        _ => bail!("{origin} has the rest of its list elsewhere: {next}"),
    }
}

fn challenges_in(headers: &HeaderMap) -> Vec<Challenge> {
    let all = headers.get_all(WWW_AUTHENTICATE).iter();
    all.filter_map(|header| header.to_str().ok())
        .flat_map(challenges)
        .collect()
}

/// The whole of an answer that isn't an image.
pub fn read(answer: Response<Body>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut body = answer.into_body().into_reader().take(MOST + 1);
    body.read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MOST {
        true => bail!("the answer has more than {} MiB", MOST >> 20),
        false => Ok(bytes),
    }
}

/// What an answer that isn't what was asked for says.
fn refused(answer: Response<Body>) -> Error {
    let status = answer.status();
    let said = read(answer).unwrap_or_default();
    let said = match serde_json::from_slice::<Refusals>(&said) {
        Ok(refusals) => {
            let all = refusals.errors.iter().take(3);
            let all = all.map(|refusal| match refusal.message.is_empty() {
                true => refusal.code.to_lowercase(),
                false => refusal.message.clone(),
            });
            all.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::new(),
    };
    let said: String = visible(&said).chars().take(300).collect();
    match &*said {
        "" => anyhow!("it answers {status}"),
        said => anyhow!("it answers {status}: {said}"),
    }
}

/// The error, with the way out where that is known.
fn explained(error: Error, name: &str, verify: bool) -> Error {
    let text = format!("{error:#}");
    let is = |part: &str| text.contains(part);
    if is("CaUsedAsEndEntity") {
        return anyhow!(
            "{text}\nhelp: the registry shows a certificate that is for signing others, and none is taken for a server \
             here; `openssl req -x509 … -addext basicConstraints=CA:FALSE` makes one that is"
        );
    }
    if is("certificate") && verify {
        return anyhow!(
            "{text}\nhelp: a certificate that this machine doesn't know goes to /etc/docker/certs.d/{name}/ca.crt; \
             --tls-verify=false asks for no proof"
        );
    }
    if is("corrupt message") || is("InvalidContentType") {
        return anyhow!(
            "{text}: it doesn't speak TLS\nhelp: --tls-verify=false lets it speak plainly, which everybody on the \
             way can read and change"
        );
    }
    error
}

/// This machine's processor lacks what our TLS takes.
#[derive(Debug)]
pub struct TooOld(&'static str);

impl std::fmt::Display for TooOld {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "TLS takes a processor with {}, as those since 2015 are\nhelp: pull on another machine, and copy the state \
             folder; a registry on this machine is spoken to plainly",
            self.0
        )
    }
}

impl std::error::Error for TooOld {}

/// Fails where the library for TLS would give up in the middle: it is made for processors with these features.
fn tls_works_here() -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    for (feature, is_there) in [
        ("aes", is_x86_feature_detected!("aes")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("adx", is_x86_feature_detected!("adx")),
    ] {
        if !is_there {
            return Err(Error::new(TooOld(feature)));
        }
    }
    Ok(())
}

/// What makes the connections.
fn agent(name: &str, verify: bool, origin: &Origin) -> Result<Agent> {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls_graviola::default_provider()))
        .root_certs(trusted(name)?)
        .disable_verification(!verify)
        .build();
    // A proxy, which the environment may name, knows another machine by this one's own address.
    let proxy = (!origin.is_loopback()).then(Proxy::try_from_env);
    let config = Agent::config_builder()
        .proxy(proxy.flatten())
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .input_buffer_size(128 * 1024)
        .user_agent(concat!("ten-steps/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.new_agent())
}

/// The certificates that the registry `name` may be known by: this machine's, and those that are for it alone.
fn trusted(name: &str) -> Result<RootCerts> {
    let given = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = TRUSTED.iter().map(PathBuf::from).find(|path| path.exists());
    let mut files: Vec<PathBuf> = given.or(usual).into_iter().collect();
    let own = Path::new("/etc/docker/certs.d").join(name);
    let own = fs::read_dir(own).into_iter().flatten().flatten();
    files.extend(
        own.map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "crt")),
    );
    if files.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    let mut all: Vec<Certificate<'static>> = Vec::new();
    for file in files {
        let text = fs::read(&file).with_context(|| file.display().to_string())?;
        all.extend(parse_pem(&text).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        }));
    }
    Ok(RootCerts::new_with_certs(&all))
}
