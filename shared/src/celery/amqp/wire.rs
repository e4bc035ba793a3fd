//! The bytes below AMQP: name, socket and TLS, with certificates as everywhere else here, and how many of them there may be;
//! and what `lapin` wants to know of the runtime under it.

use std::future;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream, ToSocketAddrs as _};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures_util::{AsyncRead, AsyncWrite, Stream as Items};
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::Amqp;
use crate::node::solo::{Solo, Unanswered};

/// The largest frame that is agreed to: it is what `lapin` sizes its buffers by, 32 times.
const FRAME_MAX: u32 = 128 << 10;

/// What a broker may send before it has been asked anything that brings much: `lapin` keeps what it sends, without bound and
/// in eight times as many bytes, until somebody looks at it.
pub const UNASKED: usize = 16 << 20;

/// What it may send in answer to a question, which is looked at as it comes: the replies of 100,000 workers, of one queue
/// each, have 100 MB.
pub const ANSWERS: usize = 128 << 20;

/// How long one address of several may take to answer.
const SHARE: Duration = Duration::from_secs(1);

/// A connection's bytes, plain or encrypted.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

pub type Stream = Box<dyn Bytes>;

/// A connection as it is held from below, whoever speaks over it: it ends with this, and brings no more than is allowed here.
#[derive(Debug)]
pub struct Grip {
    socket: StdStream,
    allowance: Arc<AtomicUsize>,
}

impl Grip {
    /// From here on the peer may send so many bytes.
    pub fn allow(&self, bytes: usize) {
        self.allowance.store(bytes, Ordering::Relaxed);
    }

    /// Whether the peer has sent all that it may, and the connection has failed over that or is about to.
    pub fn is_spent(&self) -> bool {
        self.allowance.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A connection that fails where its peer sends more than it may.
struct Metered {
    inner: Stream,
    allowance: Arc<AtomicUsize>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.allowance.load(Ordering::Relaxed).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let read = ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer[..most]))?;
        // Another allowance may have been given meanwhile: then these bytes are of that one.
        let less = |left: usize| Some(left.saturating_sub(read));
        let _ = self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

/// Connects to the first address that answers, and shakes hands.
pub async fn connect(
    url: &Amqp,
    lookups: &Solo,
    until: Instant,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<(Stream, Grip)> {
    let addresses = look_up(url, lookups, until).await?;
    encrypt(url, socket(&addresses).await?, tls).await
}

/// Shakes hands, where the connection is to be encrypted.
pub async fn encrypt(
    url: &Amqp,
    stream: TcpStream,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<(Stream, Grip)> {
    let socket = stream.as_fd().try_clone_to_owned()?.into();
    let grip = Grip { socket, allowance: Arc::new(AtomicUsize::new(UNASKED)) };
    let inner: Stream = match tls {
        None => Box::new(stream.compat()),
        Some(tls) => {
            let invalid =
                |_| io::Error::new(io::ErrorKind::InvalidInput, "no certificate can be for this name");
            let name = ServerName::try_from(url.host.clone()).map_err(invalid)?;
            Box::new(TlsConnector::from(tls).connect(name, stream).await?.compat())
        }
    };
    Ok((Box::new(Metered { inner, allowance: Arc::clone(&grip.allowance) }), grip))
}

/// The system's own look-up cannot be broken off: while an earlier one hangs, there is no other one.
async fn look_up(url: &Amqp, lookups: &Solo, until: Instant) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = (url.host.clone(), url.port);
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

/// Speaks AMQP over a connection that stands: logs in, and enters the virtual host.
pub async fn speak(url: &Amqp, stream: Stream) -> lapin::Result<Connection> {
    let uri = AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: url.user.clone(), password: url.password.clone() },
            host: url.host.clone(),
            port: url.port,
        },
        vhost: url.vhost.clone(),
        // Without heartbeats: nothing turns the connection between two questions. One that has died is found by the next.
        query: AMQPQueryString {
            frame_max: Some(FRAME_MAX),
            heartbeat: Some(0),
            ..AMQPQueryString::default()
        },
    };
    let properties = ConnectionProperties::default().with_connection_name("checker".into());
    let runtime = async_rs::Runtime::new(Kit(Tokio::current()));
    let stream = Mutex::new(Some(stream));
    let take = async move |_, _| match stream.lock().map(|mut stream| stream.take()) {
        Ok(Some(stream)) => Ok(AsyncTcpStream::Plain(stream)),
        _ => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
    };
    Connection::connector(uri, runtime, take, properties).await
}

/// Tokio, with a connection of ours in place of a socket of its own; so nothing else is ever registered or connected.
#[derive(Clone, Debug)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Stream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Stream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Items<Item = std::time::Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::celery::Broker;

    #[tokio::test]
    async fn while_a_name_is_looked_up_for_ever_no_other_look_up_begins() {
        let Ok(Broker::Amqp(url)) = "amqp://localhost:5672".parse() else { panic!("a broker of AMQP") };
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
