//! The client that asks: its TLS, its way, and what is told of what went wrong.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Proxy, RequestBuilder, Response};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::redirect::{self, Refused};
use crate::check::Failure;
use crate::kind::Mistake;
use crate::net::Net;
use crate::settings::{Size, TlsFiles, Url};
use crate::tls::{Tls, is_of_tls, provider};

/// A look-up of a name is left alone once the run is over; until then it has all the time that there is.
const AS_LONG_AS_THE_RUN: Duration = Duration::from_mins(10);

/// How long the rest of an answer that nobody judges is read.
const AT_ONCE: Duration = Duration::from_millis(200);

/// How to ask.
#[derive(Clone, Debug)]
pub struct Way {
    /// What is asked.
    pub url: Url,
    /// Through whom.
    pub proxy: Option<Url>,
    /// Over which Unix socket, where it is one.
    pub unix_socket: Option<PathBuf>,
    /// How many redirects are followed.
    pub redirects: u8,
    /// Whether headers are sent that no other host may be told.
    pub keeps_headers_secret: bool,
}

/// Asks a URL, over a connection that is kept.
#[derive(Debug)]
pub struct Web {
    way: Way,
    net: Net,
    tls: Tls,
    client: Mutex<Option<(Arc<ClientConfig>, Client)>>,
    /// Whether the last question was answered, over a connection that may be kept.
    is_answered: AtomicBool,
}

/// What is wrong with settings that say how to ask.
pub fn mistakes(url: Option<&Url>, proxy: Option<&Url>, tls: &TlsFiles) -> Vec<Mistake> {
    let mut mistakes = Tls::mistakes(tls);
    if url.is_some_and(|url| !is_of_http(url) || !url.expose().has_host()) {
        mistakes.push(Mistake::of("url", "the URL is not one of http:// or https://"));
    }
    if proxy.is_some_and(|proxy| !is_of_http(proxy)) {
        mistakes.push(Mistake::of("proxy", "the proxy is not one of http:// or https://"));
    }
    mistakes
}

fn is_of_http(url: &Url) -> bool {
    matches!(url.expose().scheme(), "http" | "https")
}

impl Web {
    /// Opens nothing and reads nothing yet.
    pub fn new(way: Way, tls: TlsFiles) -> Self {
        Self {
            way,
            net: Net::default(),
            tls: Tls::new(tls),
            client: Mutex::new(None),
            is_answered: AtomicBool::new(false),
        }
    }

    /// What the URL answers, up to its body. A kept connection may have been forgotten on the way, which nobody is told: where no
    /// answer has come over it in a third of the time, it is asked over a new one beside it.
    pub async fn send(
        &self,
        deadline: Instant,
        request: impl Fn(&Client, reqwest::Url) -> RequestBuilder + Sync,
    ) -> Result<Response, Failure> {
        let client = self.client()?;
        let mut asked = pin!(self.ask(&client, &request));
        let left = deadline.saturating_duration_since(Instant::now());
        let share = if self.is_answered.load(Ordering::Relaxed) { left / 3 } else { left };
        let answer = if let Ok(answer) = timeout(share, &mut asked).await {
            answer
        } else {
            let new = self.renewed()?;
            tokio::select! {
                answer = asked => answer,
                Ok(answer) = self.ask(&new, &request) => Ok(answer),
            }
        };
        self.is_answered.store(answer.is_ok(), Ordering::Relaxed);
        answer.map_err(|error| why(error.without_url()))
    }

    async fn ask(
        &self,
        client: &Client,
        request: &(impl Fn(&Client, reqwest::Url) -> RequestBuilder + Sync),
    ) -> reqwest::Result<Response> {
        let ask = || request(client, self.way.url.expose().clone()).send();
        match ask().await {
            // A kept connection that the peer ended while this was being sent.
            Err(error) if is_cut_off(&error) => ask().await,
            answer => answer,
        }
    }

    /// The same one, with its connection, as long as no file of certificates has changed.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let config = self.config()?;
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

    /// Another one, without a connection, from here on.
    fn renewed(&self) -> Result<Client, Failure> {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.client()
    }

    fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        match self.tls.config() {
            // Nothing that needs them is asked: a container without any certificates may ask in plain text.
            Err(_) if self.way.url.expose().scheme() == "http" => trusting_nobody(),
            config => config,
        }
    }

    fn make(&self, config: &ClientConfig) -> Result<Client, Failure> {
        let unusable =
            |error: reqwest::Error| Failure::unknown("no client can be made").because(error.without_url());
        let builder = Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(config.clone())
            .http1_only()
            .referer(false)
            .user_agent(concat!("checker/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(1)
            .redirect(redirect::policy(self.way.redirects, self.way.keeps_headers_secret))
            .dns_resolver(Arc::new(Names(self.net.clone())));
        let builder = match &self.way.proxy {
            Some(proxy) => builder.proxy(Proxy::all(proxy.expose().clone()).map_err(unusable)?),
            None => builder,
        };
        let builder = match &self.way.unix_socket {
            Some(path) => builder.unix_socket(path.as_path()),
            None => builder,
        };
        builder.build().map_err(unusable)
    }
}

/// An answer's body, where it is not larger than that.
pub async fn body(mut answer: Response, max: Size) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let cut = |error: reqwest::Error| Failure::failed("the answer broke off").because(error.without_url());
    while let Some(piece) = answer.chunk().await.map_err(cut)? {
        if (body.len() + piece.len()) as u64 > max.0 {
            return Err(Failure::failed(format!("the answer is larger than {max}")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// Reads the rest of an answer that nobody judges, where it comes at once and is not larger than that, so that its connection can be
/// kept.
pub async fn read_off(mut answer: Response, max: Size, deadline: Instant) {
    let rest = async {
        let mut read = 0;
        while read <= max.0 {
            let Ok(Some(piece)) = answer.chunk().await else { return };
            read += piece.len() as u64;
        }
    };
    let left = deadline.saturating_duration_since(Instant::now());
    // What has not come by then is left, and its connection with it.
    let _ = timeout(AT_ONCE.min(left / 2), rest).await;
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
