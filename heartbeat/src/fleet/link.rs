//! One connection to one server: bytes out, answers in, none of them larger than it may be.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use redis::{Cmd, Parser, Value, cmd};

use super::ask::{Answer, Packed, Refusal};
use super::error::{Error, ErrorKind};
use super::socket::{Patience, Stream};
use super::url::{Host, Login};

/// The most that all answers of one round trip may take, in bytes.
pub const MOST_BYTES: u64 = 8 << 20;

/// The most that one answer about workers may take, in bytes: more than twice as much as a hundred of the largest records.
/// An answer of nothing but nested arrays takes fifty times its size of memory, until it is found to be none.
pub const MOST_EACH: u64 = 1 << 20;

/// For how long a connection that has answered is not one that may have been forgotten on the way.
const FRESH: Duration = Duration::from_millis(500);

/// A connection that is ready to be asked.
pub struct Link {
    stream: Stream,
    parser: Parser,
    /// None for a socket.
    pub host: Option<Host>,
    /// When something was asked and answered before, if ever: since then it may have died.
    pub answered: Option<Instant>,
}

/// Whether a connection that stood is no more.
pub fn lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

/// What went wrong between here and `place`.
pub fn explain(place: impl fmt::Display, error: &io::Error) -> Error {
    match error.kind() {
        _ if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Garbage>) => {
            Error::new(ErrorKind::Garbled, format!("{place}: {error}"))
        }
        _ => Error::io(place, error),
    }
}

/// Marks what is no proper answer.
#[derive(Debug)]
struct Garbage(&'static str);

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Garbage {}

fn garbage(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Garbage(what))
}

impl Link {
    pub fn new(stream: Stream, host: Option<Host>) -> Self {
        Self { stream, parser: Parser::new(), host, answered: None }
    }

    /// Writes.
    pub fn say(&mut self, bytes: &[u8], patience: &Patience) -> io::Result<()> {
        self.stream.set_patience(patience.clone());
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Whether it may have been forgotten on the way, by a firewall, which nobody is told. A socket of this host is not.
    pub fn is_doubtful(&self) -> bool {
        self.host.is_some() && self.answered.is_some_and(|then| then.elapsed() >= FRESH)
    }

    /// Waits until something comes, or the end; whether it does.
    pub fn hears(&self, patience: &Patience) -> bool {
        self.stream.hears(patience)
    }

    /// The patience of who waits for another connection, and no longer than until something comes over this one.
    pub fn beside(&self, patience: &Patience) -> Patience {
        patience.beside(&self.stream)
    }

    /// Asks what an exchange asks before it reads; how many bytes that was.
    pub fn begin(&mut self, packed: &Packed, ahead: usize, patience: &Patience) -> io::Result<usize> {
        let said = packed.ends.get(ahead).or(packed.ends.last()).copied().unwrap_or_default();
        self.say(&packed.bytes[..said], patience)?;
        Ok(said)
    }

    /// Asks all but what was `said` already, `ahead` questions before the one whose answer is read, and hands each answer on
    /// with its question's number; none of them is larger than `most_each`. So the server never has more than that to do at
    /// once, and both work at the same time.
    pub fn exchange(
        &mut self,
        packed: &Packed,
        (mut said, ahead): (usize, usize),
        most_each: u64,
        patience: &Patience,
        mut take: impl FnMut(usize, Answer),
    ) -> io::Result<()> {
        let mut left = MOST_BYTES;
        self.stream.set_patience(patience.clone());
        for turn in 0..packed.ends.len() {
            let last = turn.saturating_add(ahead).min(packed.ends.len() - 1);
            let next = packed.ends[last];
            if next > said {
                self.say(&packed.bytes[said..next], patience)?;
                said = next;
            }
            take(turn, self.read(most_each, &mut left)?);
        }
        Ok(())
    }

    /// Reads one answer that is no larger than `most`, and takes what it has read from what is `left`.
    fn read(&mut self, most: u64, left: &mut u64) -> io::Result<Answer> {
        let most = most.min(*left);
        let mut reader = Bounded { stream: &mut self.stream, left: most, failure: None };
        let answer = match self.parser.parse_value(&mut reader) {
            Ok(Value::ServerError(error)) => Err(Refusal::of(&error)),
            Ok(value) => Ok(value),
            Err(_) => return Err(reader.failure.take().unwrap_or_else(|| garbage("no answer of a Redis"))),
        };
        *left -= most - reader.left;
        Ok(answer)
    }

    /// Waits for something that the server says.
    pub fn listen(&mut self, patience: &Patience) -> io::Result<Answer> {
        self.stream.set_patience(patience.clone());
        self.read(MOST_BYTES, &mut MOST_BYTES.clone())
    }

    /// Asks one thing.
    pub fn one(&mut self, command: &Cmd, patience: &Patience) -> Result<Answer, Error> {
        let said = self.say(&command.get_packed_command(), patience);
        let answer = said.and_then(|()| self.listen(patience));
        answer.map_err(|error| match &self.host {
            Some(host) => explain(host, &error),
            None => explain("the Redis socket", &error),
        })
    }

    pub fn log_in(&mut self, login: &Login, patience: &Patience) -> Result<Answer, Error> {
        let mut auth = cmd("AUTH");
        if let Some(user) = &login.user {
            auth.arg(user);
        }
        auth.arg(&login.password);
        self.one(&auth, patience)
    }
}

/// Reads no more than it may, and remembers why it stopped.
struct Bounded<'a> {
    stream: &'a mut Stream,
    left: u64,
    failure: Option<io::Error>,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.stream.read(buffer) {
            Ok(0) if !buffer.is_empty() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"))
            }
            Ok(read) => match self.left.checked_sub(read as u64) {
                Some(left) => {
                    self.left = left;
                    Ok(read)
                }
                None => Err(garbage("an answer that is too large")),
            },
            Err(error) => Err(error),
        };
        read.map_err(|error| {
            let kind = error.kind();
            self.failure = Some(error);
            kind.into()
        })
    }
}
