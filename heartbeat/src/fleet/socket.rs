//! Sockets on which nothing takes longer than it may: name, connection, TLS handshake, every read and write.
//!
//! The blocking connection of the `redis` crate has no deadline for its TLS handshake, one for each read but none for
//! an answer, and takes rustls' process-wide provider, which panics where an embedder has two. So the sockets are
//! here, and the crate packs and parses what goes over them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, UnixAddr, connect, socket};

use super::tls::Tls;
use super::url::Host;
use crate::process::spawn_undisturbed;

/// How often a wait looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// How often a connection that does not come about is begun once more, beside those before it. The kernel repeats what was lost
/// after 1, 3, and 7 s, so that a network that is whole again would go unnoticed for seconds.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// How long to wait, and for whom.
#[derive(Clone, Debug)]
pub struct Patience {
    until: Instant,
    given_up: Arc<AtomicBool>,
    /// Another connection: once something comes over that one, nothing is waited for here.
    other: Weak<Socket>,
}

impl Patience {
    /// Until then, and no longer than until `given_up` is set.
    pub fn new(until: Instant, given_up: &Arc<AtomicBool>) -> Self {
        Self { until, given_up: Arc::clone(given_up), other: Weak::new() }
    }

    /// The same, and no longer than until something comes over that other connection.
    pub fn beside(&self, other: &Stream) -> Self {
        Self { other: Arc::downgrade(other.socket()), ..self.clone() }
    }

    /// The time that is left: never none.
    pub fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() || self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        if self.other.upgrade().is_some_and(|other| other.has_something(PollTimeout::ZERO)) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "another connection was sooner"));
        }
        Ok(left)
    }

    /// A fair share of it, where `tries` are to be made.
    pub fn share(&self, tries: usize) -> Self {
        let left = self.until.saturating_duration_since(Instant::now());
        let tries = u32::try_from(tries).unwrap_or(u32::MAX).max(1);
        Self { until: Instant::now() + left / tries, ..self.clone() }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Socket {
    /// Whether something has come, or the end, or does in that time.
    fn has_something(&self, timeout: PollTimeout) -> bool {
        let polled = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout);
        !matches!(polled, Ok(0) | Err(Errno::EINTR))
    }
}

/// A socket that never blocks, and a wait that ends.
#[derive(Debug)]
pub struct Paced {
    socket: Arc<Socket>,
    patience: Patience,
}

impl Paced {
    fn wait(&self, events: PollFlags) -> io::Result<()> {
        let slice = self.patience.left()?.min(LOOK) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(slice).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn retry<T>(
        &mut self,
        events: PollFlags,
        mut step: impl FnMut(&Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match step(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(events)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.patience.left()?;
                }
                done => return done,
            }
        }
    }
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::POLLIN, |socket| match socket {
            Socket::Tcp(stream) => Read::read(&mut { stream }, buffer),
            Socket::Unix(stream) => Read::read(&mut { stream }, buffer),
        })
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::POLLOUT, |socket| match socket {
            Socket::Tcp(stream) => Write::write(&mut { stream }, bytes),
            Socket::Unix(stream) => Write::write(&mut { stream }, bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection's bytes, plain or encrypted.
#[derive(Debug)]
pub enum Stream {
    Plain(Paced),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, Paced>>),
}

impl Stream {
    pub fn set_patience(&mut self, patience: Patience) {
        match self {
            Self::Plain(socket) => socket.patience = patience,
            Self::Tls(stream) => stream.sock.patience = patience,
        }
    }

    fn socket(&self) -> &Arc<Socket> {
        match self {
            Self::Plain(socket) => &socket.socket,
            Self::Tls(stream) => &stream.sock.socket,
        }
    }

    /// Waits until something has come, or the end; whether it has.
    pub fn hears(&self, patience: &Patience) -> bool {
        loop {
            let left = patience.left().unwrap_or_default();
            let slice = if left.is_zero() { left } else { left.min(LOOK) + Duration::from_millis(1) };
            if self.socket().has_something(PollTimeout::try_from(slice).unwrap_or(PollTimeout::ZERO)) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    /// Connects to a host; each of its addresses gets its share of the time.
    pub fn tcp(host: &Host, tls: Option<&Tls>, names: &mut Names, patience: &Patience) -> io::Result<Self> {
        let addresses = names.resolve(&host.name, host.port, patience)?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (index, address) in addresses.iter().enumerate() {
            let share = patience.share(addresses.len() - index);
            match connect_tcp(address, tls, &host.name, &share) {
                Ok(mut stream) => {
                    stream.set_patience(patience.clone());
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    pub fn unix(path: &Path, patience: &Patience) -> io::Result<Self> {
        // Where the server's queue is full, the connection of the standard library would wait without end.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(descriptor.as_raw_fd(), &UnixAddr::new(path)?)?;
        let socket = Arc::new(Socket::Unix(descriptor.into()));
        Ok(Self::Plain(Paced { socket, patience: patience.clone() }))
    }
}

fn connect_tcp(
    address: &SocketAddr,
    tls: Option<&Tls>,
    name: &str,
    patience: &Patience,
) -> io::Result<Stream> {
    let stream = connect_somehow(address, patience)?;
    stream.set_nodelay(true)?;
    let socket = Paced { socket: Arc::new(Socket::Tcp(stream)), patience: patience.clone() };
    match tls {
        Some(tls) => Ok(Stream::Tls(Box::new(tls.handshake(name, socket)?))),
        None => Ok(Stream::Plain(socket)),
    }
}

/// The first of several tries that connects, or is refused. It does not block.
fn connect_somehow(address: &SocketAddr, patience: &Patience) -> io::Result<TcpStream> {
    let mut tries = Vec::new();
    let mut again = Instant::now();
    loop {
        let left = patience.left()?;
        if Instant::now() >= again {
            tries.push(begin_to_connect(address)?);
            again = Instant::now() + CONNECT_AGAIN;
        }
        let slice = left.min(LOOK) + Duration::from_millis(1);
        let mut polled: Vec<_> =
            tries.iter().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLOUT)).collect();
        match poll(&mut polled, PollTimeout::try_from(slice).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let settled = polled.iter().position(|each| each.revents().is_some_and(|events| !events.is_empty()));
        if let Some(index) = settled {
            let stream = tries.swap_remove(index);
            return stream.take_error()?.map_or(Ok(stream), Err);
        }
    }
}

fn begin_to_connect(address: &SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let descriptor = socket(family, SockType::Stream, flags, None)?;
    match connect(descriptor.as_raw_fd(), &SockaddrStorage::from(*address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(descriptor.into()),
        Err(errno) => Err(errno.into()),
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

type Answer = io::Result<Vec<SocketAddr>>;

/// Looks names up. The system's resolver knows no deadline, so a thread asks it; there is never more than one.
#[derive(Debug, Default)]
pub struct Names {
    pending: Option<(String, u16, Receiver<Answer>)>,
}

impl Names {
    fn resolve(&mut self, name: &str, port: u16, patience: &Patience) -> Answer {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        loop {
            // Before anything is begun, or taken.
            let wait = patience.left()?.min(LOOK);
            let (pending_name, pending_port, answer) = match self.pending.take() {
                Some(pending) => pending,
                None => (name.to_owned(), port, ask(name, port)?),
            };
            match answer.recv_timeout(wait) {
                Ok(found) if pending_name == name && pending_port == port => return found,
                Ok(_) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => self.pending = Some((pending_name, pending_port, answer)),
            }
        }
    }
}

fn ask(name: &str, port: u16) -> io::Result<Receiver<Answer>> {
    let (sender, answer) = sync_channel(1);
    let name = name.to_owned();
    spawn_undisturbed("heartbeat-names", move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody waits any more where the deadline has passed.
        drop(sender.try_send(found));
    })?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_time_left_looks_no_name_up_and_leaves_the_one_that_is_looked_up() {
        let over = Patience::new(Instant::now(), &Arc::default());
        let mut names = Names::default();
        let error = names.resolve("no-such-name.invalid", 1, &over).expect_err("no time");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (sender, answer) = sync_channel(1);
        names.pending = Some(("h".to_owned(), 1, answer));
        names.resolve("h", 1, &over).expect_err("no time");
        let found = vec![SocketAddr::from(([127, 0, 0, 1], 1))];
        sender.send(Ok(found.clone())).expect("somebody who waits");
        let soon = Patience::new(Instant::now() + Duration::from_secs(5), &Arc::default());
        assert_eq!(names.resolve("h", 1, &soon).expect("the answer"), found);
    }
}
