//! The board: the configuration in force, its checks with what stands of each, and whether the server is about to stop.
//!
//! How an answer is carried is the concern of who asks: `router` over HTTP, or an application's own code.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use shared::config::{Configuration, Detail, Server, Service};
use shared::hidden::{Hidden, hide};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError, watch};
use tokio::time;

use super::page::Live;
use super::starved::Starved;
use super::view::{Seen, View, Words};
use super::watched::{Asking, Runs, Told, Watched};
use crate::format::Shown;

/// The subset that is answered without one: the process is up.
pub const LIVENESS: &str = "liveness";

/// The subset that `/readyz` asks, and that fails while the server is about to stop.
pub const READINESS: &str = "readiness";

/// The subset that `/startupz` asks.
pub const STARTUP: &str = "startup";

/// More threads than that are no help: checks wait, they do not compute. One that wrongly blocks its thread leaves the others.
const THREADS: usize = 4;

/// For how long beyond `cache` an answer is shown to who only looks: beyond what monitors wait between two questions. Who asks is
/// never told an old one.
pub const LATELY: Duration = Duration::from_mins(10);

/// How long before an answer must be given its checks end.
const SLACK: Duration = Duration::from_millis(100);

/// How long the end waits for checks that are cut off: for the programs that they run to be ended.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What one configuration makes. It never changes; another one takes its place.
#[derive(Debug)]
pub struct Setup {
    /// `[service]`.
    pub service: Service,
    /// `[server]`.
    pub server: Server,
    /// The checks, in the order of the file.
    pub checks: Vec<Arc<Watched>>,
    /// When the first configuration was put in force.
    pub since: SystemTime,
    subsets: Vec<(String, Vec<Arc<Watched>>)>,
    /// Its secrets, and those of the one before, of which something may be under way still.
    hidden: Vec<Arc<Hidden>>,
}

impl Setup {
    /// The checks of `before` that are in the configuration just as they were go on as they are: their connections stay, and
    /// what stands of them.
    fn new(configuration: Configuration, before: Option<&Self>) -> Self {
        let known = |check: &shared::config::Configured| {
            let mut known = before?.checks.iter();
            known.find(|known| known.configured.is_the_same_as(check)).map(Arc::clone)
        };
        let watched = |check: &shared::config::Configured| {
            known(check).unwrap_or_else(|| Arc::new(Watched::new(check.clone())))
        };
        let checks: Vec<_> = configuration.checks.iter().map(watched).collect();
        let of = |name: &str| {
            let named = configuration.subset(name).unwrap_or_default();
            let find = |name: &str| checks.iter().find(|check| check.name() == name).map(Arc::clone);
            (name.to_owned(), named.iter().filter_map(|named| find(&named.name)).collect())
        };
        let subsets = configuration.subsets().map(of).collect();
        let before_that = before.and_then(|before| before.hidden.first()).map(Arc::clone);
        let hidden = std::iter::once(Arc::new(hide(configuration.secrets()))).chain(before_that).collect();
        let since = before.map_or_else(SystemTime::now, |before| before.since);
        Self { service: configuration.service, server: configuration.server, checks, since, subsets, hidden }
    }

    /// What is deployed here, as far as it may be told where anything of it may.
    pub fn version(&self) -> Service {
        if self.server.expose_build_info {
            return self.service.clone();
        }
        let Service { name, environment, version, .. } = self.service.clone();
        Service { name, environment, version, ..Service::default() }
    }

    /// What is shown to people is headed with this: the service's name, where it may be told.
    pub fn title(&self) -> &str {
        let name = self.service.name.as_deref().filter(|name| self.server.expose_version && !name.is_empty());
        name.unwrap_or("Checks")
    }

    /// The names of the subsets, in the order of the file.
    pub fn subsets(&self) -> impl ExactSizeIterator<Item = &str> {
        self.subsets.iter().map(|(name, _)| &**name)
    }

    /// The checks of a subset.
    pub fn subset(&self, name: &str) -> Option<&[Arc<Watched>]> {
        self.subsets.iter().find(|(own, _)| own == name).map(|(_, checks)| &**checks)
    }

    /// What may be told of a check.
    pub fn shown(&self) -> Shown {
        Shown { reasons: self.server.detail != Detail::None, durations: self.server.durations }
    }

    /// Whether workers may be told by name.
    pub fn names_workers(&self) -> bool {
        self.server.detail == Detail::Full
    }

    /// What stands of each check, without asking any. What was not asked lately (see `LATELY`) is unknown.
    pub fn look(&self) -> Vec<Seen> {
        self.look_at(Instant::now(), &self.checks)
    }

    fn look_at(&self, now: Instant, checks: &[Arc<Watched>]) -> Vec<Seen> {
        let most = self.server.cache.0.saturating_add(LATELY);
        checks.iter().map(|check| self.seen(check, check.look().looked_at(now, most))).collect()
    }

    fn seen(&self, check: &Watched, told: Told) -> Seen {
        Seen::new(told, check.configured.kind, self.shown())
    }
}

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// It serves.
    Serving,
    /// It serves still, and readiness fails, because the end is near.
    Stopping,
    /// Whoever watches is told no more.
    Stopped,
}

/// The configuration in force with all that is known of its checks, and the threads that ask them.
pub struct Board {
    setup: RwLock<Arc<Setup>>,
    life: watch::Sender<Life>,
    live: Live,
    /// For who waits for checks: fewer than there are connections, so that whatever needs no check is always answered.
    waiting: Semaphore,
    #[cfg(feature = "grpc")]
    watching: Arc<Semaphore>,
    runs: Runs,
    runtime: Option<Runtime>,
}

impl Board {
    /// Starts the threads that will ask the checks, and asks none yet.
    pub fn new(configuration: Configuration) -> io::Result<Self> {
        let setup = Setup::new(configuration, None);
        // Another configuration may bring more checks.
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("checks").enable_all().build()?;
        let starved = Arc::new(Starved::start()?);
        let connections = usize::try_from(setup.server.connections).unwrap_or(usize::MAX);
        let waiting = Semaphore::new((connections / 4 * 3).clamp(1, Semaphore::MAX_PERMITS));
        let runs = Runs { runtime: runtime.handle().clone(), starved, news: watch::Sender::new(0) };
        Ok(Self {
            setup: RwLock::new(Arc::new(setup)),
            life: watch::Sender::new(Life::Serving),
            live: Live::new(runs.clone()),
            waiting,
            #[cfg(feature = "grpc")]
            watching: Arc::new(Semaphore::new(super::grpc::WATCHERS)),
            runs,
            runtime: Some(runtime),
        })
    }

    /// The configuration in force. Who answers takes it once, so that an answer is made of one configuration alone.
    pub fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.setup.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another configuration in force, for whoever asks from now on.
    pub fn replace(&self, configuration: Configuration) {
        let mut setup = self.setup.write().unwrap_or_else(PoisonError::into_inner);
        *setup = Arc::new(Setup::new(configuration, Some(&setup)));
        drop(setup);
        self.runs.tell();
    }

    /// From now on, readiness fails.
    pub fn stop(&self) {
        self.advance(Life::Stopping);
    }

    /// From now on, nobody is told of changes any more: the streams of gRPC end, so that the server can.
    pub fn end(&self) {
        self.advance(Life::Stopped);
    }

    fn advance(&self, to: Life) {
        self.life.send_modify(|life| *life = to.max(*life));
        self.runs.tell();
    }

    /// How far the server is, and each time that it has come further.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// Whether readiness fails because the end is near.
    pub fn is_stopping(&self) -> bool {
        *self.life.borrow() != Life::Serving
    }

    /// A place to wait for the checks of a subset. An error where too many wait already; nothing where no check is asked, which
    /// needs no place.
    pub(super) fn place_to_wait(
        &self,
        setup: &Setup,
        subset: &str,
    ) -> Result<Option<SemaphorePermit<'_>>, TryAcquireError> {
        let asks = setup.subset(subset).is_some() && !self.fails_anyway(subset);
        asks.then(|| self.waiting.try_acquire()).transpose()
    }

    /// A place to watch a subset for as long as it is held. None where too many do already.
    #[cfg(feature = "grpc")]
    pub(super) fn place_to_watch(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.watching).try_acquire_owned().ok()
    }

    /// What the streams of the page share.
    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// Changes its value with every run that ends, with another configuration, and with the beginning of the end.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.runs.news.subscribe()
    }

    /// Asks the checks of a subset, side by side, where their answers are older than the configuration's `cache`; at the latest after
    /// its `timeout` there is an answer. What is told was answered for this question, or is younger than `cache` when it is told,
    /// however long another check takes. Nothing where there is no such subset.
    ///
    /// It needs a tokio runtime with its time enabled to be awaited in.
    pub async fn ask(&self, setup: &Arc<Setup>, subset: &str, words: Words) -> Option<View> {
        let Some(checks) = setup.subset(subset) else { return Self::without_checks(setup, subset) };
        if self.fails_anyway(subset) {
            return self.look(setup, subset, words);
        }
        let (timeout, cache) = (setup.server.timeout.0, setup.server.cache.0);
        let begun = Instant::now();
        let until = begun + timeout;
        // No check takes longer than the answer: it says itself that it was cut off, and that counts as `fall` and `rise` say.
        let within = timeout.saturating_sub(SLACK.min(timeout / 4));
        let asked: Vec<_> =
            checks.iter().map(|check| (check, check.ask(&self.runs, cache, within))).collect();
        let running = asked.iter().filter(|(_, asking)| !asking.is_kept()).count();
        let question = Question { begun, cache, within, until, running: watch::Sender::new(running) };
        let told = asked
            .into_iter()
            .map(|(check, asking)| async { setup.seen(check, self.answer(check, asking, &question).await) });
        let seen = join_all(told).await;
        Some(self.sum_up(View::new(setup, subset, words, seen)))
    }

    /// The answer of one check of those that a question asks. One that is kept from before is asked for anew where it would be too
    /// old once all others have ended.
    async fn answer(&self, check: &Arc<Watched>, mut asking: Asking, question: &Question) -> Told {
        let &Question { begun, cache, within, until, ref running } = question;
        while asking.is_kept() {
            let told = check.look();
            let Some(answered) = told.answered.map(|answered| answered.mono) else { return told };
            let will_do = || answered >= begun || answered.elapsed() < cache;
            // Early enough for the next answer to be there before this one is too old.
            let most = cache.saturating_sub(told.outcome.took * 2).max(cache / 2);
            let mut others = running.subscribe();
            tokio::select! {
                biased;
                _ = others.wait_for(|running| *running == 0) => if will_do() { return told },
                () = time::sleep_until((answered + most).into()), if answered < begun => {}
            }
            asking = check.ask(&self.runs, most, within);
            if asking.is_kept() {
                continue;
            }
            // Others that are kept wait for this one, too.
            running.send_modify(|running| *running += 1);
            let still_does = async {
                // Its sender is the question's.
                drop(others.wait_for(|running| *running <= 1).await);
                if !will_do() {
                    pending::<()>().await;
                }
            };
            let told = tokio::select! {
                biased;
                told = check.wait(asking, &self.runs, until) => told,
                () = still_does => told,
            };
            running.send_modify(|running| *running -= 1);
            return told;
        }
        let told = check.wait(asking, &self.runs, until).await;
        running.send_modify(|running| *running -= 1);
        told
    }

    /// What stands of a subset, without asking. What was not asked lately (see `LATELY`) is unknown.
    pub fn look(&self, setup: &Arc<Setup>, subset: &str, words: Words) -> Option<View> {
        let Some(checks) = setup.subset(subset) else { return Self::without_checks(setup, subset) };
        let seen = setup.look_at(Instant::now(), checks);
        Some(self.sum_up(View::new(setup, subset, words, seen)))
    }

    fn without_checks(setup: &Arc<Setup>, subset: &str) -> Option<View> {
        (subset == LIVENESS).then(|| View::alive(setup))
    }

    fn fails_anyway(&self, subset: &str) -> bool {
        subset == READINESS && self.is_stopping()
    }

    fn sum_up(&self, view: View) -> View {
        if self.fails_anyway(&view.subset) { view.failing() } else { view }
    }
}

/// What the checks of a subset are asked for one answer.
struct Question {
    begun: Instant,
    cache: Duration,
    within: Duration,
    until: Instant,
    /// How many run for it and have not ended.
    running: watch::Sender<usize>,
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Each check that is asked is dropped, and ends what it has started. One may block its thread for ever.
            if Handle::try_current().is_err() {
                runtime.shutdown_timeout(LAST_WAIT);
            } else {
                // Another runtime's thread must not wait; it goes on afterwards, and so do these for as long as they need.
                runtime.shutdown_background();
            }
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("life", &self.life.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shared::config::Surroundings;
    use shared::hidden::without_secrets;

    use super::*;

    fn with(token: &str) -> Configuration {
        let text = format!("[server.access]\ntoken = '{token}'");
        let surroundings = Surroundings { variable: &|_| None, folder: Path::new("/") };
        Configuration::parse(&text, surroundings).configuration.unwrap()
    }

    #[test]
    fn secrets_are_hidden_in_force_and_one_configuration_longer() {
        let tokens = ["Board-one", "Board-two", "Board-three"];
        let told = || tokens.map(without_secrets);
        let board = Board::new(with(tokens[0])).unwrap();
        assert_eq!(told(), ["…", "Board-two", "Board-three"]);
        board.replace(with(tokens[1]));
        assert_eq!(told(), ["…", "…", "Board-three"]);
        board.replace(with(tokens[2]));
        assert_eq!(told(), ["Board-one", "…", "…"]);
        drop(board);
        assert_eq!(told(), tokens);
    }
}
