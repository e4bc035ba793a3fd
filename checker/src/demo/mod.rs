//! `checker demo`: real workers in processes of their own, broken one after another, and judged all the time.
//!
//! This file is the play itself: it strikes, looks and keeps the score. What is done to whom stands in
//! `script`, the processes in `crew`, what makes a verdict right in `trial`, the screen in `show`.

mod crew;
mod script;
mod show;
mod trial;
pub mod worker;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::observe::{Moment, Owner, observe};
use heartbeat::verdict::Verdict;

use self::crew::Crew;
use self::script::{ACTS, Act, CONTROL, Fault};
use self::show::{Line, Mark, Show, human};
use self::trial::{Look, Trial};
use crate::exit::Exit;
use crate::interrupt::{Interrupt, Signal};
use crate::stream;

/// Between two rounds of looks at all workers.
const ROUND: Duration = Duration::from_millis(5);

/// Between two drawings of the table.
const FRAME: Duration = Duration::from_millis(80);

/// For the eye: how long each verdict stands before the next worker is broken.
const PAUSE: Duration = Duration::from_millis(400);

/// For the eye: how long all workers are shown alive first.
const OVERTURE: Duration = Duration::from_millis(1_200);

/// How often a beat file is overwritten again, at most, because a beat came before the look.
const REPEATS: u32 = 20;

/// Settings of the demo.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the demo. Passes only where every verdict was the right one, in time.
///
/// Interrupted, it cleans up and then ends by the same signal.
pub fn run(_args: &Args) -> Exit {
    let interrupt = match Interrupt::catch() {
        Ok(interrupt) => interrupt,
        Err(error) => return failed(&error),
    };
    match Play::perform(&interrupt) {
        Ok(exit) => exit,
        Err(End::Interrupted(signal)) => {
            stream::complain("interrupted: the workers are ended, their folder is removed");
            signal.end();
            Exit::Failed
        }
        // Nobody looks any more.
        Err(End::Error(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Failed,
        Err(End::Error(error)) => failed(&error),
    }
}

fn failed(error: &io::Error) -> Exit {
    stream::complain(&format!("the demo cannot run: {error}"));
    Exit::Unexpected
}

/// Why the play ended before its end.
enum End {
    Interrupted(Signal),
    Error(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Error(error)
    }
}

/// A worker as it was last seen.
struct Seen {
    name: &'static str,
    trial: Trial,
    verdict: Verdict,
    look: Look,
    reason: String,
    tasks_done: u64,
}

struct Play<'i> {
    interrupt: &'i Interrupt,
    crew: Crew,
    seen: Vec<Seen>,
    lines: Vec<Line>,
    /// What was last told, below the table.
    told: String,
    /// The act that is on, and since when.
    now: Option<(usize, Duration)>,
    begun: Instant,
    looks: u64,
    drawn: Duration,
    show: Show,
}

impl<'i> Play<'i> {
    fn perform(interrupt: &'i Interrupt) -> Result<Exit, End> {
        let mut play = Self::begin(interrupt)?;
        for (number, act) in ACTS.iter().enumerate() {
            play.act(number + 1, act)?;
        }
        play.finish()
    }

    fn begin(interrupt: &'i Interrupt) -> Result<Self, End> {
        let begun = Instant::now();
        let lines = lines();
        let crew = Crew::start(&script::workers())?;
        let mut play = Self {
            interrupt,
            seen: crew.members().iter().map(|member| Seen::new(member.name)).collect(),
            crew,
            show: Show::on_stdout(lines.len()),
            lines,
            told: String::new(),
            now: None,
            begun,
            looks: 0,
            drawn: Duration::ZERO,
        };
        let workers = play.seen.len();
        show::say(&format!(
            "{workers} workers, each a process of its own: they hash files, and beat every {}.\n\
             They are judged by their beat files alone, while they are broken one by one.",
            human(script::BEAT),
        ))?;
        play.overture()?;
        Ok(play)
    }

    /// All workers start, and are seen alive.
    fn overture(&mut self) -> Result<(), End> {
        self.crew.strike(CONTROL.worker, CONTROL.fault)?;
        for seen in &mut self.seen {
            seen.trial.expect(Verdict::Alive, script::START, Duration::ZERO);
        }
        while self.seen.iter().any(|seen| seen.look == Look::Waiting) {
            self.round()?;
        }
        if let Some(absent) = self.seen.iter().find(|seen| seen.look == Look::NeverTold) {
            let text = format!("worker {} did not start in time", absent.name);
            return Err(End::Error(io::Error::other(text)));
        }
        let after = human(self.begun.elapsed());
        self.told = format!("all alive {after} after their start");
        self.show.begin()?;
        self.pass(OVERTURE)
    }

    fn act(&mut self, number: usize, act: &Act) -> Result<(), End> {
        self.now = Some((number, self.begun.elapsed()));
        self.lines[number].mark = Mark::Now;
        self.strike(act)?;
        let mut repeats = REPEATS;
        loop {
            self.round()?;
            match self.seen(act.worker).look {
                Look::Told { after, late } => break self.settle(number, Some(after), !late),
                Look::NeverTold | Look::Standing => break self.settle(number, None, false),
                // A beat came between the blow and the look: the garbage was gone before anybody could see it.
                Look::Waiting if act.fault == Fault::Overwrite && repeats > 0 => {
                    repeats -= 1;
                    self.strike(act)?;
                }
                Look::Waiting | Look::Mistake => {}
            }
        }
        self.now = None;
        self.show.append(&self.lines[number])?;
        self.drawn = Duration::ZERO;
        // What comes of itself is not waited for.
        match ACTS.get(number) {
            Some(next) if next.fault == Fault::Nothing => Ok(()),
            _ => self.pass(PAUSE),
        }
    }

    fn strike(&mut self, act: &Act) -> Result<(), End> {
        let now = self.begun.elapsed();
        self.seen(act.worker).trial.expect(act.verdict, act.bound.unwrap_or_default(), now);
        Ok(self.crew.strike(act.worker, act.fault)?)
    }

    /// Writes an act's outcome into its line.
    fn settle(&mut self, number: usize, told: Option<Duration>, right: bool) {
        let act = &ACTS[number - 1];
        let seen = self.seen(act.worker);
        let (verdict, reason) = (seen.verdict, seen.reason.clone());
        self.told = format!("{} is {verdict}: {reason}", act.worker);
        let line = &mut self.lines[number];
        line.mark = if right { Mark::Right } else { Mark::Wrong };
        line.verdict = Some(verdict);
        line.told = told;
        line.reason = reason;
    }

    fn seen(&mut self, worker: &str) -> &mut Seen {
        let index = self.seen.iter().position(|seen| seen.name == worker);
        // Every act's worker is on the stage.
        &mut self.seen[index.unwrap_or_default()]
    }

    /// Goes on looking for a while.
    fn pass(&mut self, time: Duration) -> Result<(), End> {
        let until = self.begun.elapsed() + time;
        while self.begun.elapsed() < until {
            self.round()?;
        }
        Ok(())
    }

    /// One look at every worker.
    fn round(&mut self) -> Result<(), End> {
        thread::sleep(ROUND);
        if let Some(signal) = self.interrupt.caught() {
            return Err(End::Interrupted(signal));
        }
        for (seen, member) in self.seen.iter_mut().zip(self.crew.members()) {
            let asked = Moment::now();
            let observation = observe(&member.file, Owner::Own);
            let judgement = observation.judge_as_of(asked, None);
            seen.take(judgement.verdict, self.begun.elapsed(), judgement.to_string());
            if let Some(record) = observation.record() {
                seen.tasks_done = record.tasks.done;
            }
            self.looks += 1;
        }
        let now = self.begun.elapsed();
        if self.told.is_empty() || now < self.drawn + FRAME {
            return Ok(());
        }
        self.drawn = now;
        self.refresh(now);
        Ok(self.show.redraw(&self.lines, &self.told)?)
    }

    /// Shows in every line that is not finished how it stands right now.
    fn refresh(&mut self, now: Duration) {
        let mut worker = "";
        for line in &mut self.lines {
            let continued = line.worker.is_empty();
            worker = if continued { worker } else { line.worker };
            let seen = self.seen.iter().find(|seen| seen.name == worker);
            match line.mark {
                Mark::Ahead if continued => {}
                Mark::Ahead | Mark::Now => line.verdict = seen.map(|seen| seen.verdict),
                Mark::Right | Mark::Wrong => {}
            }
        }
        if let Some((number, since)) = self.now {
            self.lines[number].told = Some(now.saturating_sub(since));
        }
    }

    fn finish(mut self) -> Result<Exit, End> {
        let (control, mistakes) = self.mistakes();
        self.lines[0].mark = if control { Mark::Right } else { Mark::Wrong };
        self.lines[0].verdict = Some(self.seen(CONTROL.worker).verdict);
        let reason = self.seen(CONTROL.worker).reason.clone();
        self.lines[0].reason = reason;
        self.show.append(&self.lines[0])?;
        self.show.redraw(&self.lines, &self.told)?;
        for mistake in &mistakes {
            show::say(mistake)?;
        }
        let right = self.lines.iter().filter(|line| line.mark == Mark::Right).count();
        let passed = right == self.lines.len() && mistakes.is_empty();
        let mark = if passed { Mark::Right } else { Mark::Wrong };
        let closing = self.closing(right, mistakes.len());
        self.show.close(&closing, mark)?;
        Ok(if passed { Exit::Passed } else { Exit::Failed })
    }

    /// Whether the control was never called anything but alive; and a sentence for each worker that was, at
    /// any look, called what it was not.
    fn mistakes(&self) -> (bool, Vec<String>) {
        let mistaken = self.seen.iter().filter(|seen| !seen.trial.mistakes().is_empty());
        let sentence = |seen: &Seen| {
            let verdicts: Vec<_> = seen.trial.mistakes().iter().map(|verdict| verdict.as_str()).collect();
            format!("  {} was called {}, wrongly", seen.name, verdicts.join(" and "))
        };
        let control = mistaken.clone().all(|seen| seen.name != CONTROL.worker);
        (control, mistaken.map(sentence).collect())
    }

    fn closing(&self, right: usize, mistaken: usize) -> String {
        let tasks: u64 = self.seen.iter().map(|seen| seen.tasks_done).sum();
        let wrong = match mistaken {
            0 => "none wrong".to_owned(),
            1 => "1 worker wronged".to_owned(),
            several => format!("{several} workers wronged"),
        };
        let all = self.lines.len();
        let (looks, took) = (self.looks, human(self.begun.elapsed()));
        format!("{right} of {all} verdicts right: {looks} looks, {wrong}; {tasks} tasks done in {took}")
    }
}

impl Seen {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            trial: Trial::new(),
            verdict: Verdict::Missing,
            look: Look::Waiting,
            reason: String::new(),
            tasks_done: 0,
        }
    }

    fn take(&mut self, verdict: Verdict, now: Duration, reason: String) {
        self.look = self.trial.look(verdict, now);
        self.reason = reason;
        self.verdict = verdict;
    }
}

/// The table before anything has happened: the control, then one line for each act.
fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    let mut above = "";
    for act in [CONTROL].iter().chain(&ACTS) {
        let worker = if act.worker == above { "" } else { act.worker };
        above = act.worker;
        lines.push(Line { worker, what: act.what, within: act.bound, ..Line::default() });
    }
    lines
}
