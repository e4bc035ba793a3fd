//! The demo on the screen: one small table, redrawn in place on a terminal, printed line by line elsewhere.
//!
//! Knows nothing of processes and judges nothing: it is handed lines and shows them.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use heartbeat::duration::Human;
use heartbeat::verdict::Verdict;

/// One line of the table.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// How it stands with this line.
    pub mark: Mark,
    /// The worker's name; empty where the line above has it.
    pub worker: &'static str,
    /// What is done to it.
    pub what: &'static str,
    /// What the checker says.
    pub verdict: Option<Verdict>,
    /// How long that took.
    pub told: Option<Duration>,
    /// How long it may take; `None`: no time at all.
    pub within: Option<Duration>,
    /// Why the checker says so, as one sentence.
    pub reason: String,
}

/// How it stands with a line of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Its turn has not come.
    #[default]
    Ahead,
    /// Its turn is now.
    Now,
    /// The right verdict, in time.
    Right,
    /// Another one, or too late, or none.
    Wrong,
}

impl Mark {
    fn symbol(self) -> &'static str {
        match self {
            Self::Ahead => " ",
            Self::Now => "›",
            Self::Right => "✓",
            Self::Wrong => "✗",
        }
    }

    /// What a reason begins with, for who sees no colours and no symbols.
    fn word(self) -> &'static str {
        if self == Self::Wrong { "WRONG: " } else { "" }
    }
}

/// A colour by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Good,
    Between,
    Bad,
    Faint,
    Bold,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ink {
    Colours,
    Plain,
}

impl Ink {
    fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Good => "32",
            Colour::Between => "33",
            Colour::Bad => "31",
            Colour::Faint => "2",
            Colour::Bold => "1",
        };
        match self {
            Self::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// Where the demo is shown.
#[derive(Debug)]
pub struct Show {
    ink: Ink,
    /// How many lines of the table are on the screen, to be drawn over; `None`: nothing is ever drawn over.
    drawn: Option<usize>,
}

impl Show {
    /// On standard output: redrawn in place where that is a terminal with room for `lines` lines of table.
    pub fn on_stdout(lines: usize) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal() && variable("TERM").is_none_or(|term| term != "dumb");
        let ink = if terminal && variable("NO_COLOR").is_none() { Ink::Colours } else { Ink::Plain };
        // The table, what stands above it, and the reason below it with its blank lines.
        let room = size().0 > lines + 8;
        Self { ink, drawn: (terminal && room).then_some(0) }
    }

    /// The last sentence of all.
    pub fn close(&mut self, text: &str, mark: Mark) -> io::Result<()> {
        let colour = if mark == Mark::Right { Colour::Good } else { Colour::Bad };
        write(&format!(
            "\n{} {}\n",
            self.ink.paint(colour, mark.symbol()),
            self.ink.paint(Colour::Bold, text)
        ))
    }

    /// Begins the table.
    pub fn begin(&mut self) -> io::Result<()> {
        let heading = Line { worker: "worker", what: "what is done to it", ..Line::default() };
        let cells = format!(
            "{} {:<9} {:<4}  {:<5}  {:>7}  within",
            cells(&heading),
            "verdict",
            "live",
            "ready",
            "told in"
        );
        // A terminal's cursor is hidden, and lines that are too long for it are cut instead of wrapped.
        let still = if self.drawn.is_some() { "\x1b[?25l\x1b[?7l" } else { "" };
        write(&format!("{still}\n  {}\n", self.ink.paint(Colour::Faint, &cells)))
    }

    /// Draws the whole table anew, where that is possible. `reason` stands below it.
    pub fn redraw(&mut self, lines: &[Line], reason: &str) -> io::Result<()> {
        let Some(drawn) = self.drawn else { return Ok(()) };
        let mut text = if drawn > 0 { format!("\x1b[{drawn}A") } else { String::new() };
        for line in lines {
            text.extend(["\x1b[2K", &table_line(line, self.ink), "\n"]);
        }
        let reason = fit(reason, size().1.saturating_sub(3));
        text.extend(["\x1b[2K\n\x1b[2K  ", &self.ink.paint(Colour::Faint, &reason), "\n"]);
        self.drawn = Some(lines.len() + 2);
        write(&text)
    }

    /// Adds a line that is finished, where nothing is drawn over.
    pub fn append(&mut self, line: &Line) -> io::Result<()> {
        if self.drawn.is_some() {
            return Ok(());
        }
        let text = table_line(line, self.ink);
        let word = line.mark.word();
        write(&format!("{text:<82}  {word}{}\n", line.reason))
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            // The terminal as it was; where it is gone, there is nothing to restore.
            let _ = write("\x1b[?7h\x1b[?25h");
        }
    }
}

/// Shows a sentence of its own.
pub fn say(text: &str) -> io::Result<()> {
    write(&format!("{text}\n"))
}

/// The terminal's lines and columns.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) => (usize::from(size.ws_row), usize::from(size.ws_col)),
        Err(_) => (0, 0),
    }
}

/// Cuts a sentence at `width` characters.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

fn cells(line: &Line) -> String {
    format!("{:<8} {:<29}", line.worker, line.what)
}

fn table_line(line: &Line, ink: Ink) -> String {
    let mark = match line.mark {
        Mark::Right => ink.paint(Colour::Good, line.mark.symbol()),
        Mark::Wrong => ink.paint(Colour::Bad, line.mark.symbol()),
        Mark::Now | Mark::Ahead => line.mark.symbol().to_owned(),
    };
    let cells = cells(line);
    let cells = if line.mark == Mark::Ahead { ink.paint(Colour::Faint, &cells) } else { cells };
    let Some(verdict) = line.verdict else { return format!("{mark} {cells}") };
    let verdict_cell = ink.paint(colour(verdict), &format!("{verdict:<9}"));
    let (lives, ready) = (yes_no(verdict.live()), yes_no(verdict.ready()));
    let told = line.told.map(human).unwrap_or_default();
    let within = match (line.mark, line.within) {
        (Mark::Ahead, _) => String::new(),
        (_, Some(within)) => human(within),
        (_, None) if line.told.is_some() => "at once".to_owned(),
        _ => String::new(),
    };
    let text = format!("{mark} {cells} {verdict_cell} {lives:<4}  {ready:<5}  {told:>7}  {within}");
    text.trim_end().to_owned()
}

fn yes_no(answer: Option<bool>) -> &'static str {
    match answer {
        Some(true) => "yes",
        Some(false) => "no",
        None => "?",
    }
}

fn colour(verdict: Verdict) -> Colour {
    match (verdict.live(), verdict.ready()) {
        (Some(true), Some(true)) => Colour::Good,
        (Some(false), _) => Colour::Bad,
        _ => Colour::Between,
    }
}

/// A duration as a person would say it.
pub fn human(duration: Duration) -> String {
    Human(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            mark: Mark::Right,
            worker: "frozen",
            what: "kill -STOP",
            verdict: Some(Verdict::Silent),
            told: Some(Duration::from_millis(1_893)),
            within: Some(Duration::from_secs(2)),
            reason: "no beat".to_owned(),
        }
    }

    #[test]
    fn a_finished_line_says_everything_in_words() {
        let text = table_line(&line(), Ink::Plain);
        let words: Vec<_> = text.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        assert_eq!(words, ["✓ frozen", "kill -STOP", "silent", "no", "no", "1.8 s", "2 s"]);
    }

    #[test]
    fn a_sentence_that_does_not_fit_is_cut() {
        assert_eq!(fit("0123456789", 10), "0123456789");
        assert_eq!(fit("0123456789", 9), "01234567…");
        assert_eq!(fit("ääää", 3), "ää…");
        assert_eq!(fit("ab", 0), "…");
    }

    #[test]
    fn no_line_is_wider_than_80_columns() {
        for act in super::super::script::ACTS {
            let within = Some(Duration::from_millis(1_700));
            let told = Some(Duration::from_millis(12_345));
            let line = Line {
                worker: act.worker,
                what: act.what,
                verdict: Some(act.verdict),
                told,
                within,
                ..line()
            };
            assert!(table_line(&line, Ink::Plain).chars().count() < 80, "{}", table_line(&line, Ink::Plain));
        }
    }

    #[test]
    fn without_colours_nothing_steers_the_terminal() {
        for mark in [Mark::Ahead, Mark::Now, Mark::Right, Mark::Wrong] {
            assert!(!table_line(&Line { mark, ..line() }, Ink::Plain).contains('\x1b'));
            assert!(table_line(&Line { mark, ..line() }, Ink::Colours).contains("\x1b["));
        }
    }

    #[test]
    fn a_line_whose_turn_has_not_come_promises_nothing() {
        let ahead = Line { mark: Mark::Ahead, told: None, verdict: Some(Verdict::Alive), ..line() };
        assert!(table_line(&ahead, Ink::Plain).ends_with("alive     yes   yes"));
    }
}
