//! The socket of a broker: its name is looked up, and its addresses are tried one after another.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::amqp::Url;
use crate::amqp::wire::{self, Grip, Stream};
use crate::node::solo::{Solo, Unanswered};

/// How long one address of several may take to answer.
const SHARE: Duration = Duration::from_secs(1);

/// Connects to the first address that answers, and shakes hands.
pub async fn connect(
    url: &Url,
    lookups: &Solo,
    until: Instant,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<(Stream, Grip)> {
    let addresses = look_up(url, lookups, until).await?;
    wire::encrypt(url, socket(&addresses).await?, tls).await
}

/// The system's own look-up cannot be broken off: while an earlier one hangs, there is no other one.
async fn look_up(url: &Url, lookups: &Solo, until: Instant) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = (url.address().0.to_owned(), url.address().1);
    let question = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
    match lookups.ask(until, question).await {
        Ok(found) => found,
        Err(Unanswered::Late | Unanswered::Still) => Err(io::ErrorKind::TimedOut.into()),
        Err(Unanswered::Broken(error)) => Err(error),
    }
}

async fn socket(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(address);
        // The last one may take as long as there is time.
        let connected = if index + 1 == addresses.len() {
            connecting.await
        } else {
            timeout(SHARE, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        match connected {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn while_a_name_is_looked_up_for_ever_no_other_look_up_begins() {
        let url = "amqp://localhost:5672".parse().unwrap();
        let (lookups, later) = (Solo::default(), Instant::now() + Duration::from_secs(20));
        let (let_go, hung) = mpsc::channel::<()>();
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(matches!(lookups.ask(soon, move || hung.recv()).await, Err(Unanswered::Late)));
        for _ in 0..10 {
            let error = look_up(&url, &lookups, later).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        let_go.send(()).unwrap();
        let found = loop {
            match look_up(&url, &lookups, later).await {
                Err(_) if Instant::now() < later => tokio::task::yield_now().await,
                found => break found,
            }
        };
        assert!(found.unwrap().iter().all(|address| address.port() == 5672));
    }
}
