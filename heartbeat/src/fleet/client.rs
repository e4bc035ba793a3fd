//! One client for every kind of server: it finds the node that holds a cluster's keys, keeps a connection to it, and
//! runs scripts there, many in one round trip.
//!
//! All keys of a cluster lie in one slot, so of a Redis Cluster one node matters at a time: the one that a seed
//! names with MOVED. Of Sentinel one answer matters: where the master is, asked anew for each connection.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use redis::{Cmd, Parser, ServerErrorKind, Value, cmd};

use super::error::{Error, ErrorKind, Printable};
use super::socket::{Names, Patience, Stream};
use super::tls::Tls;
use super::url::{Host, Login, Servers, Url};

/// The most that all answers of one round trip may take, in bytes: four times the largest page.
const MOST_BYTES: u64 = 8 << 20;

/// How often one call follows MOVED, ASK and failovers.
const MOST_HOPS: usize = 5;

/// A Lua script and its SHA-1.
pub struct Script {
    code: &'static str,
    hash: String,
    once: bool,
}

impl Script {
    pub fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned(), once: false }
    }

    /// Always sent whole: for what is asked once, and perhaps without a chance to hear that it is not known.
    pub fn once(code: &'static str) -> Self {
        Self { once: true, ..Self::new(code) }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.hash)
    }
}

/// One thing to ask: a command, or a script with its keys and arguments.
pub enum Ask<'a> {
    Command(Cmd),
    Script { script: &'a Script, keys: Vec<Vec<u8>>, arguments: Vec<Vec<u8>> },
}

/// How scripts are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// By their hashes, which the server knows.
    Known,
    /// Whole, each the first time: the server knows it from then on.
    New,
}

impl Ask<'_> {
    fn script(&self) -> Option<&Script> {
        match self {
            Self::Command(_) => None,
            Self::Script { script, .. } => Some(script),
        }
    }

    fn pack(&self, whole: bool, bytes: &mut Vec<u8>) {
        match self {
            Self::Command(command) => command.write_packed_command(bytes),
            Self::Script { script, keys, arguments } => {
                let whole = whole || script.once;
                let mut command = if whole { cmd("EVAL") } else { cmd("EVALSHA") };
                if whole {
                    command.arg(script.code);
                } else {
                    command.arg(script.hash.as_str());
                }
                command.arg(keys.len());
                for argument in keys.iter().chain(arguments) {
                    command.arg(argument.as_slice());
                }
                command.write_packed_command(bytes);
            }
        }
    }
}

/// Packs one question after another; `before` goes before each.
fn pack_all<'a>(
    questions: impl IntoIterator<Item = &'a Ask<'a>>,
    sent: Sent,
    before: Option<&Cmd>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    for question in questions {
        if let Some(before) = before {
            before.write_packed_command(&mut bytes);
        }
        let hash = question.script().map(|script| script.hash.as_str());
        let new = hash.is_some_and(|hash| sent == Sent::New && !told.contains(&hash));
        told.extend(hash.filter(|_| new));
        question.pack(new, &mut bytes);
    }
    bytes
}

/// What a server said to one question.
pub type Answer = Result<Value, Refusal>;

/// An error that a server answered with.
#[derive(Clone, Debug)]
pub struct Refusal {
    code: String,
    details: String,
    kind: Option<ServerErrorKind>,
}

impl Refusal {
    /// As an error that came from `place`.
    pub fn at(&self, place: &str) -> Error {
        // Where in a script it happened is for nobody.
        let details = match self.details.rsplit_once(" script: ") {
            Some((details, place)) if place.contains("on @user_script") => details,
            _ => &self.details,
        };
        // Of a denial within a script the code says nothing; the words are those of Redis 7.0, and of Valkey.
        let denied = matches!(self.code.as_str(), "NOPERM" | "NOAUTH" | "WRONGPASS")
            || details.starts_with("The user executing the script can't")
            || details.starts_with("ACL failure in script");
        let kind = if denied { ErrorKind::Denied } else { ErrorKind::Server };
        let text = Printable(details);
        let hint = match self.kind {
            Some(ServerErrorKind::Moved) => " (a Redis Cluster: its URL is redis+cluster://)",
            _ => "",
        };
        let text = format!("{place}: {} {text}{hint}", Printable(&self.code));
        Error::new(kind, text).with_code(&self.code)
    }

    /// Whether another node is the one to ask now, or this one once it is connected to anew.
    fn is_stale(&self) -> bool {
        matches!(self.kind, Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
            || matches!(self.code.as_str(), "NOAUTH")
    }

    /// Where a MOVED or ASK points to; a nameless host is the one that said so.
    fn target(&self, from: Option<&Host>) -> Option<Host> {
        let (_, address) = self.details.split_once(' ')?;
        let (name, port) = address.rsplit_once(':')?;
        let name = if name.is_empty() { &from?.name } else { name };
        if name == "?" {
            return None;
        }
        Some(Host { name: name.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
    }
}

/// How to ask once more.
enum Way {
    /// With the scripts themselves, which the server does not know yet.
    Whole,
    /// This node, for this once.
    Aside(Host),
    /// Over a new connection: to this node, or to whoever is found to be the one.
    Elsewhere(Option<Host>),
}

/// A connection that is ready to be asked.
struct Link {
    stream: Stream,
    parser: Parser,
    host: Option<Host>,
    used: bool,
}

/// See the file's head.
pub struct Client {
    url: Url,
    link: Option<Link>,
    /// The node that a Redis Cluster named last.
    owner: Option<Host>,
    /// Which seed or sentinel is asked first: the one that answered last.
    first: usize,
    names: Names,
    given_up: Arc<AtomicBool>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// No connection yet. Where `given_up` is set, what waits ends at once.
    pub fn new(url: Url, given_up: Arc<AtomicBool>) -> Self {
        Self { url, link: None, owner: None, first: 0, names: Names::default(), given_up }
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The server that answered last.
    pub fn place(&self) -> String {
        match self.link.as_ref().and_then(|link| link.host.as_ref()) {
            Some(host) => host.to_string(),
            None => self.url.to_string(),
        }
    }

    /// Asks all at once and waits for all answers. One round trip, where a connection stands and the server knows
    /// the scripts; connecting, a script that must be sent whole, and a move of the keys each cost more.
    pub fn ask(&mut self, questions: &[Ask<'_>], until: Instant) -> Result<Vec<Answer>, Error> {
        let patience = Patience::new(until, &self.given_up);
        let all: Vec<usize> = (0..questions.len()).collect();
        let mut answers = self.ask_some(questions, &all, Sent::Known, &patience)?;
        for _ in 0..MOST_HOPS {
            let Some((again, way)) = self.way_on(&answers) else { break };
            let anew = match way {
                Way::Whole => self.ask_some(questions, &again, Sent::New, &patience)?,
                Way::Aside(target) => self.ask_aside(&target, questions, &again, &patience)?,
                Way::Elsewhere(owner) => {
                    self.owner = owner;
                    self.link = None;
                    self.ask_some(questions, &again, Sent::Known, &patience)?
                }
            };
            for (index, answer) in again.into_iter().zip(anew) {
                answers[index] = answer;
            }
        }
        // What must be connected to anew to become better is.
        if answers.iter().any(|answer| answer.as_ref().is_err_and(Refusal::is_stale)) {
            self.link = None;
        }
        if let Some(link) = &mut self.link {
            link.used = true;
        }
        Ok(answers)
    }

    /// A connection of its own on which everything arrives that is published on channels of these patterns.
    pub fn subscribe(&mut self, patterns: &[String], until: Instant) -> Result<Ear, Error> {
        let patience = Patience::new(until, &self.given_up);
        let link = self.connect(&patience)?;
        let place = link.host.as_ref().map_or_else(|| self.url.to_string(), Host::to_string);
        let mut ear = Ear { link, place, given_up: Arc::clone(&self.given_up) };
        ear.say(cmd("PSUBSCRIBE").arg(patterns), until)?;
        // The server confirms each pattern; only then does silence mean anything.
        for _ in patterns {
            if ear.next(until)?.is_none() {
                return Err(Error::new(ErrorKind::TimedOut, format!("{}: no answer in time", ear.place)));
            }
        }
        Ok(ear)
    }

    /// Which questions to ask once more, and how. All keys move together, so the first of them tells where to.
    fn way_on(&self, answers: &[Answer]) -> Option<(Vec<usize>, Way)> {
        let refused = |wanted: &dyn Fn(&Refusal) -> bool| -> Vec<usize> {
            let is = |index: &usize| answers[*index].as_ref().is_err_and(wanted);
            (0..answers.len()).filter(is).collect()
        };
        let target = |again: &[usize]| {
            let here = self.link.as_ref().and_then(|link| link.host.as_ref());
            answers[*again.first()?].as_ref().err()?.target(here)
        };
        let unknown = refused(&|refusal| refusal.kind == Some(ServerErrorKind::NoScript));
        if !unknown.is_empty() {
            return Some((unknown, Way::Whole));
        }
        if let Servers::Cluster(_) = self.url.servers {
            let moved = refused(&|refusal| refusal.kind == Some(ServerErrorKind::Moved));
            if !moved.is_empty() {
                let owner = target(&moved);
                return Some((moved, Way::Elsewhere(owner)));
            }
            let asked = refused(&|refusal| refusal.kind == Some(ServerErrorKind::Ask));
            if let Some(target) = target(&asked) {
                return Some((asked, Way::Aside(target)));
            }
        }
        let stale = refused(&Refusal::is_stale);
        let was_idle = self.link.as_ref().is_some_and(|link| link.used);
        (was_idle && !stale.is_empty()).then_some((stale, Way::Elsewhere(None)))
    }

    /// Asks the node to which a slot is just being moved, over a connection for this once.
    fn ask_aside(
        &mut self,
        target: &Host,
        questions: &[Ask<'_>],
        which: &[usize],
        patience: &Patience,
    ) -> Result<Vec<Answer>, Error> {
        let tls = self.tls()?;
        let mut link = self.open(target, tls.as_ref(), patience)?;
        let asked = which.iter().map(|index| &questions[*index]);
        let bytes = pack_all(asked, Sent::New, Some(&cmd("ASKING")));
        let answers = link.exchange(&bytes, which.len() * 2, patience);
        let answers = answers.map_err(|error| explain(target, &error))?;
        Ok(answers.into_iter().skip(1).step_by(2).collect())
    }

    /// Over the connection that stands, and where that turns out to be dead, once more over a new one.
    fn ask_some(
        &mut self,
        questions: &[Ask<'_>],
        which: &[usize],
        sent: Sent,
        patience: &Patience,
    ) -> Result<Vec<Answer>, Error> {
        let bytes = pack_all(which.iter().map(|index| &questions[*index]), sent, None);
        loop {
            let link = match self.link.take() {
                Some(link) => link,
                None => self.connect(patience)?,
            };
            let link = self.link.insert(link);
            match link.exchange(&bytes, which.len(), patience) {
                Ok(answers) => return Ok(answers),
                Err(error) => {
                    let was_idle = link.used && lost(&error);
                    let place = self.place();
                    self.link = None;
                    if !was_idle {
                        self.owner = None;
                        return Err(explain(place, &error));
                    }
                }
            }
        }
    }

    fn tls(&self) -> Result<Option<Tls>, Error> {
        self.url.tls.as_ref().map(Tls::load).transpose()
    }

    fn connect(&mut self, patience: &Patience) -> Result<Link, Error> {
        let tls = self.tls()?;
        match self.url.servers.clone() {
            Servers::One(host) => self.open(&host, tls.as_ref(), patience),
            Servers::Unix(path) => {
                let stream = Stream::unix(&path, patience).map_err(|error| explain(&self.url, &error))?;
                self.enter(Link::new(stream, None), self.url.login.clone().as_ref(), patience)
            }
            Servers::Cluster(seeds) => {
                if let Some(owner) = self.owner.clone() {
                    // It may be dead: then a seed knows its successor.
                    if let Ok(link) = self.open(&owner, tls.as_ref(), &patience.share(2)) {
                        return Ok(link);
                    }
                    self.owner = None;
                }
                self.each(&seeds, patience, |client, seed, share| client.open(seed, tls.as_ref(), share))
            }
            Servers::Sentinel { sentinels, service } => {
                self.each(&sentinels, patience, |client, sentinel, share| {
                    client.open_master(sentinel, &service, tls.as_ref(), share)
                })
            }
        }
    }

    /// Tries one after another, from the one that answered last.
    fn each(
        &mut self,
        hosts: &[Host],
        patience: &Patience,
        mut open: impl FnMut(&mut Self, &Host, &Patience) -> Result<Link, Error>,
    ) -> Result<Link, Error> {
        let mut failure = Error::new(ErrorKind::Unreachable, "there is no host to ask");
        for turn in 0..hosts.len() {
            let index = (self.first + turn) % hosts.len();
            let share = patience.share(hosts.len() - turn);
            match open(self, &hosts[index], &share) {
                Ok(link) => {
                    self.first = index;
                    return Ok(link);
                }
                Err(error) => failure = error,
            }
        }
        // So that a host that connects and does not help is not the first one for ever.
        self.first = (self.first + 1) % hosts.len().max(1);
        Err(failure)
    }

    fn open(&mut self, host: &Host, tls: Option<&Tls>, patience: &Patience) -> Result<Link, Error> {
        let stream =
            Stream::tcp(host, tls, &mut self.names, patience).map_err(|error| explain(host, &error))?;
        let login = self.url.login.clone();
        self.enter(Link::new(stream, Some(host.clone())), login.as_ref(), patience)
    }

    /// Logs in and chooses the database.
    fn enter(&self, mut link: Link, login: Option<&Login>, patience: &Patience) -> Result<Link, Error> {
        let place = link.host.as_ref().map_or_else(|| self.url.to_string(), Host::to_string);
        if let Some(login) = login {
            link.log_in(login, patience)?.map_err(|refusal| login_error(&place, &refusal))?;
        }
        if self.url.db != 0 {
            let chosen = link.one(cmd("SELECT").arg(self.url.db), patience)?;
            chosen.map_err(|refusal| refusal.at(&place))?;
        }
        Ok(link)
    }

    fn open_master(
        &mut self,
        sentinel: &Host,
        service: &str,
        tls: Option<&Tls>,
        patience: &Patience,
    ) -> Result<Link, Error> {
        let stream = Stream::tcp(sentinel, tls, &mut self.names, patience)
            .map_err(|error| explain(sentinel, &error))?;
        let mut link = Link::new(stream, Some(sentinel.clone()));
        let place = sentinel.to_string();
        if let Some(login) = &self.url.sentinel_login {
            link.log_in(login, patience)?.map_err(|refusal| login_error(&place, &refusal))?;
        }
        let answer = link.one(cmd("SENTINEL").arg("get-master-addr-by-name").arg(service), patience)?;
        let master = match answer.map_err(|refusal| refusal.at(&place))? {
            Value::Array(parts) => address(&parts),
            _ => None,
        };
        let unknown = || {
            let service = Printable(service);
            Error::new(ErrorKind::Server, format!("{place}: this Sentinel knows no master of {service}"))
        };
        let master = master.ok_or_else(unknown)?;
        let mut link = self.open(&master, tls, patience)?;
        // Without the right to ask, the first write tells.
        if let Ok(Value::Array(role)) = link.one(&cmd("ROLE"), patience)?
            && role.first().and_then(text).is_some_and(|role| role != "master")
        {
            let text = format!("{master}: Sentinel at {place} calls it the master, and it is not");
            return Err(Error::new(ErrorKind::Unreachable, text));
        }
        Ok(link)
    }
}

/// A connection that has subscribed.
pub struct Ear {
    link: Link,
    place: String,
    given_up: Arc<AtomicBool>,
}

impl Ear {
    pub fn say(&mut self, command: &Cmd, until: Instant) -> Result<(), Error> {
        self.link.stream.set_patience(Patience::new(until, &self.given_up));
        let stream = &mut self.link.stream;
        let said = stream.write_all(&command.get_packed_command()).and_then(|()| stream.flush());
        said.map_err(|error| explain(&self.place, &error))
    }

    /// What arrives next; `None` where nothing has until then.
    pub fn next(&mut self, until: Instant) -> Result<Option<Value>, Error> {
        match self.link.read(1, &Patience::new(until, &self.given_up)) {
            Ok(mut read) => match read.pop() {
                Some(Err(refusal)) => Err(refusal.at(&self.place)),
                Some(Ok(value)) => Ok(Some(value)),
                None => Ok(None),
            },
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(explain(&self.place, &error)),
        }
    }
}

fn address(parts: &[Value]) -> Option<Host> {
    let [name, port] = parts else { return None };
    Some(Host { name: text(name)?.to_owned(), port: text(port)?.parse().ok()? })
}

/// A string in an answer.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

/// Never the server's own words: of a command that it does not know it tells the arguments, and there the password is.
fn login_error(place: &str, refusal: &Refusal) -> Error {
    let code = Printable(&refusal.code);
    let text = format!("{place}: the user or password is refused ({code})");
    Error::new(ErrorKind::Denied, text).with_code(&refusal.code)
}

fn lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

fn explain(place: impl fmt::Display, error: &io::Error) -> Error {
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
    fn new(stream: Stream, host: Option<Host>) -> Self {
        Self { stream, parser: Parser::new(), host, used: false }
    }

    /// Writes, and reads that many answers.
    fn exchange(&mut self, bytes: &[u8], answers: usize, patience: &Patience) -> io::Result<Vec<Answer>> {
        self.stream.set_patience(patience.clone());
        self.stream.write_all(bytes)?;
        self.stream.flush()?;
        self.read(answers, patience)
    }

    /// Reads that many answers.
    fn read(&mut self, answers: usize, patience: &Patience) -> io::Result<Vec<Answer>> {
        self.stream.set_patience(patience.clone());
        let mut reader = Bounded { stream: &mut self.stream, left: MOST_BYTES, failure: None };
        let mut read = Vec::with_capacity(answers);
        for _ in 0..answers {
            match self.parser.parse_value(&mut reader) {
                Ok(Value::ServerError(error)) => read.push(Err(Refusal {
                    code: error.code().to_owned(),
                    details: error.details().unwrap_or_default().to_owned(),
                    kind: error.kind(),
                })),
                Ok(value) => read.push(Ok(value)),
                Err(_) => {
                    return Err(reader.failure.take().unwrap_or_else(|| garbage("no answer of a Redis")));
                }
            }
        }
        Ok(read)
    }

    fn one(&mut self, command: &Cmd, patience: &Patience) -> Result<Answer, Error> {
        let answers = self.exchange(&command.get_packed_command(), 1, patience);
        let answer = answers
            .and_then(|answers| answers.into_iter().next().ok_or_else(|| garbage("no answer of a Redis")));
        answer.map_err(|error| match &self.host {
            Some(host) => explain(host, &error),
            None => explain("the Redis socket", &error),
        })
    }

    fn log_in(&mut self, login: &Login, patience: &Patience) -> Result<Answer, Error> {
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

#[cfg(test)]
mod tests;
