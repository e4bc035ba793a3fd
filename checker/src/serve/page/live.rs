//! The page as a stream of server-sent events: what is now, and again where it has changed.
//!
//! A stream belongs to one configuration, and ends with it: who comes again is asked again whether it may. It ends too
//! where the server is about to stop, once that was told.

use std::convert::Infallible;
use std::sync::Arc;
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

/// The least time between two events.
const PACE: Duration = Duration::from_millis(250);

/// How soon a client that lost its stream asks for another.
const AGAIN: Duration = Duration::from_secs(2);

/// How often something is sent though nothing changes, so that a client that is gone is noticed.
const SIGN: Duration = Duration::from_secs(15);

/// What all streams of a board share.
#[derive(Debug)]
pub struct Live {
    places: Arc<Semaphore>,
    /// The workers that the page shows.
    pub crews: Crews,
}

impl Live {
    /// Nobody looks yet, and nothing is asked.
    pub fn new(runs: Runs) -> Self {
        Self { places: Arc::new(Semaphore::new(STREAMS)), crews: Crews::new(runs) }
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
    let mut answer = Sse::new(events).keep_alive(KeepAlive::new().interval(SIGN)).into_response();
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
    /// What was sent last, and when.
    told: Option<(String, Instant)>,
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
            self.ended = self.board.is_stopping();
            let main = sheet::main(&self.board, &self.setup, &self.base);
            if self.told.as_ref().is_none_or(|(told, _)| *told != main) {
                let event = Event::default().id(sheet::millis(SystemTime::now()).to_string()).retry(AGAIN);
                self.told = Some((main.clone(), Instant::now()));
                return Some(event.data(main));
            }
        }
        None
    }

    /// Until there is news, and not too soon after the last event.
    async fn wait(&mut self) {
        let Some((_, at)) = self.told else { return };
        // News, or time to look at the workers once more. The board, which tells the news, is held here.
        let _ = time::timeout(crews::REST, self.news.changed()).await;
        time::sleep_until(at + PACE).await;
        // What came meanwhile is seen with it.
        self.news.mark_unchanged();
    }
}
