//! The way between the driver and its server, over which no more comes than a question may cost.
//!
//! The driver makes room for whatever length a message is announced with, and takes no connection but one that it made by
//! itself. So it connects to a socket of this process (an abstract one, of which no other process gets anything), and what is
//! said there goes on to the server, as long as somebody waits for the answer. TLS goes through as it is: it is the driver's,
//! by the server's own name.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::{UnixListener, UnixStream};

/// What a server may say in all to one question, or while it lets somebody in. The longest answer that is read is half of it.
pub const MOST: usize = 16 << 20;

/// How much goes over at once.
const AT_ONCE: usize = 16 << 10;

/// Either kind of connection to a server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// What comes from one side, and what goes there.
type Halves<T> = (ReadHalf<T>, WriteHalf<T>);

/// The way to one server.
pub struct Relay {
    name: String,
    driver: Driver,
    server: Halves<Box<dyn Stream>>,
    to_driver: Carried,
    to_server: Carried,
    room: usize,
}

/// The driver's end.
enum Driver {
    Awaited(UnixListener),
    There(Halves<UnixStream>),
    /// Nothing comes from there, and nothing goes there any more.
    Gone,
}

impl Relay {
    /// A way to this server, and a name for it; what the driver appends to a socket's name is `rest`.
    pub fn new(server: Box<dyn Stream>, rest: &str) -> io::Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("checker-{:032x}", u128::from_ne_bytes(random));
        let address = SocketAddr::from_abstract_name(format!("{name}{rest}"))?;
        let listener = StdListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            name,
            driver: Driver::Awaited(UnixListener::from_std(listener)?),
            server: split(server),
            to_driver: Carried::default(),
            to_server: Carried::default(),
            room: MOST,
        })
    }

    /// What the driver is told to connect to: a path that begins with a NUL is an abstract name.
    pub fn socket(&self) -> String {
        format!("\0{}", self.name)
    }

    /// Carries what is said while this work waits for it. What the server may say begins anew.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.room = MOST;
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            // Whatever ended it: to the driver the server has hung up.
            _ = self.carry() => self.driver = Driver::Gone,
        }
        work.await
    }

    /// The same for work after which the driver hangs up: what it said last still goes over.
    pub async fn beside_the_last<T>(mut self, work: impl Future<Output = T>) -> T {
        let done = self.beside(work).await;
        // There is nobody to be told how it ends.
        let _ = self.carry().await;
        done
    }

    /// Whether the server has said more than it may.
    pub fn has_overflowed(&self) -> bool {
        self.room == 0
    }

    /// Until one side hangs up or the server has said too much. It may be dropped and called again at any time.
    async fn carry(&mut self) -> io::Result<()> {
        if let Driver::Awaited(listener) = &self.driver {
            self.driver = Driver::There(split(own(listener).await?));
        }
        let Driver::There((from_driver, to_driver)) = &mut self.driver else { return Ok(()) };
        let (from_server, to_server) = &mut self.server;
        let mut unbounded = usize::MAX;
        tokio::select! {
            over = self.to_driver.carry(from_server, to_driver, &mut self.room) => over,
            // What the driver says is this project's own.
            over = self.to_server.carry(from_driver, to_server, &mut unbounded) => over,
        }
    }
}

/// The first connection that is this process's own.
async fn own(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        if stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id()) {
            return Ok(stream);
        }
    }
}

/// Bytes on their way in one direction.
struct Carried {
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
}

impl Default for Carried {
    fn default() -> Self {
        Self { bytes: vec![0; AT_ONCE].into(), begin: 0, end: 0 }
    }
}

impl Carried {
    /// Dropped at any time, it has lost nothing.
    async fn carry(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        room: &mut usize,
    ) -> io::Result<()> {
        loop {
            while self.begin < self.end {
                self.begin += to.write(&self.bytes[self.begin..self.end]).await?;
            }
            let most = AT_ONCE.min(*room);
            let read = from.read(&mut self.bytes[..most]).await?;
            (self.begin, self.end) = (0, read);
            *room -= read;
            if read == 0 {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relay(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio::time::timeout;

    use super::*;

    async fn relay() -> (tokio::io::DuplexStream, Relay, UnixStream) {
        let (far, near) = duplex(1 << 10);
        let mut relay = Relay::new(Box::new(near), "/rest").unwrap();
        let socket = format!("{}/rest", relay.socket());
        let driver = relay.beside(UnixStream::connect(socket)).await.unwrap();
        (far, relay, driver)
    }

    #[tokio::test]
    async fn what_was_on_its_way_when_a_question_was_dropped_comes_with_the_next() {
        let (mut far, mut relay, mut driver) = relay().await;
        let said: Vec<u8> = (0..50_000_u32).flat_map(u32::to_be_bytes).collect();
        let says = said.clone();
        let server = tokio::spawn(async move {
            far.write_all(&says).await.unwrap();
            let mut heard = vec![0; says.len()];
            far.read_exact(&mut heard).await.unwrap();
            (far, heard)
        });
        let (mut heard, mut sent) = (Vec::<u8>::new(), 0);
        while heard.len() < said.len() || sent < said.len() {
            let mut some = [0; 777];
            let read = timeout(Duration::from_micros(50), driver.read(&mut some));
            if let Ok(read) = relay.beside(read).await {
                heard.extend(&some[..read.unwrap()]);
            }
            let write = timeout(Duration::from_micros(50), driver.write(&said[sent..]));
            if let Ok(written) = relay.beside(write).await {
                sent += written.unwrap();
            }
        }
        assert!(heard == said, "something was lost on the way to the driver");
        let done = relay.beside(server).await.unwrap().1;
        assert!(done == said, "something was lost on the way to the server");
    }

    #[tokio::test]
    async fn a_server_that_says_too_much_has_hung_up() {
        let (mut far, mut relay, mut driver) = relay().await;
        // It notices some day that nobody listens.
        let server = tokio::spawn(async move { far.write_all(&vec![b'a'; MOST + AT_ONCE]).await });
        let mut heard = Vec::new();
        relay.beside(driver.read_to_end(&mut heard)).await.unwrap();
        assert_eq!((heard.len(), relay.has_overflowed()), (MOST, true));
        drop(relay);
        server.await.unwrap().unwrap_err();
    }

    #[tokio::test]
    async fn what_is_said_last_reaches_the_server() {
        let (mut far, relay, mut driver) = relay().await;
        let bye = async move { driver.write_all(b"bye").await };
        relay.beside_the_last(bye).await.unwrap();
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bye");
    }

    #[tokio::test]
    async fn no_other_process_gets_in() {
        let (mut far, near) = duplex(1 << 10);
        let mut relay = Relay::new(Box::new(near), "").unwrap();
        let name = relay.socket();
        let other = format!(
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0{}'); s.sendall(b'other'); s.recv(1)",
            &name[1..]
        );
        let mut other = Command::new("python3").args(["-c", &other]).spawn().unwrap();
        let ended = async {
            while other.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), relay.beside(ended)).await.expect("it is hung up on");
        let mut own = relay.beside(UnixStream::connect(name)).await.unwrap();
        let mut heard = [0; 3];
        relay
            .beside(async {
                own.write_all(b"own").await.unwrap();
                far.read_exact(&mut heard).await.unwrap()
            })
            .await;
        assert_eq!(&heard, b"own");
    }
}
