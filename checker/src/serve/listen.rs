//! Where questions come in: the listeners, and the conversation on each connection that they accept.

use std::convert::Infallible;
#[cfg(feature = "grpc")]
use std::future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, net, os};

use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
#[cfg(feature = "grpc")]
use hyper::server::conn::http2;
use hyper::service::service_fn;
#[cfg(feature = "grpc")]
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket, sockopt,
};
use shared::settings::Listen;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
#[cfg(feature = "grpc")]
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::{self, JoinSet};
use tokio::time::{self, Instant};

use super::board::{Board, Life};
use super::connections::{Connections, Place};
#[cfg(feature = "grpc")]
use super::grpc;
use super::router::{self, Encrypted, Peer};
use super::tls::Certificate;

/// How long a client may take to encrypt a connection, to say the head of a question, and to keep a connection without asking.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest head of a question, in bytes. More than 100 lines in it are too many by hyper's own account.
const LARGEST_HEAD: u16 = 16 * 1024;

/// How many questions may be on their way at once on a connection of gRPC.
#[cfg(feature = "grpc")]
const STREAMS: u32 = 32;

/// How many bytes of bodies a connection of gRPC may send ahead.
#[cfg(feature = "grpc")]
const WINDOW: u32 = 64 * 1024;

/// How many connections may wait to be accepted. The usual 128 are fewer than come at once, and each beyond them costs its client
/// a second.
const BACKLOG: u32 = 1_024;

/// How long nothing is accepted where that is impossible for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a connection that is open at the end may still bring the question that it was opened for: hyper would close it unread.
const LAST_QUESTIONS: Duration = Duration::from_millis(100);

/// Between two lines of the log that tell of it, at least.
const SELDOM: Duration = Duration::from_mins(1);

/// Descriptors that are not connections from clients: those of the checks, files, timers.
const OTHER_DESCRIPTORS: u64 = 256;

/// A place that accepts connections.
#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    /// The path is removed at the end, where it was made here.
    Unix(UnixListener, Option<Made>),
}

/// The path of a socket that was made here.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Made {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Removes it, unless a successor has made its own there.
    fn remove(&self) {
        if Self::at(&self.path).is_ok_and(|now| now == *self) {
            // Somebody may have removed it just now.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What is spoken on a connection.
#[derive(Clone, Debug)]
pub enum Talk {
    /// HTTP/1.1.
    Http(Arc<Board>),
    /// gRPC, over HTTP/2 from the first byte on.
    #[cfg(feature = "grpc")]
    Grpc(Arc<Board>),
}

impl Talk {
    /// gRPC, unless this program was built without it.
    #[cfg_attr(
        feature = "grpc",
        expect(clippy::unnecessary_wraps, reason = "without the feature it is an error")
    )]
    pub fn grpc(board: &Arc<Board>) -> io::Result<Self> {
        #[cfg(feature = "grpc")]
        return Ok(Self::Grpc(Arc::clone(board)));
        #[cfg(not(feature = "grpc"))]
        {
            let _ = board;
            Err(io::Error::new(ErrorKind::Unsupported, "this program was built without it"))
        }
    }
}

/// What is needed to answer on a connection.
#[derive(Clone, Debug)]
pub struct Hall {
    /// Answers.
    pub talk: Talk,
    /// HTTPS, where it is that.
    pub certificate: Option<Arc<Certificate>>,
    /// The connections.
    pub connections: Arc<Connections>,
    /// How far the server is.
    pub life: watch::Receiver<Life>,
}

impl Hall {
    fn scheme(&self) -> &'static str {
        match (&self.talk, &self.certificate) {
            (Talk::Http(_), None) => "http",
            (Talk::Http(_), Some(_)) => "https",
            #[cfg(feature = "grpc")]
            (Talk::Grpc(_), _) => "grpc",
        }
    }
}

/// A server that runs, until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    places: Vec<String>,
    listeners: JoinSet<()>,
    graceful: Arc<GracefulShutdown>,
    made: Vec<Made>,
}

impl Server {
    /// Listens at the sockets that a service manager has handed over, else where it is said, and answers.
    pub fn start(listen: &Listen, hall: &Hall) -> io::Result<Self> {
        let handed = handed_over()?;
        Ok(Self::at(if handed.is_empty() { vec![bind(listen)?] } else { handed }, hall))
    }

    /// Listens where it is said, whatever was handed over.
    pub fn start_beside(listen: &Listen, hall: &Hall) -> io::Result<Self> {
        Ok(Self::at(vec![bind(listen)?], hall))
    }

    fn at(listeners: Vec<Listener>, hall: &Hall) -> Self {
        let mut server = Self {
            places: Vec::new(),
            listeners: JoinSet::new(),
            graceful: Arc::default(),
            made: Vec::new(),
        };
        for mut listener in listeners {
            server.places.push(listener.place(hall.scheme()));
            if let Listener::Unix(_, made) = &mut listener {
                server.made.extend(made.take());
            }
            server.listeners.spawn(accept(listener, hall.clone(), Arc::clone(&server.graceful)));
        }
        server
    }

    /// Where it listens in fact.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// Accepts nothing more, and waits for the answers that are on their way, for so long at most.
    pub async fn stop(mut self, within: Duration) {
        // Before anything is waited for: who does not wait with it leaves no path behind either.
        self.made.iter().for_each(Made::remove);
        self.listeners.shutdown().await;
        time::sleep(LAST_QUESTIONS.min(within)).await;
        // Nobody else has it any more. What is not done by then ends with the process.
        if let Some(graceful) = Arc::into_inner(self.graceful) {
            let _ = time::timeout(within, graceful.shutdown()).await;
        }
    }
}

/// Lets this process have as many descriptors as it may need for so many connections, as far as it is allowed to. Gives how many
/// connections it may have with those.
pub fn allow_descriptors(connections: u32) -> u32 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return connections };
    let wanted = (u64::from(connections) + OTHER_DESCRIPTORS).min(hard);
    let raised = wanted <= soft || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok();
    let limit = if raised { wanted.max(soft) } else { soft };
    let possible = limit.saturating_sub(OTHER_DESCRIPTORS).max(limit / 2);
    if possible < u64::from(connections) {
        tracing::warn!(connections, possible, "the limit of open files is too low for so many connections");
    }
    connections.min(u32::try_from(possible).unwrap_or(u32::MAX)).max(1)
}

fn bind(listen: &Listen) -> io::Result<Listener> {
    match listen {
        Listen::Tcp(address) => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(*address)?;
            socket.listen(BACKLOG).map(Listener::Tcp)
        }
        Listen::Unix(path) => {
            let bound = match UnixListener::bind(path) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && is_left_behind(path) => {
                    fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                bound => bound,
            };
            Ok(Listener::Unix(bound?, Some(Made::at(path)?)))
        }
    }
}

/// Whether a socket belongs to a process that has ended.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    // Who lives may have no place for one more connection just now, and that is not waited for.
    let connected = || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let own = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(own.as_raw_fd(), &UnixAddr::new(path)?)
    };
    is_socket && connected() == Err(Errno::ECONNREFUSED)
}

/// The sockets that a service manager has opened for this process (`LISTEN_FDS`).
fn handed_over() -> io::Result<Vec<Listener>> {
    sd_notify::listen_fds()?
        .map(|descriptor| {
            // SAFETY: it was handed over to this process, and nothing else here takes it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
            if !getsockopt(&descriptor, sockopt::AcceptConn)? {
                return Err(io::Error::other(
                    "a socket that was handed over is none that accepts connections",
                ));
            }
            let tcp = net::TcpListener::from(descriptor);
            // Of a Unix socket it knows no address.
            if tcp.local_addr().is_ok() {
                tcp.set_nonblocking(true)?;
                return TcpListener::from_std(tcp).map(Listener::Tcp);
            }
            let unix = os::unix::net::UnixListener::from(OwnedFd::from(tcp));
            unix.local_addr()?;
            unix.set_nonblocking(true)?;
            UnixListener::from_std(unix).map(|listener| Listener::Unix(listener, None))
        })
        .collect()
}

impl Listener {
    fn place(&self, scheme: &str) -> String {
        match self {
            Self::Tcp(listener) => {
                let own = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
                format!("{scheme}://{own}")
            }
            Self::Unix(listener, _) => {
                let own = listener.local_addr().ok();
                let path = own.as_ref().and_then(|own| own.as_pathname()).unwrap_or(Path::new(""));
                format!("unix:{}", path.display())
            }
        }
    }

    async fn next(&self) -> io::Result<(Box<dyn Stream>, IpAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                prepare(&stream);
                Ok((Box::new(stream), peer.ip()))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), Ipv4Addr::LOCALHOST.into()))
            }
        }
    }
}

fn prepare(stream: &TcpStream) {
    // An answer is small, and nothing follows that would fill its packet. It is no harm where it stays.
    let _ = stream.set_nodelay(true);
    // A client that is gone without a word keeps nothing for longer. Without it, the kernel gives up after a quarter of an hour.
    let patience = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &patience);
}

async fn accept(listener: Listener, hall: Hall, graceful: Arc<GracefulShutdown>) {
    let mut told: Option<Instant> = None;
    loop {
        match listener.next().await {
            Ok((stream, peer)) => {
                let place = hall.connections.enter().await;
                tokio::spawn(converse(stream, peer, place, hall.clone(), graceful.watcher()));
            }
            // The client has gone again.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Out of descriptors, or of memory.
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= SELDOM) {
                    told = Some(Instant::now());
                    tracing::error!(%error, "no connection can be accepted");
                }
                time::sleep(PAUSE).await;
            }
        }
    }
}

/// What is answered to any bytes that a client may send, until it has said all.
#[cfg(fuzzing)]
pub(super) async fn answered(board: Arc<Board>, said: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let (mut client, server) = tokio::io::duplex(1 << 20);
    client.write_all(said).await.expect("there is room for it");
    client.shutdown().await.expect("it is open");
    let place = Connections::new(1).enter().await;
    let graceful = GracefulShutdown::new();
    let end = (Ipv4Addr::LOCALHOST.into(), None);
    tokio::spawn(talk_http(server, end, place, board, graceful.watcher()));
    let mut told = Vec::new();
    let _ = client.read_to_end(&mut told).await;
    told
}

/// What can be talked over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Answers on a connection until its end, or until its place is needed. What goes wrong on it is its client's concern.
async fn converse(stream: Box<dyn Stream>, peer: IpAddr, place: Arc<Place>, hall: Hall, watcher: Watcher) {
    let own = Arc::clone(&place);
    let talk = async move {
        match hall.certificate {
            None => talk(stream, (peer, None), own, hall.talk, watcher).await,
            // Apart, because it is several times as large, and most who serve do without.
            Some(certificate) => {
                Box::pin(async move {
                    let accepted = tokio::select! {
                        biased;
                        accepted = time::timeout(PATIENCE, certificate.accept(stream)) => accepted,
                        () = ended(hall.life) => return,
                    };
                    if let Ok(Ok(stream)) = accepted {
                        talk(stream, (peer, Some(Encrypted)), own, hall.talk, watcher).await;
                    }
                })
                .await;
            }
        }
    };
    tokio::select! {
        () = talk => {}
        () = place.leave() => {}
    }
}

/// Until answers alone are waited for: who has asked nothing by then holds up nobody.
async fn ended(mut life: watch::Receiver<Life>) {
    // The board, which tells it, may be gone.
    let _ = life.wait_for(|life| *life == Life::Stopped).await;
}

/// Who is at the other end of a connection, and whether it is encrypted.
type End = (IpAddr, Option<Encrypted>);

async fn talk(stream: impl Stream + 'static, end: End, place: Arc<Place>, talk: Talk, watcher: Watcher) {
    match talk {
        Talk::Http(board) => talk_http(stream, end, place, board, watcher).await,
        #[cfg(feature = "grpc")]
        Talk::Grpc(board) => Box::pin(talk_grpc(stream, end.0, place, board, watcher)).await,
    }
}

async fn talk_http(
    stream: impl Stream + 'static,
    (peer, encrypted): End,
    place: Arc<Place>,
    board: Arc<Board>,
    watcher: Watcher,
) {
    let service = service_fn(move |question: Request<Incoming>| {
        // No endpoint wants a body, so none is read.
        let (mut head, _) = question.into_parts();
        head.extensions.insert(Peer(peer));
        if let Some(encrypted) = encrypted {
            head.extensions.insert(encrypted);
        }
        let (answering, answer) = (place.answering(), router::answer(Arc::clone(&board), head));
        async move {
            // One question of each connection after another: a client that has sent many at once has no more turns than others.
            task::yield_now().await;
            let answer = answer.await;
            drop(answering);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LARGEST_HEAD.into())
        .serve_connection(TokioIo::new(stream), service);
    // Its end is all that there is to know.
    let _ = watcher.watch(connection).await;
}

/// The same over HTTP/2. A client that asks nothing at first is left alone; later, one that does not answer pings.
#[cfg(feature = "grpc")]
async fn talk_grpc(
    stream: impl Stream + 'static,
    peer: IpAddr,
    place: Arc<Place>,
    board: Arc<Board>,
    watcher: Watcher,
) {
    let first = Arc::new(Notify::new());
    let asked = Arc::clone(&first);
    let service = service_fn(move |question: Request<Incoming>| {
        asked.notify_one();
        let (board, place) = (Arc::clone(&board), Arc::clone(&place));
        async move {
            let question = tokio::select! {
                biased;
                question = grpc::whole(question, PATIENCE) => question?,
                () = ended(board.life()) => return Err(grpc::Broken),
            };
            let _answering = place.answering();
            Ok::<_, grpc::Broken>(grpc::answer(&board, peer, question).await)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(LARGEST_HEAD.into())
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = watcher.watch(connection) => {}
        () = silence(&first) => {}
    }
}

/// Until no question has come for too long since the connection was opened; for ever where one has.
#[cfg(feature = "grpc")]
async fn silence(first: &Notify) {
    if time::timeout(PATIENCE, first.notified()).await.is_ok() {
        future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    #[test]
    fn a_socket_is_left_behind_once_its_owner_is_gone_and_whoever_lives_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.sock");
        assert!(!is_left_behind(&path));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let open = || socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        let (owner, address) = (open(), UnixAddr::new(&path).unwrap());
        bind(owner.as_raw_fd(), &address).unwrap();
        listen(&owner, Backlog::new(1).unwrap()).unwrap();
        let mut waiting = Vec::new();
        let full = (0..100).any(|_| {
            waiting.push(open());
            connect(waiting.last().unwrap().as_raw_fd(), &address) == Err(Errno::EAGAIN)
        });
        assert!(full);
        let (tell, told) = std::sync::mpsc::channel();
        let asked = path.clone();
        std::thread::spawn(move || tell.send(is_left_behind(&asked)));
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(false));
        drop((owner, waiting));
        assert!(is_left_behind(&path));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(!is_left_behind(&path));
    }

    #[tokio::test]
    async fn a_client_that_is_gone_without_a_word_is_given_up_soon() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream);
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout), Ok(30_000));
        assert!(stream.nodelay().unwrap());
    }
}
