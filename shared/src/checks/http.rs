//! What a URL answers: status, headers and body.
//!
//! The connection is kept for the next run, and replaced within the run where it has died. Proxies that the environment
//! names are not used: a check takes the way that its settings say.

mod answer;
mod redirect;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Proxy, Response, Url as Address};
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::Deserialize;

use self::answer::{Expected, Statuses};
use self::redirect::Refused;
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::net::Net;
use crate::settings::{Secret, Size, TlsFiles, Url};
use crate::tls::{Tls, provider};

/// A look-up of a name is left alone once the run is over; until then it has all the time that there is.
const AS_LONG_AS_THE_RUN: Duration = Duration::from_mins(10);

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
    /// The largest body that is read, at most `"64MiB"`; a larger one is a failure.
    #[serde(default = "max_size")]
    max_size: Size,
    /// The proxy to use, `http://` or `https://`. The environment's are not.
    proxy: Option<Url>,
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
    type Check = HttpCheck;

    fn build(self) -> Result<HttpCheck, Vec<Mistake>> {
        let mut mistakes = Tls::mistakes(&self.tls);
        let mut wrong = |key, what: &'static str| mistakes.push(Mistake::of(key, what));
        if !matches!(self.url.expose().scheme(), "http" | "https") || !self.url.expose().has_host() {
            wrong("url", "the URL is not one of http:// or https://");
        }
        if self.proxy.as_ref().is_some_and(|proxy| !matches!(proxy.expose().scheme(), "http" | "https")) {
            wrong("proxy", "the proxy is not one of http:// or https://");
        }
        if self.redirects > 20 {
            wrong("redirects", "at most 20 are followed");
        }
        if self.max_size.0 > 64 << 20 {
            wrong("max_size", "at most 64MiB are read");
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
        Ok(HttpCheck {
            tls: Tls::new(self.tls.clone()),
            client: Mutex::new(None),
            net: Net::default(),
            settings: self,
            headers,
            expected,
        })
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
    net: Net,
    tls: Tls,
    client: Mutex<Option<(Arc<ClientConfig>, Client)>>,
}

#[async_trait::async_trait]
impl Check for HttpCheck {
    async fn run(&self, _: Instant) -> Result<(), Failure> {
        let client = self.client()?;
        let answer = match self.send(&client).await {
            // A kept connection that the peer ended while this was being sent.
            Err(error) if is_cut_off(&error) => self.send(&client).await,
            sent => sent,
        };
        let answer = answer.map_err(|error| why(error.without_url()))?;
        self.expected.head(&answer)?;
        let body = self.body(answer).await?;
        self.expected.body(&body)
    }
}

impl HttpCheck {
    async fn send(&self, client: &Client) -> reqwest::Result<Response> {
        let method = match self.settings.method {
            Ask::Get => Method::GET,
            Ask::Head => Method::HEAD,
            Ask::Options => Method::OPTIONS,
        };
        client.request(method, self.settings.url.expose().clone()).headers(self.headers.clone()).send().await
    }

    async fn body(&self, mut answer: Response) -> Result<Vec<u8>, Failure> {
        let max = self.settings.max_size;
        let mut body = Vec::new();
        let cut =
            |error: reqwest::Error| Failure::failed("the answer broke off").because(error.without_url());
        while let Some(piece) = answer.chunk().await.map_err(cut)? {
            if (body.len() + piece.len()) as u64 > max.0 {
                return Err(Failure::failed(format!("the answer is larger than {max}")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The same one, with its connection, as long as no file of certificates has changed.
    fn client(&self) -> Result<Client, Failure> {
        let config = match self.tls.config() {
            Ok(config) => config,
            // Nothing that needs them is asked: a container without any certificates may ask in plain text.
            Err(_) if self.settings.url.expose().scheme() == "http" => trusting_nobody()?,
            Err(failure) => return Err(failure),
        };
        // A panic elsewhere leaves nothing half-made here.
        let mut kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = &*kept
            && Arc::ptr_eq(of, &config)
        {
            return Ok(client.clone());
        }
        let client = self.make(&config)?;
        *kept = Some((config, client.clone()));
        Ok(client)
    }

    fn make(&self, config: &ClientConfig) -> Result<Client, Failure> {
        let unusable =
            |error: reqwest::Error| Failure::unknown("no client can be made").because(error.without_url());
        let keep_headers_secret = self.settings.headers.as_ref().is_some_and(|headers| !headers.is_empty());
        let builder = Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(config.clone())
            .http1_only()
            .referer(false)
            .user_agent(concat!("checker/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(1)
            .redirect(redirect::policy(self.settings.redirects, keep_headers_secret))
            .dns_resolver(Arc::new(Names(self.net.clone())));
        let builder = match &self.settings.proxy {
            Some(proxy) => builder.proxy(Proxy::all(proxy.expose().clone()).map_err(unusable)?),
            None => builder,
        };
        builder.build().map_err(unusable)
    }
}

fn trusting_nobody() -> Result<Arc<ClientConfig>, Failure> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::unknown("TLS cannot be set up").because(error))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

/// Names are looked up one at a time.
struct Names(Net);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let net = self.0.clone();
        Box::pin(async move {
            let found = net.look_up(name.as_str(), 0, Instant::now() + AS_LONG_AS_THE_RUN).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn is_cut_off(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout() && !error.is_redirect()
}

/// What an error without an answer is told as.
fn why(error: reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(this) = cause {
        if let Some(refused) = this.downcast_ref::<Refused>() {
            return Failure::failed(refused.to_string());
        }
        if let Some(failure) = this.downcast_ref::<Failure>() {
            return Failure::failed(failure.reason().to_owned()).because(error);
        }
        if is_of_tls(this) {
            return Failure::failed("no encrypted connection can be made").because(error);
        }
        cause = this.source();
    }
    let reason = if error.is_connect() { "no connection is accepted" } else { "no answer of HTTP came" };
    Failure::failed(reason).because(error)
}

/// An I/O error does not tell what it holds as its source, and may hold another one.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inside.is_some_and(|inside| is_of_tls(inside))
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
            "contains": "x", "status": [], "headers": {"a b": "c"}, "matches": "(", "expect_headers": {"": "x"},
            "tls": {"cert": "/x"}}"#;
        let wrong = [
            "tls",
            "url",
            "proxy",
            "redirects",
            "max_size",
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
        check.client().unwrap();
        assert!(!format!("{check:?}").contains("S3cret"), "{check:?}");
    }
}
