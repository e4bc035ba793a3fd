//! The page as a stream of server-sent events: what is now, and again where it has changed.
//!
//! The page is drawn once for all streams that begin at the same address, four times a second at most. A stream belongs to one configuration, and ends with it: who comes again is asked again whether it may. It ends too
//! where the server is about to stop, once that was told.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue};
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{self, Instant};

use super::crews::{self, Crews};
use super::sheet;
use crate::serve::board::{Board, Setup};
use crate::serve::endpoints::{Answer, full};
use crate::serve::watched::Runs;

/// How many streams there may be at once. Who gets none loads the page now and then.
const STREAMS: usize = 32;

/// The least time between two drawings, and so between two events of a stream.
const PACE: Duration = Duration::from_millis(250);

/// How soon a client that lost its stream asks for another.
const AGAIN: Duration = Duration::from_secs(2);

/// How often something is sent though nothing changes, so that either end notices that the other one is gone.
pub const SIGN: Duration = Duration::from_secs(5);

/// The event that is only a sign of life.
const ALIVE: &str = "alive";

/// What all streams of a board share.
#[derive(Debug)]
pub struct Live {
    places: Arc<Semaphore>,
    drawings: Mutex<Vec<Arc<Drawing>>>,
    /// The workers that the page shows.
    pub crews: Crews,
}

impl Live {
    /// Nobody looks yet, and nothing is asked.
    pub fn new(runs: Runs) -> Self {
        Self {
            places: Arc::new(Semaphore::new(STREAMS)),
            drawings: Mutex::default(),
            crews: Crews::new(runs),
        }
    }

    /// What changes of the page as it is now, or was a moment ago.
    fn draw(&self, board: &Board, setup: &Arc<Setup>, base: &str) -> Arc<Drawing> {
        // Nothing panics under the lock.
        let mut drawings = self.drawings.lock().unwrap_or_else(PoisonError::into_inner);
        drawings.retain(|drawing| drawing.at.elapsed() < crews::REST && drawing.is_of(setup));
        let news = *board.news().borrow();
        let own = drawings.iter().position(|drawing| drawing.base == base);
        if let Some(drawing) = own.map(|own| &drawings[own]).filter(|drawing| drawing.holds(board, news)) {
            return Arc::clone(drawing);
        }
        let is_last = board.is_stopping();
        let main = sheet::main(board, setup, base);
        let (setup, base, at) = (Arc::downgrade(setup), base.to_owned(), Instant::now());
        let drawing = Arc::new(Drawing { setup, base, news, at, is_last, main });
        if let Some(own) = own {
            drawings.swap_remove(own);
        }
        drawings.push(Arc::clone(&drawing));
        drawing
    }
}

/// What changes of the page, as it was at one moment.
#[derive(Debug)]
struct Drawing {
    /// Its checks end with it, and not with the last drawing.
    setup: Weak<Setup>,
    base: String,
    /// The number of the last news in it.
    news: u64,
    at: Instant,
    /// Whether the server was about to stop.
    is_last: bool,
    main: String,
}

impl Drawing {
    fn is_of(&self, setup: &Arc<Setup>) -> bool {
        std::ptr::eq(self.setup.as_ptr(), Arc::as_ptr(setup))
    }

    /// Whether it need not be drawn anew yet.
    fn holds(&self, board: &Board, news: u64) -> bool {
        self.is_last == board.is_stopping() && (self.news == news || self.at.elapsed() < PACE)
    }
}

/// A stream, where there is a place for one more.
pub fn stream(board: &Arc<Board>, setup: &Arc<Setup>, base: String) -> Answer {
    let Ok(place) = Arc::clone(&board.live().places).try_acquire_owned() else {
        return full("there are too many streams already", "10");
    };
    let (board, setup, news) = (Arc::clone(board), Arc::clone(setup), board.news());
    let follower = Follower { board, setup, base, news, told: None, ended: false, _place: place };
    let events = stream::unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let sign = KeepAlive::new().interval(SIGN).event(Event::default().event(ALIVE).data("1"));
    let mut answer = Sse::new(events).keep_alive(sign).into_response();
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers an answer before it passes it on would never pass this one.
    answer.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    answer
}

/// One client of the page.
struct Follower {
    board: Arc<Board>,
    setup: Arc<Setup>,
    base: String,
    news: watch::Receiver<u64>,
    /// What was looked at last.
    told: Option<Arc<Drawing>>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event: at once at first, and then where the page has changed. None at the end.
    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            self.wait().await;
            if !Arc::ptr_eq(&self.setup, &self.board.setup()) {
                return None;
            }
            let drawing = self.board.live().draw(&self.board, &self.setup, &self.base);
            self.ended = drawing.is_last;
            let before = self.told.replace(Arc::clone(&drawing));
            if before.is_none_or(|before| before.main != drawing.main) {
                let event = Event::default().id(sheet::millis(SystemTime::now()).to_string()).retry(AGAIN);
                return Some(event.data(&drawing.main));
            }
        }
        None
    }

    /// Until there is news of what was looked at last, and it may be drawn anew.
    async fn wait(&mut self) {
        let Some(told) = &self.told else { return };
        // News, or time to look at the workers once more. The board, which tells the news, is held here.
        let _ = time::timeout(crews::REST, self.news.wait_for(|news| *news != told.news)).await;
        time::sleep_until(told.at + PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Configuration;

    use super::*;

    #[test]
    fn what_is_the_same_for_all_is_drawn_once_until_there_is_news_and_then_not_at_once() {
        let board = Board::new(Configuration::default()).unwrap();
        let setup = board.setup();
        let draw = |base: &str| board.live().draw(&board, &setup, base);
        let first = draw("./");
        assert!((0..32).all(|_| Arc::ptr_eq(&draw("./"), &first)));
        assert!(!Arc::ptr_eq(&draw("./below/"), &first) && Arc::ptr_eq(&draw("./"), &first));
        std::thread::sleep(PACE);
        assert!(Arc::ptr_eq(&draw("./"), &first), "there is no news");
        board.replace(Configuration::default());
        let second = draw("./");
        assert!(!Arc::ptr_eq(&second, &first));
        board.replace(Configuration::default());
        assert!(Arc::ptr_eq(&draw("./"), &second), "that was a moment ago");
        // The end is told at once.
        board.stop();
        assert!(draw("./").is_last && !second.is_last);
    }
}
