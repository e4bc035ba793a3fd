//! `/livez` and `/readyz` on a port, answered by the publisher's thread from the record of this moment, so that
//! the answer is true while the worker's own threads are stuck.
//!
//! Not a web server: one request a connection, no body is read, and everything is bounded (clients, bytes, time,
//! and the work of one wake-up), so that no client makes a beat late. Where more clients come than there is
//! room for, those that are answered and then the oldest that have not asked make room: silent clients keep a
//! probe out for no longer than it takes a new one to ask.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::EventFd;

use crate::clock;
use crate::error::Error;
use crate::extras::poll_any;
use crate::json::{write_number, write_string};
use crate::process::listeners;
use crate::record::Record;
use crate::verdict::{Judgement, Verdict};

/// Clients at a time.
const MAX_CLIENTS: usize = 64;

/// Clients taken at one wake-up. The others wait for the next one, which comes at once.
const MAX_TAKEN: usize = 64;

/// The largest request, in bytes: its line and its headers.
const MAX_REQUEST: usize = 4096;

/// The most headers in it.
const MAX_HEADERS: usize = 64;

/// How long a client may take, from its connection to the end of its answer.
const CLIENT_MS: u64 = 2_000;

/// How long a client that has not asked is safe from having to make room.
const GRACE_MS: u64 = 100;

/// How long no client is taken after that has failed: for want of descriptors it fails at once, every time.
const DEAF_MS: u64 = 100;

/// The listener and its clients.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
    /// In the order of their arrival.
    clients: Vec<Client>,
    deaf_until_ms: u64,
    failures: u64,
}

impl Endpoint {
    /// Listens. Neither executed nor forked children keep the descriptor.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            listeners::add(listener.as_fd());
            Ok(Self { listener, address, clients: Vec::new(), deaf_until_ms: 0, failures: 0 })
        };
        listen().map_err(|error| Error::system(format!("heartbeat: cannot listen on {address}"), error))
    }

    /// Where it listens, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Clients that could not be taken.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Waits for a wake-up, a client or the time-out, and reads what clients ask; whether it was a wake-up.
    pub fn wait(&mut self, wake: &EventFd, timeout: PollTimeout) -> bool {
        // Only where answering has panicked.
        self.clients.retain(|client| !matches!(client.stage, Stage::Asked { .. }));
        let Events { woken, arrived, mut moved } = self.poll(wake, timeout);
        let now_ms = clock::mono_ms();
        for client in self.clients.iter_mut().filter(|_| moved.next() == Some(true)) {
            client.go_on();
        }
        // After they were heard: the process may have been stopped for a while, and its clients were not.
        self.clients.retain(|client| !client.is_over(now_ms));
        if arrived {
            self.take_clients(now_ms);
        }
        woken && wake.read().is_ok()
    }

    /// Answers the clients that have asked.
    pub fn answer(&mut self, record: &Record, judgement: &Judgement<'_>, now_ms: u64) {
        for client in &mut self.clients {
            if let Stage::Asked { question, method } = client.stage {
                client.send(&verdict_response(question, method, record, judgement, now_ms));
            }
        }
        self.clients.retain(|client| !matches!(client.stage, Stage::Over));
    }

    fn poll(&self, wake: &EventFd, timeout: PollTimeout) -> Events {
        let now_ms = clock::mono_ms();
        let deaf_until_ms = self.deaf_until_ms.max(self.room_at_ms());
        let deaf = now_ms < deaf_until_ms;
        // Descriptor, and what to wait for. With no events asked for, only its end is told.
        let listening = if deaf { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut descriptors =
            vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN), PollFd::new(self.listener.as_fd(), listening)];
        descriptors
            .extend(self.clients.iter().map(|client| PollFd::new(client.stream.as_fd(), client.events())));
        let deadlines = self.clients.iter().map(|client| client.until_ms);
        let soonest = deadlines.chain(deaf.then_some(deaf_until_ms)).min();
        let timeout = soonest.map_or(timeout, |until_ms| {
            let own = PollTimeout::try_from(until_ms.saturating_sub(now_ms)).unwrap_or(PollTimeout::MAX);
            // No time-out sorts below all others, and is not used here.
            timeout.min(own)
        });
        let any = poll_any(&mut descriptors, timeout);
        let mut happened = descriptors.iter().map(|descriptor| any && descriptor.any().unwrap_or(true));
        Events {
            woken: happened.next().unwrap_or(false),
            arrived: happened.next().unwrap_or(false),
            moved: happened.collect::<Vec<_>>().into_iter(),
        }
    }

    fn take_clients(&mut self, now_ms: u64) {
        for _ in 0..MAX_TAKEN {
            if !self.make_room(now_ms) {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.take(stream, now_ms),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // This one has left; the next may be there.
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    self.failures += 1;
                    if self.failures == 1 {
                        told!(warn, "heartbeat: {} cannot take a client: {error}", self.address);
                    }
                    self.deaf_until_ms = now_ms + DEAF_MS;
                    return;
                }
            }
        }
    }

    /// When there is room for one more.
    fn room_at_ms(&self) -> u64 {
        let makes_room = self.clients.iter().map(Client::makes_room_at_ms).min();
        if self.clients.len() < MAX_CLIENTS { 0 } else { makes_room.unwrap_or(0) }
    }

    fn make_room(&mut self, now_ms: u64) -> bool {
        if self.room_at_ms() > now_ms {
            return false;
        }
        if self.clients.len() >= MAX_CLIENTS {
            let ages = self.clients.iter().enumerate();
            if let Some((next, _)) = ages.min_by_key(|(_, client)| client.makes_room_at_ms()) {
                self.clients.remove(next);
            }
        }
        true
    }

    fn take(&mut self, stream: TcpStream, now_ms: u64) {
        if stream.set_nonblocking(true).is_err() {
            self.failures += 1;
            return;
        }
        let mut client = Client { stream, until_ms: now_ms + CLIENT_MS, stage: Stage::Reading(Vec::new()) };
        // Its request has mostly come along.
        client.go_on();
        self.clients.push(client);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        listeners::remove(self.listener.as_fd());
        // Nobody is to be kept waiting by a child that has just been forked and still has a copy.
        // SAFETY: the descriptor is open.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// Linux hands a new connection's own errors to whoever accepts it (accept(2)).
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, PermissionDenied,
    };
    let kinds =
        [ConnectionAborted, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, PermissionDenied];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::EPROTO)
}

/// What a wait ended with.
struct Events {
    woken: bool,
    arrived: bool,
    /// For each client, whether something has happened to it.
    moved: std::vec::IntoIter<bool>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    until_ms: u64,
    stage: Stage,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Tells the client even where a forked child has a copy of the descriptor. Where the client is gone, there
        // is nothing to tell.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[derive(Debug)]
enum Stage {
    /// Its request, as far as it has come.
    Reading(Vec<u8>),
    /// A whole request, to be answered in this wake-up.
    Asked {
        question: Question,
        method: Method,
    },
    /// What is left of an answer for which the socket had no room.
    Writing(Vec<u8>),
    /// Answered, and still talking: hung up on now, it could lose its answer to the reset.
    Lingering,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Live,
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Head,
}

impl Client {
    fn events(&self) -> PollFlags {
        match self.stage {
            Stage::Reading(_) | Stage::Lingering => PollFlags::POLLIN,
            Stage::Writing(_) => PollFlags::POLLOUT,
            Stage::Asked { .. } | Stage::Over => PollFlags::empty(),
        }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        match self.stage {
            Stage::Over => true,
            Stage::Asked { .. } => false,
            _ => now_ms >= self.until_ms,
        }
    }

    /// When it may be hung up on for the sake of another.
    fn makes_room_at_ms(&self) -> u64 {
        match self.stage {
            Stage::Lingering | Stage::Over => 0,
            Stage::Reading(_) | Stage::Writing(_) => self.until_ms - CLIENT_MS + GRACE_MS,
            Stage::Asked { .. } => u64::MAX,
        }
    }

    /// Reads or writes once.
    fn go_on(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Reading(request) => self.read(request),
            Stage::Writing(rest) => self.send(&rest),
            Stage::Lingering => self.linger(),
            asked @ Stage::Asked { .. } => self.stage = asked,
            Stage::Over => {}
        }
    }

    fn read(&mut self, mut request: Vec<u8>) {
        let mut buffer = [0; MAX_REQUEST];
        let room = MAX_REQUEST - request.len();
        match self.stream.read(&mut buffer[..room]) {
            Ok(0) => {}
            Ok(length) => {
                request.extend_from_slice(&buffer[..length]);
                match understand(&request) {
                    Understood::Not(refusal) => self.send(&refusal.response()),
                    Understood::Asked(question, method) => self.stage = Stage::Asked { question, method },
                    Understood::NotYet => self.stage = Stage::Reading(request),
                }
            }
            Err(error) if is_for_later(&error) => self.stage = Stage::Reading(request),
            Err(_) => {}
        }
    }

    /// Sends an answer, or what is left of it, and ends the connection on this side.
    fn send(&mut self, response: &[u8]) {
        self.stage = match self.stream.write(response) {
            Ok(length) if length == response.len() => {
                // Where the client is gone, there is nothing to tell.
                let _ = self.stream.shutdown(Shutdown::Write);
                return self.linger();
            }
            Ok(length) => Stage::Writing(response[length..].to_vec()),
            Err(error) if is_for_later(&error) => Stage::Writing(response.to_vec()),
            Err(_) => Stage::Over,
        };
    }

    /// Reads what is of no interest, a bounded part of it, until the client ends.
    fn linger(&mut self) {
        let mut buffer = [0; MAX_REQUEST];
        self.stage = match self.stream.read(&mut buffer) {
            Ok(0) => Stage::Over,
            Ok(_) => Stage::Lingering,
            Err(error) if is_for_later(&error) => Stage::Lingering,
            Err(_) => Stage::Over,
        };
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[derive(Debug, PartialEq, Eq)]
enum Understood {
    NotYet,
    Asked(Question, Method),
    Not(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Malformed,
    NotFound(Method),
    OtherMethod,
    TooLarge,
}

/// What a request, as far as it has come, asks for (RFC 9112).
fn understand(request: &[u8]) -> Understood {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if request.len() < MAX_REQUEST => return Understood::NotYet,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Understood::Not(Refusal::TooLarge);
        }
        Err(_) => return Understood::Not(Refusal::Malformed),
    }
    let hosts = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).count();
    if hosts > 1 || hosts == 0 && head.version == Some(1) {
        return Understood::Not(Refusal::Malformed);
    }
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => return Understood::Not(Refusal::OtherMethod),
    };
    match question(head.path.unwrap_or_default()) {
        Some(question) => Understood::Asked(question, method),
        None => Understood::Not(Refusal::NotFound(method)),
    }
}

fn question(target: &str) -> Option<Question> {
    let path = match target.split_once("://") {
        // The whole URL, as a proxy is asked.
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match path.strip_suffix('/').unwrap_or(path) {
        "/livez" => Some(Question::Live),
        "/readyz" => Some(Question::Ready),
        _ => None,
    }
}

impl Refusal {
    fn response(self) -> Vec<u8> {
        let (status, allow, text) = match self {
            Self::Malformed => ("400 Bad Request", "", "this is not an HTTP request"),
            Self::NotFound(_) => ("404 Not Found", "", "there are /livez and /readyz"),
            Self::OtherMethod => ("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "there are GET and HEAD"),
            Self::TooLarge => ("431 Request Header Fields Too Large", "", "the request is too large"),
        };
        let mut body = br#"{"error":"#.to_vec();
        write_string(&mut body, text);
        body.extend_from_slice(b"}\n");
        let method = if let Self::NotFound(method) = self { method } else { Method::Get };
        response(status, allow, method, &body)
    }
}

fn verdict_response(
    question: Question,
    method: Method,
    record: &Record,
    judgement: &Judgement<'_>,
    now_ms: u64,
) -> Vec<u8> {
    let verdict = judgement.verdict;
    // A worker always knows its own state; what it did not know would not pass.
    let passed = match question {
        Question::Live => verdict.live() == Some(true),
        Question::Ready => verdict.ready() == Some(true),
    };
    let word = match (passed, verdict) {
        (true, Verdict::CutOff) => "warn",
        (true, _) => "pass",
        (false, _) => "fail",
    };
    let mut body = Vec::with_capacity(256);
    let reason = judgement.to_string();
    let members = [
        ("status", word),
        ("verdict", verdict.as_str()),
        ("reason", &reason),
        ("worker", &record.worker),
        ("cluster", &record.cluster),
    ];
    body.push(b'{');
    for (name, value) in members {
        write_string(&mut body, name);
        body.push(b':');
        write_string(&mut body, value);
        body.push(b',');
    }
    body.extend_from_slice(br#""age_ms":"#);
    write_number(&mut body, now_ms.saturating_sub(record.at_mono_ms));
    body.extend_from_slice(b"}\n");
    let status = if passed { "200 OK" } else { "503 Service Unavailable" };
    response(status, "", method, &body)
}

fn response(status: &str, allow: &str, method: Method, body: &[u8]) -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 {status}\r\n{allow}Content-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if method == Method::Get {
        response.extend_from_slice(body);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(question: Question) -> Understood {
        Understood::Asked(question, Method::Get)
    }

    #[test]
    fn a_target_is_found_with_or_without_slash_query_and_host() {
        for live in
            ["/livez", "/livez/", "/livez?verbose", "/livez/?a=http://b/readyz", "http://host:80/livez"]
        {
            assert_eq!(question(live), Some(Question::Live), "{live}");
        }
        assert_eq!(question("/readyz"), Some(Question::Ready));
        for other in
            ["", "/", "*", "livez", "/livez/x", "/livez//", "//livez", "/LIVEZ", "/?/livez", "http://livez"]
        {
            assert_eq!(question(other), None, "{other}");
        }
    }

    #[test]
    fn a_request_is_understood_at_every_length() {
        let request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..request.len() {
            assert_eq!(understand(&request[..length]), Understood::NotYet, "{length}");
        }
        assert_eq!(understand(request), asked(Question::Live));
    }

    #[test]
    fn only_a_newer_client_must_name_the_host() {
        assert_eq!(understand(b"GET /readyz HTTP/1.0\r\n\r\n"), asked(Question::Ready));
        let malformed = Understood::Not(Refusal::Malformed);
        assert_eq!(understand(b"GET /readyz HTTP/1.1\r\n\r\n"), malformed);
        assert_eq!(understand(b"GET /readyz HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"), malformed);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"hello\r\n\r\n", b"GET /livez HTTP/2.0\r\n\r\n"] {
            assert_eq!(understand(bytes), Understood::Not(Refusal::Malformed), "{bytes:?}");
        }
        let post = b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(understand(post), Understood::Not(Refusal::OtherMethod));
        let many = format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(understand(many.as_bytes()), Understood::Not(Refusal::TooLarge));
        let long = [b"GET /".to_vec(), vec![b'a'; MAX_REQUEST]].concat();
        assert_eq!(understand(&long[..MAX_REQUEST]), Understood::Not(Refusal::TooLarge));
    }
}
