//! Whether a name is answered for, with what it should be answered with.
//!
//! Name servers are asked anew at each run: nothing is remembered, so nothing stale is believed.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};

/// More servers are a mistake.
const MANY: usize = 16;

/// Whether a name is answered for, with what it should be answered with.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// The name; this machine's own where none is given. One that ends with a dot is not looked for in the system's search
    /// domains.
    name: Option<String>,
    /// The type of the records that are asked for.
    #[serde(default)]
    record: RecordKind,
    /// The name servers to ask, as IP addresses with or without a port: `10.0.0.2`, `10.0.0.2:5353`, `[fd00::1]:53`. Where
    /// none are given the system's are, and its hosts file before them.
    #[serde(default)]
    servers: Vec<String>,
    /// What must be among the answers, each of them: addresses, names, texts; `10 mail.example.org` for MX, and
    /// `0 5 5060 sip.example.org` for SRV. Upper and lower case and a dot at the end do not matter, except in texts.
    #[serde(default)]
    expect: Vec<String>,
    /// How to ask: `udp`, with TCP where an answer does not fit, or `tcp`.
    #[serde(default)]
    transport: Transport,
}

/// Types of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
enum RecordKind {
    #[default]
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Srv,
    Txt,
}

/// How questions travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Transport {
    #[default]
    Udp,
    Tcp,
}

impl RecordKind {
    fn wire(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Cname => RecordType::CNAME,
            Self::Mx => RecordType::MX,
            Self::Ns => RecordType::NS,
            Self::Ptr => RecordType::PTR,
            Self::Srv => RecordType::SRV,
            Self::Txt => RecordType::TXT,
        }
    }

    /// A value as it is compared.
    fn folded(self, value: &str) -> String {
        if self == Self::Txt {
            return value.to_owned();
        }
        if let Ok(address) = value.parse::<IpAddr>() {
            return address.to_string();
        }
        value.trim_end_matches('.').to_ascii_lowercase()
    }
}

impl Settings for Dns {
    const KIND: &'static str = "dns";
    const EXAMPLE: &'static str =
        "name = \"example.org\"\nrecord = \"MX\"\nexpect = [\"10 mail.example.org\"]";
    const CONTRACT: Contract =
        Contract::Peer("name = \"example.org.\"\nservers = [\"{peer}\"]\ntransport = \"tcp\"");
    type Check = DnsCheck;

    fn build(self) -> Result<DnsCheck, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let own = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let name = self.name.clone().or_else(own).and_then(|name| Name::from_utf8(name).ok());
        if name.as_ref().is_none_or(|name| name.num_labels() == 0) {
            mistakes.push(Mistake::of("name", "not a name that can be looked up"));
        }
        let servers: Option<Vec<_>> = self.servers.iter().map(|server| server_address(server)).collect();
        if servers.is_none() {
            mistakes.push(Mistake::of("servers", "a server is an IP address, with or without a port"));
        }
        if self.servers.len() > MANY {
            mistakes.push(Mistake::of("servers", "at most 16 servers are asked"));
        }
        match (name, servers) {
            (Some(name), Some(servers)) if mistakes.is_empty() => {
                let Self { record, transport, .. } = self;
                let expect = self.expect.iter().map(|value| (value.clone(), record.folded(value))).collect();
                Ok(DnsCheck { name, record, servers, expect, transport })
            }
            _ => Err(mistakes),
        }
    }
}

fn server_address(text: &str) -> Option<SocketAddr> {
    let with_port = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    with_port.or_else(|| text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53)))
}

/// Asks name servers.
#[derive(Debug)]
pub struct DnsCheck {
    name: Name,
    record: RecordKind,
    servers: Vec<SocketAddr>,
    /// As they are written, and as they are compared.
    expect: Vec<(String, String)>,
    transport: Transport,
}

#[async_trait::async_trait]
impl Check for DnsCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let resolver = self.resolver(deadline)?;
        let wanted = self.record.wire();
        let found = resolver.lookup(self.name.clone(), wanted).await.map_err(why)?;
        let answers = found.answers().iter().filter(|record| record.record_type() == wanted);
        let values: Vec<_> = answers.map(|record| self.record.folded(&shown(&record.data))).collect();
        if values.is_empty() {
            return Err(Failure::failed("there is no such record"));
        }
        match self.expect.iter().find(|(_, folded)| !values.contains(folded)) {
            Some((expected, _)) => Err(Failure::failed(format!("{expected} is not among the answers"))),
            None => Ok(()),
        }
    }
}

impl DnsCheck {
    /// Made anew for each run, with what the system is set up for now.
    fn resolver(&self, deadline: Instant) -> Result<TokioResolver, Failure> {
        let unusable = |error| Failure::unknown("the system's name servers are not known").because(error);
        let tcp = self.transport == Transport::Tcp;
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(unusable)?
        } else {
            let servers = self.servers.iter().map(|server| configured(*server, tcp)).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file =
            if self.servers.is_empty() { ResolveHosts::Auto } else { ResolveHosts::Never };
        options.try_tcp_on_error = false;
        // A packet may be lost: there is time to ask twice more, and to say that nobody answered.
        options.attempts = 2;
        options.timeout = deadline.saturating_duration_since(Instant::now()) * 3 / 10;
        builder.build().map_err(unusable)
    }
}

fn configured(server: SocketAddr, tcp: bool) -> NameServerConfig {
    let mut config =
        if tcp { NameServerConfig::tcp(server.ip()) } else { NameServerConfig::udp_and_tcp(server.ip()) };
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    config.connections = config.connections.into_iter().map(at_port).collect();
    config
}

/// A record's value; a text is put together of its pieces.
fn shown(data: &RData) -> String {
    match data {
        RData::TXT(text) => {
            let pieces: Vec<u8> = text.txt_data.iter().flat_map(|piece| piece.iter().copied()).collect();
            String::from_utf8_lossy(&pieces).into_owned()
        }
        other => other.to_string(),
    }
}

fn why(error: NetError) -> Failure {
    let reason = match &error {
        error if error.is_nx_domain() => "there is no such name",
        NetError::Dns(DnsError::ResponseCode(_)) => "the name server answers with an error",
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code.low() != 0 => {
            "the name server answers with an error"
        }
        error if error.is_no_records_found() => "there is no such record",
        NetError::Timeout => "no name server answers",
        _ => "no name server gives an answer",
    };
    Failure::failed(reason).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(json: &str) -> Vec<Option<&'static str>> {
        let settings: Dns = serde_json::from_str(json).unwrap();
        settings
            .build()
            .map_or_else(|all| all.into_iter().map(|mistake| mistake.key).collect(), |_| Vec::new())
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        assert_eq!(mistakes("{}"), []);
        assert_eq!(
            mistakes(r#"{"name": "a", "servers": ["10.0.0.1", "10.0.0.1:53", "::1", "[::1]:53"]}"#),
            []
        );
        for server in ["", "dns.example.org", "10.0.0.1:0", "10.0.0.1:x", "[::1]"] {
            assert_eq!(mistakes(&format!(r#"{{"servers": ["{server}"]}}"#)), [Some("servers")], "{server}");
        }
        for name in ["", ".", "a..b", &"a".repeat(64)] {
            assert_eq!(mistakes(&format!(r#"{{"name": "{name}"}}"#)), [Some("name")], "{name}");
        }
    }

    #[test]
    fn values_are_compared_as_they_are_meant() {
        assert_eq!(RecordKind::Mx.folded("10 Mail.Example.org."), "10 mail.example.org");
        assert_eq!(RecordKind::Aaaa.folded("FD00:0::1"), "fd00::1");
        assert_eq!(RecordKind::Txt.folded("V=spf1."), "V=spf1.");
    }

    #[tokio::test]
    async fn the_systems_hosts_file_counts_where_no_servers_are_given() {
        let settings: Dns =
            serde_json::from_str(r#"{"name": "localhost", "expect": ["127.0.0.1"]}"#).unwrap();
        let deadline = Instant::now() + std::time::Duration::from_secs(10);
        settings.build().unwrap().run(deadline).await.unwrap();
    }
}
