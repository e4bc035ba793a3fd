//! Reaching a host by the deadline: its name is looked up as all programs here do it (hosts file, DNS and whatever else the
//! system is set up for), and its addresses are tried side by side.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;

use crate::check::Failure;
use crate::node::solo::{Solo, Unanswered};

/// How long one address has before the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// More addresses of one name are not tried.
const MANY: usize = 16;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an IP address, the latter without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
}

impl Address {
    /// What is wrong with a text that is no address.
    pub const MISTAKE: &'static str = "an address is HOST:PORT, with a port from 1 to 65535";

    /// Reads `host:5432` or `[::1]:5432`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
            None if host.is_empty() || host.contains([':', '[', ']', '/', ' ', '\0']) => return None,
            None => host.to_owned(),
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Self { host, port })
    }
}

/// What reaches hosts. The system's own look-up cannot be broken off, so there is one at a time, apart from everything else.
#[derive(Clone, Debug, Default)]
pub struct Net {
    lookups: Arc<Solo>,
}

impl Net {
    /// The addresses of a host.
    pub async fn look_up(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let name = host.to_owned();
        let question =
            move || (name.as_str(), port).to_socket_addrs().map(|found| found.take(MANY).collect::<Vec<_>>());
        match self.lookups.ask(deadline, question).await {
            Ok(Ok(found)) if found.is_empty() => Err(Failure::failed("the host's name has no address")),
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(Failure::failed("the host's name cannot be looked up").because(error)),
            Err(Unanswered::Late | Unanswered::Still) => {
                Err(Failure::failed("the host's name is not looked up in time"))
            }
            Err(Unanswered::Broken(error)) => {
                Err(Failure::unknown("the host's name could not be looked up").because(error))
            }
        }
    }

    /// A connection to the first address that accepts one.
    pub async fn connect(&self, address: &Address, deadline: Instant) -> Result<TcpStream, Failure> {
        let found = self.look_up(&address.host, address.port, deadline).await?;
        first(found).await.map_err(|error| Failure::failed("no connection is accepted").because(error))
    }
}

/// A connection to the first that accepts one: each is tried once the one before has failed or has had its head start.
pub(crate) async fn first(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    let mut rest = addresses.into_iter();
    let mut attempts = JoinSet::new();
    loop {
        if let Some(address) = rest.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = if rest.len() == 0 {
            attempts.join_next().await
        } else {
            match time::timeout(HEAD_START, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            Some(Err(error)) => last = error.into(),
            None => return Err(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let good =
            [("db:1", "db", 1), ("127.0.0.1:65535", "127.0.0.1", 65_535), ("[::1]:5432", "::1", 5_432)];
        for (text, host, port) in good {
            assert_eq!(Address::parse(text), Some(Address { host: host.to_owned(), port }), "{text}");
        }
        for text in [
            "",
            "db",
            "db:",
            ":1",
            "db:0",
            "db:65536",
            "db:http",
            "::1:5",
            "[::1]",
            "[db]:1",
            "a b:1",
            "http://db:1",
        ] {
            assert_eq!(Address::parse(text), None, "{text:?}");
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn a_name_is_reached_by_whichever_of_its_addresses_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Address { host: "localhost".to_owned(), port };
        Net::default().connect(&address, soon()).await.unwrap();
        // Nobody answers at the first, and the second refuses.
        let dead = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let found = vec![SocketAddr::from(([192, 0, 2, 1], 9)), dead, listener.local_addr().unwrap()];
        first(found).await.unwrap();
        first(vec![dead]).await.unwrap_err();
        first(Vec::new()).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_told() {
        let failure = Net::default().look_up("no-such-host.invalid", 1, soon()).await.unwrap_err();
        assert!(failure.reason().starts_with("the host's name "), "{failure}");
    }
}
