//! The live table in a terminal: waits for news, keys and time, and leaves the terminal as it was.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::row::Row;
use super::source::Source;
use super::table::{Board, Move, View, draw};
use crate::interrupt::{Interrupt, Signal};

/// Between two looks at what has changed: a burst of beats is one look and one frame.
const REST: Duration = Duration::from_millis(50);

/// How long a signal may go unnoticed.
const PATIENCE: Duration = Duration::from_millis(250);

/// What there is to react to.
#[derive(Debug)]
pub enum Wake {
    /// The source has news.
    News,
    /// A key was pressed, or the terminal has another size.
    Terminal(Event),
    /// There is no terminal any more.
    Closed,
}

/// Shows the table until it is left, or ended by a signal.
pub fn run(
    source: impl Source,
    sender: Sender<Wake>,
    woken: &Receiver<Wake>,
    interrupt: &Interrupt,
) -> io::Result<Option<Signal>> {
    // Before the terminal is changed, so that it is restored wherever that ends.
    let _restore = Restore;
    let mut terminal = ratatui::try_init()?;
    // It ends with the process: nothing can wake it from its waiting for a key.
    thread::Builder::new().name("keys".to_owned()).spawn(move || listen(&sender))?;
    let mut screen = Screen::new(source);
    loop {
        screen.show(&mut terminal)?;
        if let Some(signal) = interrupt.caught() {
            return Ok(Some(signal));
        }
        match woken.recv_timeout(screen.wait()) {
            Ok(Wake::News) => screen.news = true,
            Ok(Wake::Terminal(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                match Reaction::to(key) {
                    Some(Reaction::Leave) => return Ok(None),
                    Some(Reaction::Turn(way)) => screen.turn(way),
                    None => {}
                }
            }
            Ok(Wake::Terminal(_)) => screen.stale = true,
            Ok(Wake::Closed) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
        screen.keep_up();
    }
}

struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // A panic has had the terminal restored before it was told; doing it twice would write over that.
        if !thread::panicking() {
            // Fails only where the terminal is gone.
            let _ = ratatui::try_restore();
        }
    }
}

fn listen(sender: &Sender<Wake>) {
    loop {
        let wake = event::read().map_or(Wake::Closed, Wake::Terminal);
        let closed = matches!(wake, Wake::Closed);
        if sender.send(wake).is_err() || closed {
            return;
        }
    }
}

struct Screen<S> {
    source: S,
    view: View,
    /// What is on the screen is not what it should be.
    stale: bool,
    news: bool,
    caught_up: Instant,
    ticks: Instant,
}

impl<S: Source> Screen<S> {
    fn new(source: S) -> Self {
        let now = Instant::now();
        let ticks = now + source.next_tick();
        Self { source, view: View::default(), stale: true, news: false, caught_up: now, ticks }
    }

    fn show(&mut self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        if std::mem::take(&mut self.stale) {
            let board = Board {
                title: self.source.title(),
                notice: self.source.notice(),
                emptiness: self.source.emptiness(),
                rows: sorted(&self.source),
            };
            terminal.draw(|frame| draw(frame, &board, &mut self.view))?;
        }
        Ok(())
    }

    fn turn(&mut self, way: Move) {
        self.view.turn(way, &sorted(&self.source));
        self.stale = true;
    }

    /// How long there is nothing to do of itself.
    fn wait(&self) -> Duration {
        let now = Instant::now();
        let tick = self.ticks.saturating_duration_since(now).min(PATIENCE);
        let rest = (self.caught_up + REST).saturating_duration_since(now);
        if self.news { tick.min(rest) } else { tick }
    }

    fn keep_up(&mut self) {
        let now = Instant::now();
        if self.news && now >= self.caught_up + REST {
            self.news = false;
            self.source.catch_up();
            self.caught_up = Instant::now();
            self.stale = true;
        }
        if now >= self.ticks {
            self.source.tick();
            self.ticks = Instant::now() + self.source.next_tick();
            self.stale = true;
        }
    }
}

fn sorted(source: &impl Source) -> Vec<&Row> {
    let mut rows = source.rows();
    rows.sort_unstable_by(|one, other| one.order(other));
    rows
}

#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Leave,
    Turn(Move),
}

impl Reaction {
    fn to(key: KeyEvent) -> Option<Self> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        Some(match key.code {
            KeyCode::Char('c') if control => Self::Leave,
            _ if control => return None,
            KeyCode::Char('q') | KeyCode::Esc => Self::Leave,
            KeyCode::Up | KeyCode::Char('k') => Self::Turn(Move::Up),
            KeyCode::Down | KeyCode::Char('j') => Self::Turn(Move::Down),
            KeyCode::PageUp => Self::Turn(Move::PageUp),
            KeyCode::PageDown | KeyCode::Char(' ') => Self::Turn(Move::PageDown),
            KeyCode::Home | KeyCode::Char('g') => Self::Turn(Move::First),
            KeyCode::End | KeyCode::Char('G') => Self::Turn(Move::Last),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_left_by_q_escape_and_control_c_only() {
        let plain = |code| Reaction::to(KeyEvent::new(code, KeyModifiers::NONE));
        let control = |code| Reaction::to(KeyEvent::new(code, KeyModifiers::CONTROL));
        assert_eq!(plain(KeyCode::Char('q')), Some(Reaction::Leave));
        assert_eq!(plain(KeyCode::Esc), Some(Reaction::Leave));
        assert_eq!(control(KeyCode::Char('c')), Some(Reaction::Leave));
        assert_eq!(plain(KeyCode::Char('c')), None);
        assert_eq!(control(KeyCode::Char('q')), None);
        assert_eq!(plain(KeyCode::PageDown), Some(Reaction::Turn(Move::PageDown)));
    }
}
