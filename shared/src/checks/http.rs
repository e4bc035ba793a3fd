//! What a URL answers: status, headers and body.
//!
//! The connection is kept for the next run, and replaced within the run where it has died. Proxies that the environment
//! names are not used: a check takes the way that its settings say.

mod answer;
pub(super) mod client;
mod redirect;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url as Address};
use schemars::JsonSchema;
use serde::Deserialize;

use self::answer::{Expected, Statuses};
use self::client::{Way, Web};
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::{Secret, Size, TlsFiles, Url};

/// What a URL answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// `http://` or `https://`. A user and password in it are sent as basic authentication.
    url: Url,
    /// How to ask.
    #[serde(default)]
    method: Ask,
    /// The statuses that pass: numbers and ranges, such as `[200, "300-399"]`.
    #[serde(default = "Statuses::success")]
    status: Statuses,
    /// A text that must stand in the body.
    contains: Option<String>,
    /// A regular expression that the body must match somewhere (`(?m)`, `(?i)` and the like at its beginning).
    matches: Option<String>,
    /// Headers that the answer must have, with these values.
    #[serde(default)]
    expect_headers: BTreeMap<String, String>,
    /// Headers to send.
    headers: Option<BTreeMap<String, Secret>>,
    /// A bearer token to send.
    token: Option<Secret>,
    /// How many redirects to follow, at most 20; with 0 the redirect itself is the answer. They never lead from `https` to
    /// `http`, and never to another host where `headers` are sent, which would be told them.
    #[serde(default = "redirects")]
    redirects: u8,
    /// The largest body that is read, at most `"64MiB"`; where `contains` or `matches` is set, a larger one is a failure.
    #[serde(default = "max_size")]
    max_size: Size,
    /// The proxy to use, `http://` or `https://`. The environment's are not.
    proxy: Option<Url>,
    /// The path of a Unix socket to ask over. The URL then tells scheme, host name and path alone, and no name is looked up.
    unix_socket: Option<PathBuf>,
    /// Whom to trust, and who this side is.
    #[serde(default)]
    tls: TlsFiles,
}

/// Methods that change nothing at the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
enum Ask {
    #[default]
    Get,
    Head,
    Options,
}

fn redirects() -> u8 {
    5
}

fn max_size() -> Size {
    Size(1 << 20)
}

impl Settings for Http {
    const KIND: &'static str = "http";
    const EXAMPLE: &'static str = "url = \"https://example.org/health\"\nstatus = [200]\ncontains = \"ok\"";
    const CONTRACT: Contract =
        Contract::Peer("url = \"http://user:S3cret@{peer}/S3cret\"\ncontains = \"what no peer says\"");
    const MORE_CONTRACTS: &'static [&'static str] = &["url = \"https://user:S3cret@{peer}/S3cret\""];
    type Check = HttpCheck;

    fn build(self) -> Result<HttpCheck, Vec<Mistake>> {
        let mut mistakes = client::mistakes(Some(&self.url), self.proxy.as_ref(), &self.tls);
        let mut wrong = |key, what: &'static str| mistakes.push(Mistake::of(key, what));
        if self.redirects > 20 {
            wrong("redirects", "at most 20 are followed");
        }
        if self.max_size.0 > 64 << 20 {
            wrong("max_size", "at most 64MiB are read");
        }
        if self.unix_socket.is_some() && self.proxy.is_some() {
            wrong("unix_socket", "no proxy leads to a Unix socket");
        }
        if self.method == Ask::Head && (self.contains.is_some() || self.matches.is_some()) {
            wrong("method", "an answer to HEAD has no body");
        }
        if self.status.is_empty() {
            wrong("status", "no status would pass");
        }
        let headers = self.sent_headers().map_err(|mistake| mistakes.push(mistake));
        let expected = Expected::of(&self).map_err(|wrong| mistakes.extend(wrong));
        let (Ok(headers), Ok(expected), true) = (headers, expected, mistakes.is_empty()) else {
            return Err(mistakes);
        };
        let way = Way {
            url: self.url.clone(),
            proxy: self.proxy.clone(),
            unix_socket: self.unix_socket.clone(),
            redirects: self.redirects,
            keeps_headers_secret: self.headers.as_ref().is_some_and(|headers| !headers.is_empty()),
        };
        Ok(HttpCheck { web: Web::new(way, self.tls.clone()), settings: self, headers, expected })
    }
}

impl Http {
    fn sent_headers(&self) -> Result<HeaderMap, Mistake> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().flatten() {
            let name =
                HeaderName::try_from(name).map_err(|_| Mistake::of("headers", "not the name of a header"))?;
            let value =
                secret_value(value.expose()).ok_or(Mistake::of("headers", "not the value of a header"))?;
            headers.insert(name, value);
        }
        if let Some(token) = &self.token {
            let value = secret_value(&format!("Bearer {}", token.expose()));
            headers
                .insert(AUTHORIZATION, value.ok_or(Mistake::of("token", "no header can hold this token"))?);
        }
        Ok(headers)
    }
}

fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Asks a URL.
#[derive(Debug)]
pub struct HttpCheck {
    settings: Http,
    headers: HeaderMap,
    expected: Expected,
    web: Web,
}

#[async_trait::async_trait]
impl Check for HttpCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let method = match self.settings.method {
            Ask::Get => Method::GET,
            Ask::Head => Method::HEAD,
            Ask::Options => Method::OPTIONS,
        };
        let request =
            |client: &Client, url| client.request(method.clone(), url).headers(self.headers.clone());
        let answer = self.web.send(deadline, request).await?;
        self.expected.head(&answer)?;
        if !self.expected.needs_body() {
            client::read_off(answer, self.settings.max_size, deadline).await;
            return Ok(());
        }
        let body = client::body(answer, self.settings.max_size).await?;
        self.expected.body(&body)
    }
}

/// Whether one URL's host is told what is sent to the other's.
fn same_host(a: &Address, b: &Address) -> bool {
    a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(json: &str) -> Vec<Option<&'static str>> {
        let settings: Http = serde_json::from_str(json).unwrap();
        settings
            .build()
            .map_or_else(|all| all.into_iter().map(|mistake| mistake.key).collect(), |_| Vec::new())
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        assert_eq!(mistakes(r#"{"url": "https://a/"}"#), []);
        let json = r#"{"url": "ftp://a/", "proxy": "socks5://a", "redirects": 21, "max_size": "65MiB", "method": "HEAD",
            "unix_socket": "/x", "contains": "x", "status": [], "headers": {"a b": "c"}, "matches": "(", "expect_headers": {"": "x"},
            "tls": {"cert": "/x"}}"#;
        let wrong = [
            "tls",
            "url",
            "proxy",
            "redirects",
            "max_size",
            "unix_socket",
            "method",
            "status",
            "headers",
            "matches",
            "expect_headers",
        ];
        assert_eq!(mistakes(json), wrong.map(Some));
        assert_eq!(mistakes("{\"url\": \"http://a/\", \"token\": \"S3cret\\n\"}"), [Some("token")]);
    }

    #[test]
    fn no_secret_is_shown() {
        let json = r#"{"url": "http://u:S3cret@a/S3cret?S3cret", "token": "S3cret", "headers": {"x-key": "S3cret"},
            "proxy": "http://u:S3cret@p/"}"#;
        let settings: Http = serde_json::from_str(json).unwrap();
        let check = settings.build().unwrap();
        check.web.client().unwrap();
        assert!(!format!("{check:?}").contains("S3cret"), "{check:?}");
    }
}
