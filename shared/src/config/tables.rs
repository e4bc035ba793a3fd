//! The tables of a configuration that are the same for everyone: `[service]`, `[server]`, and what all checks have.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::runner::TIMEOUT;
use crate::settings::{Listen, Network, Secret, Span};

/// What is deployed here: the answer to `/version`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// The service's name.
    pub name: Option<String>,
    /// Where it is deployed to, such as `production`.
    pub environment: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The commit that it was built from.
    pub commit: Option<String>,
    /// The branch that it was built from.
    pub branch: Option<String>,
    /// When it was built.
    pub build_time: Option<String>,
    /// Which of several deployments side by side it is, such as `blue`.
    pub slot: Option<String>,
}

impl Service {
    /// The metadata as JSON: name, environment and version always, null where they are not known; of the build and the slot
    /// what is known.
    pub fn document(&self) -> Value {
        let Self { name, environment, version, commit, branch, build_time, slot } = self;
        let mut document = Map::new();
        for (key, value) in [("service", name), ("environment", environment), ("version", version)] {
            document.insert(key.to_owned(), value.as_deref().into());
        }
        for (key, value) in
            [("commit", commit), ("branch", branch), ("build_time", build_time), ("slot", slot)]
        {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                document.insert(key.to_owned(), value.into());
            }
        }
        document.into()
    }
}

/// How answers are served over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Server {
    /// Where to listen: an address with a port, or a Unix socket's path, as in `unix:/run/checker/http.sock`. A change takes
    /// effect at the next start.
    pub listen: Listen,
    /// Where gRPC health checks (`grpc.health.v1`) are answered, an address such as in `listen` and another one. In plain text
    /// always, for that is all that a kubelet speaks. Without it, nowhere. A change takes effect at the next start.
    pub grpc: Option<Listen>,
    /// HTTPS in place of HTTP: `{ cert = "…", key = "…" }`, the certificate chain and its private key (PEM), which may be
    /// renewed at any time. Whether there is HTTPS, and from which files, takes effect at the next start.
    pub tls: Option<Https>,
    /// How many connections may be open at once. Beyond that, the one that has been idle for longest is closed for each new
    /// one, and of those that are open three quarters at most may wait for checks. A change takes effect at the next start.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: u32,
    /// How long an answer may take. No check takes longer: it is cut off a moment before, whatever its own `timeout`, and has
    /// timed out.
    pub timeout: Span,
    /// How long to go on answering after SIGTERM: readiness fails from its first moment on, so that no new work comes.
    pub drain: Span,
    /// The HTTP status of what does not pass. Some load balancers want 500.
    #[schemars(range(min = 400, max = 599))]
    pub failure_status: u16,
    /// How long one run's answers serve everyone who asks. No answer from before a question is told for longer, however slow
    /// another check is.
    pub cache: Span,
    /// How much is told of a check that did not pass: nothing, or the reason that anybody may read; in full, the page also names
    /// the workers that checks are about, and their tasks. Errors go to the log only.
    pub detail: Detail,
    /// Whether to tell how long each check took.
    pub durations: bool,
    /// Whether there is a page for people at `/`. It names every check and subset. Without it, there is one where `detail` is not
    /// `none`.
    pub page: Option<bool>,
    /// Whether there is `/version`.
    pub expose_version: bool,
    /// Whether `/version` also tells commit, branch, build time and slot.
    pub expose_build_info: bool,
    /// Whether a subset with a warning fails.
    pub warnings_fail: bool,
    /// Who may ask.
    pub access: Access,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp(([127, 0, 0, 1], 8080).into()),
            grpc: None,
            tls: None,
            connections: 2_048,
            timeout: Span(Duration::from_secs(10)),
            drain: Span(Duration::from_secs(5)),
            failure_status: 503,
            cache: Span(Duration::from_secs(1)),
            detail: Detail::None,
            durations: false,
            page: None,
            expose_version: true,
            expose_build_info: false,
            warnings_fail: true,
            access: Access::default(),
        }
    }
}

/// With what HTTPS is served. Both files may be renewed at any time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Https {
    /// The certificate chain (PEM), the server's own first.
    pub cert: PathBuf,
    /// The private key (PEM) to `cert`.
    pub key: PathBuf,
}

impl Server {
    /// Whether there is a page for people.
    pub fn has_page(&self) -> bool {
        self.page.unwrap_or(self.detail != Detail::None)
    }

    /// What of it a schema cannot say, each with its key.
    pub(super) fn mistakes(&self) -> Vec<(String, &'static str)> {
        let access = self.access.mistakes().into_iter();
        let mut mistakes: Vec<_> = access.map(|(key, what)| (format!("access.{key}"), what)).collect();
        if self.timeout.0.is_zero() {
            mistakes.push(("timeout".to_owned(), "a timeout is 1ms at least"));
        }
        if self.grpc.as_ref() == Some(&self.listen) {
            mistakes.push(("grpc".to_owned(), "it is another address than `listen`"));
        }
        mistakes
    }
}

/// How much is told of a check that did not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// Nothing but its status.
    #[default]
    None,
    /// The reason that anybody may read. Of workers, how many there are.
    Safe,
    /// The same, and workers and their tasks by name.
    Full,
}

/// Who may ask. Without any of it, everyone may.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Whether the rules hold for `/healthz` too.
    pub protect_healthz: bool,
    /// The networks from which may be asked. None: all of them.
    pub networks: Vec<Network>,
    /// The proxies whose word about the client's address is taken.
    pub trusted_proxies: Vec<Network>,
    /// The header in which they give it. The client is the last address in it, read from the right, that is no trusted proxy.
    /// A proxy that gives it in another (`Forwarded`, `X-Forwarded-For`, `X-Real-IP`) and not in this one is refused.
    #[schemars(length(min = 1))]
    pub client_ip_header: String,
    /// What who asks must send as `X-Probe-Token`, or as `Authorization: Bearer`, without a blank at either end. Empty: nothing.
    #[serde(skip_serializing)]
    pub token: Secret,
    /// A secret first part of every path. Letters, digits, `-`, `_`, `.` and `~`. Empty: none. gRPC has no such paths.
    #[serde(skip_serializing)]
    pub path_secret: Secret,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            protect_healthz: false,
            networks: Vec::new(),
            trusted_proxies: Vec::new(),
            client_ip_header: "X-Forwarded-For".to_owned(),
            token: Secret::default(),
            path_secret: Secret::default(),
        }
    }
}

impl Access {
    /// What of it a schema cannot say, each with its key.
    fn mistakes(&self) -> Vec<(&'static str, &'static str)> {
        let header = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let path = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let mut mistakes = Vec::new();
        if !self.client_ip_header.bytes().all(header) {
            mistakes.push(("client_ip_header", "it is no name of a header"));
        }
        if !self.path_secret.expose().bytes().all(path) {
            mistakes.push(("path_secret", "it may hold letters, digits, `-`, `_`, `.` and `~`"));
        }
        let token = self.token.expose();
        if token.bytes().any(|byte| byte.is_ascii_control()) {
            mistakes.push(("token", "it holds a control character, which no header can"));
        }
        if token.starts_with(' ') || token.ends_with(' ') {
            mistakes.push(("token", "it begins or ends with a blank, which is no part of a header's value"));
        }
        if self.trusted_proxies.iter().any(|Network(network)| is_everyone(network)) {
            mistakes.push((
                "trusted_proxies",
                "a network of everyone in IPv4 or IPv6 would let every client choose its own address",
            ));
        }
        mistakes
    }
}

/// Whether it has every address of IPv4 or of IPv6. A peer of IPv4 is in a network of IPv6 that has the IPv4-mapped addresses.
fn is_everyone(network: &IpNet) -> bool {
    let mapped = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    network.prefix_len() == 0 || network.prefix_len() <= 96 && network.contains(&IpAddr::V6(mapped))
}

/// What every check may set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Common {
    /// How long one answer may take.
    pub timeout: Span,
    /// Whether its failure is one of the whole; else it is a warning.
    pub critical: bool,
    /// How many failures in a row it takes before they count, where it is asked again and again (`checker serve`).
    pub fall: NonZeroU32,
    /// How many passes in a row it takes after that before it passes again.
    pub rise: NonZeroU32,
}

impl Default for Common {
    fn default() -> Self {
        Self { timeout: Span(TIMEOUT), critical: true, fall: NonZeroU32::MIN, rise: NonZeroU32::MIN }
    }
}
