//! The table where there is no terminal: a line for each worker, and one for each change of verdict.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use heartbeat::verdict::Verdict;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::row::Row;
use super::source::Source;
use crate::format::plain::Plain;
use crate::format::time;

/// Between two looks at what has changed, so that a burst of beats is one look.
const REST: Duration = Duration::from_millis(50);

/// Writes lines until nobody reads them any more.
pub fn run(mut source: impl Source, woken: &Receiver<()>) -> io::Result<()> {
    let mut told = Told::default();
    let mut next_tick = Instant::now() + source.next_tick();
    loop {
        let now = time::now();
        show(&(told.notice(&source.title(), source.notice(), now) + &told.news(&source.rows(), now)))?;
        match woken.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(()) => {
                std::thread::sleep(REST);
                while woken.try_recv().is_ok() {}
                source.catch_up();
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if Instant::now() >= next_tick {
            if nobody_reads() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            source.tick();
            next_tick = Instant::now() + source.next_tick();
        }
    }
}

fn show(lines: &str) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut output = io::stdout().lock();
    output.write_all(lines.as_bytes())?;
    output.flush()
}

/// Whether the pipe's other end is closed: without news, no write would find out.
fn nobody_reads() -> bool {
    let output = io::stdout();
    let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::empty())];
    let ready = poll(&mut descriptors, PollTimeout::ZERO).unwrap_or(0);
    ready > 0 && descriptors[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// What was last told of each worker, and of the place that they are in.
#[derive(Debug, Default)]
struct Told {
    verdicts: HashMap<OsString, Verdict>,
    notice: Option<String>,
}

impl Told {
    /// A line where something else is wrong with the place, or nothing any more.
    fn notice(&mut self, title: &str, notice: Option<&str>, now: u64) -> String {
        if self.notice.as_deref() == notice {
            return String::new();
        }
        self.notice = notice.map(str::to_owned);
        format!("{}  {title}: {}\n", time::rfc3339(now), Plain(notice.unwrap_or("as it should be again")))
    }

    /// A line for each row whose verdict is new.
    fn news(&mut self, rows: &[&Row], now: u64) -> String {
        let mut lines = String::new();
        for row in rows {
            if self.verdicts.get(&row.key) != Some(&row.verdict) {
                self.verdicts.insert(row.key.clone(), row.verdict);
                lines.extend([&time::rfc3339(now), "  ", &row.sentence(), "\n"]);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn each_change_of_verdict_is_told_once() {
        let mut told = Told::default();
        let mut news = |rows: &[Row]| told.news(&rows.iter().collect::<Vec<_>>(), 0);
        let (alive, wedged) = (row("a", Verdict::Alive), row("a", Verdict::Wedged));
        assert_eq!(news(&[]), "");
        assert_eq!(news(std::slice::from_ref(&alive)), "1970-01-01T00:00:00Z  a is alive: for a reason\n");
        assert_eq!(news(std::slice::from_ref(&alive)), "");
        assert_eq!(news(&[wedged]), "1970-01-01T00:00:00Z  a is wedged: for a reason\n");
        assert_eq!(news(&[alive, row("b", Verdict::Alive)]).lines().count(), 2);
    }

    #[test]
    fn what_is_wrong_with_the_place_is_told_once_and_so_is_its_end() {
        let mut told = Told::default();
        let mut notice = |text| told.notice("orders", text, 0);
        assert_eq!(notice(None), "");
        assert_eq!(notice(Some("away")), "1970-01-01T00:00:00Z  orders: away\n");
        assert_eq!(notice(Some("away")), "");
        assert_eq!(notice(None), "1970-01-01T00:00:00Z  orders: as it should be again\n");
    }
}
