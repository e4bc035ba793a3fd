//! One client for every kind of server: it finds the node that holds a cluster's keys, keeps a connection to it, and
//! runs scripts there, many in one round trip.
//!
//! All keys of a cluster lie in one slot, so of a Redis Cluster one node matters at a time: the one that a seed
//! names with MOVED. Of Sentinel one answer matters: where the master is, asked anew for each connection.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use redis::{Cmd, Value, cmd};

use super::ask::{Answer, Ask, Packed, Refusal, Sent, pack_all, text};
use super::error::{Error, ErrorKind, Printable};
use super::link::{Link, MOST_BYTES, MOST_EACH, explain, lost};
use super::socket::{Names, Patience, Stream};
use super::tls::Tls;
use super::url::{Host, Login, Servers, Url};
use super::{garbled, time_ms};
use crate::duration::millis;

/// How often one call follows MOVED, ASK and failovers.
const MOST_HOPS: usize = 5;

/// How many questions are asked before the first answer is read: where answers come one by one, what the server does
/// next while one is worked on.
const A_FEW: usize = 4;
const ALL: usize = usize::MAX;

/// Which questions were refused, and why.
pub type Refused = Vec<(usize, Refusal)>;

fn sort_out(index: usize, answer: Answer, take: &mut impl FnMut(usize, Value), refused: &mut Refused) {
    match answer {
        Ok(value) => take(index, value),
        Err(refusal) => refused.push((index, refusal)),
    }
}

/// Whether a refusal is one of those that are asked once more in the same way.
type Kind = fn(&Refusal) -> bool;

/// What is thought of a connection that was kept.
#[derive(Clone, Copy)]
enum Kept {
    /// It may have been forgotten on the way, where nobody is told.
    Doubted,
    /// It is good until it turns out to be dead.
    Trusted,
}

/// Questions on their way.
struct Batch<'a> {
    packed: Packed,
    /// The number of each.
    which: &'a [usize],
    /// How many are asked before the first answer is read.
    ahead: usize,
}

impl<'a> Batch<'a> {
    fn of(questions: &[Ask<'_>], which: &'a [usize], sent: Sent, ahead: usize) -> Self {
        Self { packed: pack_all(which.iter().map(|index| &questions[*index]), sent), which, ahead }
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

/// See the file's head.
pub struct Client {
    url: Url,
    link: Option<Link>,
    /// The node that a Redis Cluster named last.
    owner: Option<Host>,
    /// Which seed or sentinel is asked first: the one that answered last.
    first: usize,
    names: Names,
    most_each: u64,
    /// Whether the last call ended without all answers: what does not know the scripts may be too late to say so.
    unheard: bool,
    /// What the server's clock said, and when it did.
    time: Option<(u64, Instant)>,
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
        let names = Names::default();
        let most_each = MOST_EACH;
        Self {
            url,
            link: None,
            owner: None,
            first: 0,
            names,
            most_each,
            unheard: false,
            time: None,
            given_up,
        }
    }

    /// The same, for answers that may be as large as a round trip's together.
    pub fn of_large_answers(self) -> Self {
        Self { most_each: MOST_BYTES, ..self }
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
        self.ask_all(questions, Kept::Doubted, until)
    }

    /// The same for who comes again anyway, and is one of very many: a connection that was forgotten on the way costs its
    /// deadline once, and a server that is slow is not connected to once more by each of them.
    pub fn tell(&mut self, questions: &[Ask<'_>], until: Instant) -> Result<Vec<Answer>, Error> {
        self.ask_all(questions, Kept::Trusted, until)
    }

    /// The server's clock, in milliseconds: as it said last over this connection and the time since, or else by asking it.
    pub fn time_ms(&mut self, until: Instant) -> Result<u64, Error> {
        if let Some((then_ms, heard)) = self.time.filter(|_| self.link.is_some()) {
            return Ok(then_ms.saturating_add(millis(heard.elapsed())));
        }
        let answer = self.tell(&[Ask::Command(cmd("TIME"))], until)?.pop();
        let now_ms = match answer {
            Some(Ok(Value::Array(time))) => time_ms(&time),
            Some(Err(refusal)) => return Err(refusal.at(&self.place())),
            _ => None,
        };
        let now_ms = now_ms.ok_or_else(|| garbled(&self.place()))?;
        self.time = Some((now_ms, Instant::now()));
        Ok(now_ms)
    }

    /// The server has just said so.
    pub fn set_time_ms(&mut self, now_ms: i64) {
        self.time = u64::try_from(now_ms).ok().map(|now_ms| (now_ms, Instant::now()));
    }

    /// Makes sure that the connection was not forgotten on the way, where it may have been: before something that should not
    /// reach the server twice.
    pub fn prove(&mut self, until: Instant) -> Result<(), Error> {
        if self.link.as_ref().is_some_and(Link::is_doubtful) {
            // A refusal is an answer, too.
            self.ask(&[Ask::Command(cmd("PING"))], until)?;
        }
        Ok(())
    }

    fn ask_all(&mut self, questions: &[Ask<'_>], kept: Kept, until: Instant) -> Result<Vec<Answer>, Error> {
        let mut answers: Vec<Answer> = questions.iter().map(|_| Ok(Value::Nil)).collect();
        let take = |index: usize, value| answers[index] = Ok(value);
        let refused = self.ask_ahead(questions, (ALL, kept), until, take)?;
        for (index, refusal) in refused {
            answers[index] = Err(refusal);
        }
        Ok(answers)
    }

    /// The same, a few questions ahead, and hands each answer on as it comes, with its question's index: it is worked on while
    /// the server works on the next, and others' questions come between. Where a connection dies meanwhile, answers come
    /// again, and those that came last count. What was refused in the end is the result.
    pub fn ask_each(
        &mut self,
        questions: &[Ask<'_>],
        until: Instant,
        take: impl FnMut(usize, Value),
    ) -> Result<Refused, Error> {
        self.ask_ahead(questions, (A_FEW, Kept::Doubted), until, take)
    }

    fn ask_ahead(
        &mut self,
        questions: &[Ask<'_>],
        (ahead, kept): (usize, Kept),
        until: Instant,
        mut take: impl FnMut(usize, Value),
    ) -> Result<Refused, Error> {
        let patience = Patience::new(until, &self.given_up);
        let all: Vec<usize> = (0..questions.len()).collect();
        let sent = if self.unheard { Sent::New } else { Sent::Known };
        self.unheard = true;
        let first = Batch::of(questions, &all, sent, ahead);
        let mut refused = match kept {
            Kept::Doubted => self.ask_doubting(&first, &patience, &mut take)?,
            Kept::Trusted => self.ask_batch(&first, 0, &patience, &mut take)?,
        };
        for _ in 0..MOST_HOPS {
            let Some((is_one, way)) = self.way_on(&refused) else { break };
            let (again, others): (Refused, Refused) =
                refused.into_iter().partition(|(_, refusal)| is_one(refusal));
            let again: Vec<_> = again.into_iter().map(|(index, _)| index).collect();
            let anew = match way {
                Way::Whole => {
                    let whole = Batch::of(questions, &again, Sent::New, ahead);
                    self.ask_batch(&whole, 0, &patience, &mut take)?
                }
                Way::Aside(target) => self.ask_aside(&target, questions, &again, &patience, &mut take)?,
                Way::Elsewhere(owner) => {
                    self.owner = owner;
                    self.link = None;
                    let moved = Batch::of(questions, &again, Sent::Known, ahead);
                    self.ask_batch(&moved, 0, &patience, &mut take)?
                }
            };
            refused = others;
            refused.extend(anew);
        }
        // What must be connected to anew to become better is.
        if refused.iter().any(|(_, refusal)| refusal.is_stale()) {
            self.link = None;
        }
        if let Some(link) = &mut self.link {
            link.answered = Some(Instant::now());
        }
        self.unheard = false;
        Ok(refused)
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

    /// Which of the refused to ask once more, and how. All keys move together, so the first of them tells where to.
    fn way_on(&self, refused: &[(usize, Refusal)]) -> Option<(Kind, Way)> {
        let first = |wanted: Kind| refused.iter().map(|(_, refusal)| refusal).find(|refusal| wanted(refusal));
        let here = self.link.as_ref().and_then(|link| link.host.as_ref());
        if first(Refusal::is_of_no_script).is_some() {
            return Some((Refusal::is_of_no_script, Way::Whole));
        }
        if let Servers::Cluster(_) = self.url.servers {
            if let Some(moved) = first(Refusal::is_moved) {
                return Some((Refusal::is_moved, Way::Elsewhere(moved.target(here))));
            }
            if let Some(target) = first(Refusal::is_asked_aside).and_then(|asked| asked.target(here)) {
                return Some((Refusal::is_asked_aside, Way::Aside(target)));
            }
        }
        let was_idle = self.link.as_ref().is_some_and(|link| link.answered.is_some());
        first(Refusal::is_stale).filter(|_| was_idle)?;
        Some((Refusal::is_stale, Way::Elsewhere(None)))
    }

    /// Asks the node to which a slot is just being moved, over a connection for this once.
    fn ask_aside(
        &mut self,
        target: &Host,
        questions: &[Ask<'_>],
        which: &[usize],
        patience: &Patience,
        take: &mut impl FnMut(usize, Value),
    ) -> Result<Refused, Error> {
        let tls = self.tls()?;
        let mut link = self.open(target, tls.as_ref(), patience)?;
        let asking = [Ask::Command(cmd("ASKING"))];
        let asked = which.iter().flat_map(|index| [&asking[0], &questions[*index]]);
        let packed = pack_all(asked, Sent::New);
        let mut refused = Vec::new();
        let answered = link.exchange(&packed, (0, ALL), self.most_each, patience, |turn, answer| {
            // Every other one is what was said to ASKING.
            if turn % 2 == 1 {
                sort_out(which[turn / 2], answer, take, &mut refused);
            }
        });
        answered.map_err(|error| explain(target, &error))?;
        Ok(refused)
    }

    /// The same over a connection that may have been forgotten on the way: where nothing has come over it in a third of the
    /// time, over a new one beside it. The one that is sooner counts, so that a server that is slow has all the time that
    /// there is; one that can be reached no more, or lets nobody in, has not.
    fn ask_doubting(
        &mut self,
        batch: &Batch<'_>,
        patience: &Patience,
        take: &mut impl FnMut(usize, Value),
    ) -> Result<Refused, Error> {
        let Some(mut link) = self.link.take_if(|link| link.is_doubtful()) else {
            return self.ask_batch(batch, 0, patience, take);
        };
        let share = patience.share(3);
        let Ok(said) = link.begin(&batch.packed, batch.ahead, &share) else {
            // It is dead, or takes nothing any more.
            return self.ask_batch(batch, 0, patience, take);
        };
        if !link.hears(&share) {
            let told = self.ask_batch(batch, 0, &link.beside(patience), take);
            let now = Patience::new(Instant::now(), &self.given_up);
            let heard = match &told {
                Ok(_) => false,
                Err(error) if error.kind() == ErrorKind::TimedOut => link.hears(patience),
                Err(_) => link.hears(&now),
            };
            if !heard {
                return told;
            }
        }
        self.link = Some(link);
        self.ask_batch(batch, said, patience, take)
    }

    /// Over the connection that stands, over which so much of it was said already, and where that turns out to be dead, once
    /// more over a new one.
    fn ask_batch(
        &mut self,
        batch: &Batch<'_>,
        mut said: usize,
        patience: &Patience,
        take: &mut impl FnMut(usize, Value),
    ) -> Result<Refused, Error> {
        loop {
            let link = if let Some(link) = self.link.take() {
                link
            } else {
                // It may be another server.
                self.time = None;
                self.connect(patience)?
            };
            let link = self.link.insert(link);
            let mut refused = Vec::new();
            let ahead = (said, batch.ahead);
            let answered = link.exchange(&batch.packed, ahead, self.most_each, patience, |turn, answer| {
                sort_out(batch.which[turn], answer, take, &mut refused);
            });
            match answered {
                Ok(()) => return Ok(refused),
                Err(error) => {
                    let was_idle = link.answered.is_some() && lost(&error);
                    let place = self.place();
                    self.link = None;
                    said = 0;
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
        let said = self.link.say(&command.get_packed_command(), &Patience::new(until, &self.given_up));
        said.map_err(|error| explain(&self.place, &error))
    }

    /// What arrives next; `None` where nothing has until then.
    pub fn next(&mut self, until: Instant) -> Result<Option<Value>, Error> {
        match self.link.listen(&Patience::new(until, &self.given_up)) {
            Ok(answer) => answer.map(Some).map_err(|refusal| refusal.at(&self.place)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(explain(&self.place, &error)),
        }
    }
}

fn address(parts: &[Value]) -> Option<Host> {
    let [name, port] = parts else { return None };
    Some(Host { name: text(name)?.to_owned(), port: text(port)?.parse().ok()? })
}

/// Never the server's own words: of a command that it does not know it tells the arguments, and there the password is.
fn login_error(place: &str, refusal: &Refusal) -> Error {
    let code = Printable(&refusal.code);
    let text = format!("{place}: the user or password is refused ({code})");
    Error::new(ErrorKind::Denied, text).with_code(&refusal.code)
}

#[cfg(test)]
mod tests;
