//! How a challenge is answered: with a name and a password, or with a token that somebody else gives for them.
//!
//! See *Token authentication* in the distribution project's specifications.

use crate::Challenge;
use crate::registry::account::Account;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// What is sent in the header Authorization.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// The header's text.
    pub header: String,
    /// When it is of no use any more.
    pub until: Option<Instant>,
}

/// How a token is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The address.
    pub url: String,
    /// The form to send there, where it isn't only asked.
    pub form: Option<Vec<(String, String)>>,
    /// The header Authorization.
    pub authorization: Option<String>,
}

/// What a server that gives tokens answers.
#[derive(Debug, Deserialize)]
pub struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// For how long a token is good where nobody says so, and how long before its end a new one is asked for.
const USUAL: u64 = 60;
const EARLY: u64 = 10;

impl Authorization {
    /// By name and password. See RFC 7617.
    pub fn basic(name: &str, password: &str) -> Authorization {
        let encoded = BASE64_STANDARD.encode(format!("{name}:{password}"));
        Authorization {
            header: format!("Basic {encoded}"),
            until: None,
        }
    }

    /// Whether this is still good.
    pub fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl TokenAnswer {
    /// The token as an answer to a challenge; `None` where there is no token.
    pub fn authorization(self) -> Option<Authorization> {
        let given = [self.token, self.access_token].into_iter().flatten();
        let token = given.into_iter().find(|token| !token.is_empty())?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        // As the specification has it: no token is good for less than a minute.
        let seconds = self.expires_in.unwrap_or(USUAL).clamp(USUAL, 24 * 60 * 60);
        Some(Authorization {
            header: format!("Bearer {token}"),
            until: Some(Instant::now() + Duration::from_secs(seconds - EARLY)),
        })
    }
}

impl TokenRequest {
    /// How to ask for the token that `challenge` wants, to do what `scope` says.
    pub fn new(
        challenge: &Challenge,
        scope: &str,
        account: Option<&Account>,
    ) -> Option<TokenRequest> {
        let realm = challenge.get("realm")?;
        let scope = challenge.get("scope").unwrap_or(scope);
        let service = challenge.get("service").map(|service| ("service", service));
        let mut words: Vec<(&str, &str)> = service.into_iter().collect();
        words.push(("scope", scope));
        if let Some(Account::Token(refresh)) = account {
            words.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "ten-steps"),
                ("refresh_token", refresh),
            ]);
            let form = words
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()));
            return Some(TokenRequest {
                url: realm.into(),
                form: Some(form.collect()),
                authorization: None,
            });
        }
        let query: Vec<String> = words
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}={}", escaped(value)))
            .collect();
        let separator = if realm.contains('?') { '&' } else { '?' };
        Some(TokenRequest {
            url: format!("{realm}{separator}{}", query.join("&")),
            form: None,
            authorization: match account {
                Some(Account::Password { name, password }) => {
                    Some(Authorization::basic(name, password).header)
                }
                _ => None,
            },
        })
    }
}

/// `text` as a value in an address. See RFC 3986, section 2.1.
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z'
        | b'a'..=b'z'
        | b'0'..=b'9'
        | b'-'
        | b'.'
        | b'_'
        | b'~'
        | b':'
        | b'/'
        | b',' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::challenges;

    #[test]
    fn a_challenge_becomes_a_request() {
        let header = r#"Bearer realm="https://auth.a/token?x=1",service="a b",scope="repository:c/d:pull,push""#;
        let challenge = &challenges(header)[0];
        let account = Account::Password {
            name: "me".into(),
            password: "se:cret".into(),
        };
        let request = TokenRequest::new(challenge, "repository:c/d:pull", Some(&account)).unwrap();
        let url = "https://auth.a/token?x=1&service=a%20b&scope=repository:c/d:pull,push";
        assert_eq!((&*request.url, request.form), (url, None));
        assert_eq!(
            request.authorization.as_deref(),
            Some("Basic bWU6c2U6Y3JldA==")
        );
        let without = TokenRequest::new(&challenges("Bearer")[0], "x", None);
        assert_eq!(without, None);
    }

    #[test]
    fn tokens_by_either_name() {
        let read = |text| {
            serde_json::from_str::<TokenAnswer>(text)
                .unwrap()
                .authorization()
        };
        assert_eq!(read(r#"{"token":"a"}"#).unwrap().header, "Bearer a");
        assert_eq!(
            read(r#"{"access_token":"b","expires_in":1}"#)
                .unwrap()
                .header,
            "Bearer b"
        );
        assert_eq!(
            read(r#"{"token":"","access_token":"c"}"#).unwrap().header,
            "Bearer c"
        );
        for none in ["{}", r#"{"token":""}"#, r#"{"token":"a\r\nHost: b"}"#] {
            assert!(read(none).is_none(), "{none}");
        }
    }
}
