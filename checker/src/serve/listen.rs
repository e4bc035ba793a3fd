//! Where questions come in: a listener, and the connections that it accepts.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use shared::settings::Listen;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time;

use super::router::Peer;

/// How long a client may take to send the head of a question, and to keep a connection without asking.
const HEAD: Duration = Duration::from_secs(10);

/// The largest head of a question, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;

/// A place that accepts connections.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A server that runs.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<GracefulShutdown>,
}

impl Listener {
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => UnixListener::bind(path).map(Self::Unix),
        }
    }

    /// Where it listens in fact.
    pub fn place(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |own| format!("http://{own}"))
            }
            Self::Unix(listener) => {
                let own = listener.local_addr().ok();
                own.and_then(|own| Some(format!("unix:{}", own.as_pathname()?.display()))).unwrap_or_default()
            }
        }
    }

    /// Answers, in a task of its own.
    pub fn serve(self, router: Router) -> Server {
        let (stop, stopped) = oneshot::channel();
        Server { stop: Some(stop), task: tokio::spawn(self.accept(router, stopped)) }
    }

    async fn accept(self, router: Router, mut stopped: oneshot::Receiver<()>) -> GracefulShutdown {
        let graceful = GracefulShutdown::new();
        loop {
            tokio::select! {
                _ = &mut stopped => return graceful,
                accepted = self.next() => match accepted {
                    Ok((stream, peer)) => converse(stream, peer, router.clone(), &graceful),
                    // Out of descriptors, or the client has gone again.
                    Err(_) => time::sleep(Duration::from_millis(50)).await,
                },
            }
        }
    }

    async fn next(&self) -> io::Result<(Box<dyn Stream>, IpAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Box::new(stream), peer.ip()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), Ipv4Addr::LOCALHOST.into()))
            }
        }
    }
}

/// What can be talked over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn converse(stream: Box<dyn Stream>, peer: IpAddr, router: Router, graceful: &GracefulShutdown) {
    let router = router.layer(axum::Extension(Peer(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let connection = graceful.watch(connection);
    // What goes wrong on a connection is its client's concern.
    tokio::spawn(async move { drop(connection.await) });
}

impl Server {
    /// Accepts nothing more, and waits for the answers that are on their way, for so long at most.
    pub async fn stop(&mut self, within: Duration) {
        drop(self.stop.take());
        if let Ok(graceful) = (&mut self.task).await {
            // What is not done by then ends with the process.
            let _ = time::timeout(within, graceful.shutdown()).await;
        }
    }
}
