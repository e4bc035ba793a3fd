//! Reaching a cluster's brokers: the first of the configured ones that answers, and those that it tells of; over connections
//! that are kept from one run to the next.
//!
//! A run takes all connections that were kept, and those that served it are kept again. One that has died since is replaced
//! within the same question.

use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout_at;

use super::line::Line;
use super::login::{Denied, Login};
use super::message::Request;
use crate::check::Failure;
use crate::net::{Address, Net};
use crate::tls::Tls;

/// What is said of a broker that is silent.
const SILENT: &str = "no answer comes in time";

type Lines = Mutex<HashMap<Address, Line>>;

#[derive(Debug)]
pub struct Cluster {
    /// Each with a look-up of its own: the name of one that cannot be looked up holds up no other.
    servers: Vec<(Address, Net)>,
    /// For the names that brokers tell of.
    net: AsyncMutex<Net>,
    tls: Option<Tls>,
    login: Option<Login>,
    kept: Lines,
}

/// One run's use of a cluster.
#[derive(Debug)]
pub struct Round<'a> {
    cluster: &'a Cluster,
    until: Instant,
    /// Connections of the run before.
    old: Lines,
    /// Connections that have served this one.
    used: Lines,
}

/// Where a host's name is looked up.
#[derive(Clone, Copy)]
enum Names<'a> {
    /// For a server of the settings.
    Own(&'a Net),
    /// For all others, one at a time.
    Shared(&'a AsyncMutex<Net>),
}

impl Names<'_> {
    async fn look_up(self, address: &Address, until: Instant) -> Result<Vec<SocketAddr>, Failure> {
        match self {
            Self::Own(net) => net.look_up(&address.host, address.port, until).await,
            Self::Shared(net) => net.lock().await.look_up(&address.host, address.port, until).await,
        }
    }
}

impl Cluster {
    pub fn new(servers: Vec<Address>, tls: Option<Tls>, login: Option<Login>) -> Self {
        let servers = servers.into_iter().map(|address| (address, Net::default())).collect();
        Self { servers, net: AsyncMutex::default(), tls, login, kept: Lines::default() }
    }

    /// Begins a run. Until it is ended well, nothing is kept.
    pub fn round(&self, until: Instant) -> Round<'_> {
        let old = Mutex::new(mem::take(&mut *lock(&self.kept)));
        Round { cluster: self, until, old, used: Lines::default() }
    }
}

impl Round<'_> {
    /// Keeps the connections that served.
    pub fn end(self) {
        *lock(&self.cluster.kept) = mem::take(&mut *lock(&self.used));
    }

    /// Asks the first of the configured servers that answers. Those that there is a connection to come first; each but the
    /// last has its share of the time.
    pub async fn ask_any(&self, request: &Request) -> Result<Vec<u8>, Failure> {
        let mut servers: Vec<_> = self.cluster.servers.iter().collect();
        servers.sort_by_key(|(address, _)| !self.has(address));
        let mut last = Failure::failed(SILENT);
        let mut left = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        for (address, net) in servers {
            let now = Instant::now();
            let until = now + self.until.saturating_duration_since(now) / left;
            left -= 1;
            match self.ask_at(address, Names::Own(net), request, until).await {
                Ok(answer) => return Ok(answer),
                Err(Denied::Everywhere(failure)) => return Err(failure),
                Err(Denied::Here(failure)) => last = failure,
            }
        }
        if self.cluster.servers.len() == 1 {
            return Err(last);
        }
        Err(Failure::failed(format!("no server answers as it should, the last one: {last}")).because(last))
    }

    /// Asks a broker that the cluster has told of.
    pub async fn ask(&self, broker: (i32, &Address), request: &Request) -> Result<Vec<u8>, Failure> {
        let (id, address) = broker;
        let asked = self.ask_at(address, Names::Shared(&self.cluster.net), request, self.until).await;
        asked.map_err(|(Denied::Everywhere(failure) | Denied::Here(failure))| {
            Failure::failed(format!("broker {id}: {failure}")).because(failure)
        })
    }

    /// Over the connection that was kept, which has a third of the time to answer; else over a new one.
    async fn ask_at(
        &self,
        address: &Address,
        names: Names<'_>,
        request: &Request,
        until: Instant,
    ) -> Result<Vec<u8>, Denied> {
        let kept = self.take(address);
        if let Some(mut line) = kept {
            let now = Instant::now();
            let share = now + until.saturating_duration_since(now) / 3;
            if let Ok(Ok(answer)) = timeout_at(share.into(), line.ask(request)).await {
                self.put_back(address, line);
                return Ok(answer);
            }
        }
        let asked = async {
            let mut line = self.open(address, names, until).await?;
            let answer = line.ask(request).await?;
            Ok::<_, Denied>((line, answer))
        };
        let silent = |_| Failure::failed(SILENT);
        let (line, answer) = timeout_at(until.into(), asked).await.map_err(silent)??;
        self.put_back(address, line);
        Ok(answer)
    }

    async fn open(&self, address: &Address, names: Names<'_>, until: Instant) -> Result<Line, Denied> {
        let tls = self.cluster.tls.as_ref().map(Tls::config).transpose()?;
        let found = names.look_up(address, until).await?;
        let mut line = Line::open(&address.host, found, tls).await?;
        if let Some(login) = &self.cluster.login {
            login.log_in(&mut line).await?;
        }
        Ok(line)
    }

    fn has(&self, address: &Address) -> bool {
        lock(&self.used).contains_key(address) || lock(&self.old).contains_key(address)
    }

    fn take(&self, address: &Address) -> Option<Line> {
        let used = lock(&self.used).remove(address);
        used.or_else(|| lock(&self.old).remove(address))
    }

    fn put_back(&self, address: &Address, line: Line) {
        lock(&self.used).insert(address.clone(), line);
    }
}

fn lock(lines: &Lines) -> MutexGuard<'_, HashMap<Address, Line>> {
    // A panic elsewhere leaves nothing half-made here.
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
