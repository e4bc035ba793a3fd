//! The way between the driver and its server, over which no more comes than a question may cost.
//!
//! The driver makes room for whatever length a message is announced with, and takes no connection but one that it made by
//! itself. So it connects to a socket of this process (an abstract one, of which no other process gets anything), and what is
//! said there goes on to the server, as long as somebody waits for the answer. TLS goes through as it is: it is the driver's,
//! by the server's own name. In it nobody sees what is announced: there a PostgreSQL that means harm can have the driver ask for
//! 4 GiB of addresses, which a machine that has not as much memory may answer by ending the process.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::{UnixListener, UnixStream};

use super::engine::Engine;

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
    has_overflowed: bool,
    /// Of a PostgreSQL.
    messages: Option<Messages>,
    asked_for_tls: AtomicBool,
}

/// The driver's end.
enum Driver {
    Awaited(UnixListener),
    There(Halves<UnixStream>),
    /// Nothing comes from there, and nothing goes there any more.
    Gone,
}

impl Relay {
    /// A way to such a server; what the driver appends to a socket's name is `rest`.
    pub fn to(engine: Engine, server: Box<dyn Stream>, rest: &str) -> io::Result<Self> {
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
            has_overflowed: false,
            // Those of MySQL are announced with no more than 16 MiB.
            messages: (engine == Engine::Postgres).then(Messages::default),
            asked_for_tls: AtomicBool::new(false),
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
        self.has_overflowed
    }

    /// Until one side hangs up or the server has said too much. It may be dropped and called again at any time.
    async fn carry(&mut self) -> io::Result<()> {
        if let Driver::Awaited(listener) = &self.driver {
            self.driver = Driver::There(split(own(listener).await?));
        }
        let Driver::There((from_driver, to_driver)) = &mut self.driver else { return Ok(()) };
        let (from_server, to_server) = &mut self.server;
        let asked_for_tls = &self.asked_for_tls;
        let to_driver = self.to_driver.carry(from_server, to_driver, |bytes| {
            let asked_for_tls = asked_for_tls.swap(false, Ordering::Relaxed);
            let fits = self.messages.as_mut().is_none_or(|messages| messages.fit(bytes, asked_for_tls));
            self.has_overflowed = !fits || bytes.len() > self.room;
            self.room = self.room.saturating_sub(bytes.len());
            !self.has_overflowed
        });
        let to_server = self.to_server.carry(from_driver, to_server, |bytes| {
            asked_for_tls.fetch_or(bytes == SSL_REQUEST, Ordering::Relaxed);
            true
        });
        tokio::select! {
            over = to_driver => over,
            over = to_server => over,
        }
    }
}

/// What a PostgreSQL is asked for TLS with: a length, and a number.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The messages of a PostgreSQL, as they are announced: a letter and a length.
#[derive(Default)]
struct Messages {
    /// From here on they are encrypted.
    are_hidden: bool,
    head: Vec<u8>,
    /// What is still to come of the one that was announced last.
    left: usize,
}

impl Messages {
    /// Whether none is announced in this that is longer than all may be together.
    fn fit(&mut self, bytes: &[u8], asked_for_tls: bool) -> bool {
        let mut bytes = match bytes {
            [b'S', rest @ ..] if asked_for_tls => {
                self.are_hidden = true;
                rest
            }
            [_, rest @ ..] if asked_for_tls => rest,
            bytes => bytes,
        };
        while !self.are_hidden && !bytes.is_empty() {
            let some = bytes.len().min(if self.left > 0 { self.left } else { 5 - self.head.len() });
            let (now, later) = bytes.split_at(some);
            bytes = later;
            if self.left > 0 {
                self.left -= some;
                continue;
            }
            self.head.extend(now);
            if let [_, length @ ..] = &*self.head
                && let Ok(length) = length.try_into().map(u32::from_be_bytes)
            {
                // The length counts itself.
                self.left = (length as usize).saturating_sub(4);
                self.head.clear();
            }
        }
        self.left <= MOST
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
    /// Until the end, or what `may_pass` is not true of. Dropped at any time, it has lost nothing.
    async fn carry(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        mut may_pass: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        loop {
            while self.begin < self.end {
                self.begin += to.write(&self.bytes[self.begin..self.end]).await?;
            }
            let read = from.read(&mut self.bytes).await?;
            if read == 0 || !may_pass(&self.bytes[..read]) {
                return Ok(());
            }
            (self.begin, self.end) = (0, read);
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
        let mut relay = Relay::to(Engine::Mysql, Box::new(near), "/rest").unwrap();
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
    async fn a_message_that_is_announced_as_too_long_never_reaches_the_driver() {
        let (mut far, near) = duplex(1 << 10);
        let mut relay = Relay::to(Engine::Postgres, Box::new(near), "").unwrap();
        let mut driver = relay.beside(UnixStream::connect(relay.socket())).await.unwrap();
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
        let mut heard = Vec::new();
        relay.beside(driver.read_to_end(&mut heard)).await.unwrap();
        assert_eq!((heard, relay.has_overflowed()), (Vec::new(), true));
    }

    #[test]
    fn messages_are_told_from_what_is_in_them_however_they_come_and_not_once_they_are_hidden() {
        let hello = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05IHTTP/1.1";
        for size in 1..hello.len() {
            let mut messages = Messages::default();
            let fit: Vec<_> = hello.chunks(size).map(|chunk| messages.fit(chunk, false)).collect();
            let (last, others) = fit.split_last().unwrap();
            assert!(!last || others.contains(&false), "{size}");
            // The length of the last one is complete with the twentieth byte.
            let before = 19 / size;
            assert!(fit[..before].iter().all(|fit| *fit), "{size}: {fit:?}");
        }
        let mut refused = Messages::default();
        assert!(refused.fit(b"N", true) && refused.fit(&hello[..15], false) && !refused.fit(b"HTTP/", false));
        let mut encrypted = Messages::default();
        assert!(encrypted.fit(b"S", true) && encrypted.fit(b"HTTP/1.1", false));
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
        let mut relay = Relay::to(Engine::Mysql, Box::new(near), "").unwrap();
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
