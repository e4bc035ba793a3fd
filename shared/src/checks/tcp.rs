//! Whether a TCP port accepts connections. Nothing is sent, and nothing that the peer says is read.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::net::{Address, Net};

/// Whether a TCP port accepts connections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// Host and port, as in `db.internal:5432` or `[::1]:5432`. Of several addresses of a name one is enough.
    address: String,
}

impl Settings for Tcp {
    const KIND: &'static str = "tcp";
    const EXAMPLE: &'static str = r#"address = "127.0.0.1:5432""#;
    const CONTRACT: Contract = Contract::AnyAnswer(r#"address = "{peer}""#);
    type Check = TcpCheck;

    fn build(self) -> Result<TcpCheck, Vec<Mistake>> {
        match Address::parse(&self.address) {
            Some(address) => Ok(TcpCheck { address, net: Net::default() }),
            None => Err(vec![Mistake::of("address", Address::MISTAKE)]),
        }
    }
}

/// Connects.
#[derive(Debug)]
pub struct TcpCheck {
    address: Address,
    net: Net,
}

#[async_trait::async_trait]
impl Check for TcpCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        self.net.connect(&self.address, deadline).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    async fn ask(address: &str) -> Result<(), String> {
        let check = Tcp { address: address.to_owned() }.build().expect("an address");
        check.run(Instant::now() + Duration::from_secs(5)).await.map_err(|failure| failure.to_string())
    }

    #[tokio::test]
    async fn it_passes_while_somebody_listens_fails_once_nobody_does_and_passes_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            assert_eq!(ask(&format!("{host}:{port}")).await, Ok(()));
        }
        let check = Tcp { address: format!("127.0.0.1:{port}") }.build().unwrap();
        let told = async || {
            check.run(Instant::now() + Duration::from_secs(5)).await.map_err(|failure| failure.to_string())
        };
        assert_eq!(told().await, Ok(()));
        drop(listener);
        assert_eq!(told().await, Err("no connection is accepted".to_owned()));
        let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_eq!(told().await, Ok(()));
    }

    #[test]
    fn an_address_without_a_port_is_a_mistake() {
        for wrong in ["db", "db:", "db:0", "db:65536", "db:http", ""] {
            let mistakes = Tcp { address: wrong.to_owned() }.build().unwrap_err();
            assert_eq!(mistakes[0].key, Some("address"), "{wrong}");
        }
    }
}
