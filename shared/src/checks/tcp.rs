//! Whether a TCP port accepts connections. Nothing is sent, and nothing that the peer says is read.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};

/// Whether a TCP port accepts connections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// Host and port, as in `db.internal:5432` or `[::1]:5432`.
    address: String,
}

impl Settings for Tcp {
    const KIND: &'static str = "tcp";
    const EXAMPLE: &'static str = r#"address = "127.0.0.1:5432""#;
    const CONTRACT: Contract = Contract::AnyAnswer(r#"address = "{peer}""#);
    type Check = Self;

    fn build(self) -> Result<Self, Vec<Mistake>> {
        let port = self.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        match port {
            Some(1..) => Ok(self),
            _ => Err(vec![Mistake::of("address", "an address is HOST:PORT, with a port from 1 to 65535")]),
        }
    }
}

#[async_trait::async_trait]
impl Check for Tcp {
    async fn run(&self, _: Instant) -> Result<(), Failure> {
        match TcpStream::connect(&self.address).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::failed("no connection is accepted").because(error)),
        }
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
    async fn it_passes_while_somebody_listens_and_fails_once_nobody_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(ask(&address).await, Ok(()));
        drop(listener);
        assert_eq!(ask(&address).await, Err("no connection is accepted".to_owned()));
    }

    #[test]
    fn an_address_without_a_port_is_a_mistake() {
        for wrong in ["db", "db:", "db:0", "db:65536", "db:http", ""] {
            let mistakes = Tcp { address: wrong.to_owned() }.build().unwrap_err();
            assert_eq!(mistakes[0].key, Some("address"), "{wrong}");
        }
    }
}
