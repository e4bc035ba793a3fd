//! A connection to one broker: encrypted and logged in where that is set, one question at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::message::Request;
use crate::check::Failure;
use crate::net;
use crate::tls;

/// What a broker knows this side as, in its log and its metrics.
const CLIENT: &str = "checker";

/// What is said of who does not keep to the protocol.
pub const NO_BROKER: &str = "what answers is no Kafka broker";

/// How TLS begins to say that it was not understood.
const ALERT: [u8; 2] = [21, 3];

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

pub struct Line {
    stream: Box<dyn Bytes>,
    /// The number of the last question, which its answer repeats.
    number: i32,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line(…)")
    }
}

impl Line {
    /// Connects to a host at whichever of its addresses accepts.
    pub async fn open(
        host: &str,
        found: Vec<SocketAddr>,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, Failure> {
        let refused = |error| Failure::failed("no connection is accepted").because(error);
        let stream = net::first(found).await.map_err(refused)?;
        // Whether it can be set or not, the answers are the same.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return Ok(Self { stream: Box::new(stream), number: 0 }) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Failure::failed("no certificate can be for the broker's name").because(error))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(tls::unencrypted)?;
        Ok(Self { stream: Box::new(stream), number: 0 })
    }

    /// Asks, and waits for the answer for as long as whoever calls does.
    pub async fn ask(&mut self, request: &Request) -> Result<Vec<u8>, Failure> {
        self.number = self.number.wrapping_add(1);
        let frame = frame(request, self.number);
        self.stream.write_all(&frame).await.map_err(ended)?;
        self.stream.flush().await.map_err(ended)?;
        let mut head = [0; 8];
        self.stream.read_exact(&mut head[..4]).await.map_err(ended)?;
        let length = length(head, request.most)?;
        self.stream.read_exact(&mut head[4..]).await.map_err(ended)?;
        if head[4..] != self.number.to_be_bytes() {
            return Err(Failure::failed(NO_BROKER).because("an answer to another question"));
        }
        // What a length claims takes no memory before it has come.
        let mut answer = Vec::new();
        (&mut self.stream).take(length).read_to_end(&mut answer).await.map_err(ended)?;
        if answer.len() as u64 == length {
            Ok(answer)
        } else {
            Err(ended(io::ErrorKind::UnexpectedEof.into()))
        }
    }
}

fn frame(request: &Request, number: i32) -> Vec<u8> {
    let head = super::wire::Writer::default().i16(request.key).i16(request.version).i32(number).text(CLIENT);
    let head = head.done();
    let length = i32::try_from(head.len() + request.body.len()).unwrap_or(i32::MAX);
    [&length.to_be_bytes(), &*head, &*request.body].concat()
}

/// How many bytes come after an answer's head.
fn length(head: [u8; 8], most: usize) -> Result<u64, Failure> {
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    match length.checked_sub(4) {
        Some(rest) if usize::try_from(rest).is_ok_and(|rest| rest <= most) => Ok(rest.into()),
        _ if head[..2] == ALERT => Err(Failure::failed("the broker wants TLS")),
        _ => Err(Failure::failed(NO_BROKER).because(format!("an answer of {length} bytes"))),
    }
}

/// A broker does not say why it ends a connection.
fn ended(error: io::Error) -> Failure {
    Failure::failed("the broker closed the connection").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_longer_than_its_question_allows() {
        let told = |length: u32| {
            let mut head = [0; 8];
            head[..4].copy_from_slice(&length.to_be_bytes());
            super::length(head, 10).map_err(|failure| failure.reason().to_owned())
        };
        assert_eq!((told(4), told(14)), (Ok(0), Ok(10)));
        for length in [0, 3, 15, 1 << 31, u32::MAX, u32::from_be_bytes(*b"HTTP")] {
            assert_eq!(told(length), Err(NO_BROKER.to_owned()), "{length}");
        }
        assert_eq!(told(u32::from_be_bytes([21, 3, 3, 0])), Err("the broker wants TLS".to_owned()));
    }
}
