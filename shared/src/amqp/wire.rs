//! The bytes below AMQP: plain or encrypted, and how many of them there may be; and what `lapin` wants to know of the runtime
//! under it. Who is connected to, and by which certificates, is decided by who asks.

use std::future;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
use tokio_rustls::TlsConnector;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::Url;

/// The largest frame that is agreed to: it is what `lapin` sizes its buffers by, 32 times.
const FRAME_MAX: u32 = 128 << 10;

/// What a broker may send before it has been asked anything that brings much: `lapin` keeps what it sends, without bound and
/// in eight times as many bytes, until somebody looks at it.
pub const UNASKED: usize = 16 << 20;

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
    #[cfg(feature = "celery")]
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

/// Shakes hands, where the connection is to be encrypted.
pub async fn encrypt(
    url: &Url,
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

/// Speaks AMQP over a connection that stands: logs in, and enters the virtual host.
pub async fn speak(url: &Url, stream: Stream) -> lapin::Result<Connection> {
    let uri = AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: url.user.clone(), password: url.password.clone() },
            host: url.host.clone(),
            port: url.port,
        },
        vhost: url.vhost.clone(),
        // Heartbeats are as the broker wants them (RabbitMQ: every 60 s): `lapin` knows no way to have none where a broker has
        // them. Where nothing turns a connection between two questions, the broker ends it; the next question finds that.
        query: AMQPQueryString { frame_max: Some(FRAME_MAX), ..AMQPQueryString::default() },
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
