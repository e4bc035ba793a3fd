//! `checker tune`: what a probe's settings amount to, before anybody relies on them.
//!
//! Arguments in, answer out; the arithmetic is [`arithmetic`]'s, the worker's beats are [`measure`]'s.

mod arithmetic;
mod measure;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ValueEnum, ValueHint};
use heartbeat::duration::{self, Human};
use serde_json::{Value, json};
use shared::checks::worker::parse_owner;

use crate::arguments::timeout;
use crate::exit::Exit;
use crate::stream;
use crate::worker::beat_file;
use arithmetic::{Alarms, Detection, Settings};
use measure::Measured;

const AFTER_HELP: &str = "\
Worst is what no fault takes longer than to count, typical the mean. What a probe does not see before it counts, such as a
machine that has no time for the probe itself, comes on top.

Exit status: 0, 1 where nothing could be measured, 2 invalid arguments.";

/// Work out how soon a probe tells of a fault, and how often of one that is none
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// How often the worker beats [default: 1s, or what the measured worker says]
    #[arg(long, value_name = "DUR", value_parser = some)]
    interval: Option<Duration>,
    /// How long its silence may last [default: 30s, or what the measured worker says]
    #[arg(long, value_name = "DUR", value_parser = some)]
    promise: Option<Duration>,
    /// How often the probe asks
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = some)]
    period: Duration,
    /// How many failures in a row count
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    failures: u64,
    /// How long the probe's answer may take
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = timeout)]
    probe_timeout: Duration,
    /// The budget of a loop or a task, for how soon it is told that it hangs
    #[arg(long, value_name = "DUR", value_parser = some)]
    budget: Option<Duration>,
    /// The standard deviation of the time between two beats, for the chance of a false alarm
    #[arg(long, value_name = "DUR", value_parser = duration::parse, conflicts_with = "measure")]
    jitter: Option<Duration>,
    /// Measure a worker's beats for so long, for the chance of a false alarm
    #[arg(long, value_name = "DUR", value_parser = some)]
    measure: Option<Duration>,
    /// The beat file to measure [default: `$HEARTBEAT_FILE`, else `/tmp/heartbeat`]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, requires = "measure")]
    file: Option<PathBuf>,
    /// Who may own the beat file, besides root and the user who asks: a name, a numeric id, or `any`
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username, requires = "measure")]
    owner: Option<String>,
    /// How the answer is shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Shown,
}

/// The forms of the answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shown {
    /// For reading
    Text,
    /// One JSON object, times in milliseconds
    Json,
}

/// A duration that is not zero.
fn some(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("it is 1ms at least".to_owned()),
        Ok(duration) => Ok(duration),
        Err(invalid) => Err(invalid.to_string()),
    }
}

/// What was asked, and what was measured for it.
struct Answer {
    settings: Settings,
    budget_ms: Option<u64>,
    measured: Option<Measured>,
    /// The deviation that the chance is worked out from, and the chance.
    alarms: Option<(f64, Alarms)>,
}

/// Works it out, and shows it.
pub fn run(args: &Args) -> Exit {
    let measured = match args.measured() {
        Ok(measured) => measured,
        Err((what, exit)) => {
            stream::complain(&what);
            return exit;
        }
    };
    match args.answer(measured) {
        Ok(answer) => {
            let shown = match args.format {
                Shown::Text => answer.text(),
                Shown::Json => format!("{}\n", answer.json()),
            };
            stream::answer(&shown, Exit::Passed)
        }
        Err(what) => {
            stream::complain(what);
            Exit::Invalid
        }
    }
}

impl Args {
    fn measured(&self) -> Result<Option<Measured>, (String, Exit)> {
        let Some(time) = self.measure else { return Ok(None) };
        let owner = self.owner.as_deref().map(parse_owner).transpose();
        let owner = owner.map_err(|wrong| (format!("--owner: {wrong}"), Exit::Invalid))?.unwrap_or_default();
        let file = beat_file(self.file.as_deref());
        let measured = measure::measure(&file, owner, time);
        measured.map(Some).map_err(|what| (format!("{}: {what}", file.display()), Exit::Failed))
    }

    #[expect(clippy::cast_precision_loss, reason = "a year of milliseconds at most")]
    fn answer(&self, measured: Option<Measured>) -> Result<Answer, &'static str> {
        let interval_ms = self.interval.map(ms).or(measured.map(|it| it.interval_ms)).unwrap_or(1_000);
        let promise_ms = self.promise.map(ms).or(measured.map(|it| it.promise_ms)).unwrap_or(30_000);
        if promise_ms < interval_ms.saturating_mul(2) {
            return Err("the promise is two intervals at least");
        }
        let settings = Settings {
            interval_ms,
            promise_ms,
            period_ms: ms(self.period),
            failures: self.failures,
            answer_ms: ms(self.probe_timeout),
        };
        let beats = match (measured, self.jitter) {
            (Some(it), _) => Some((it.mean_ms, it.deviation_ms)),
            (None, Some(jitter)) => Some((interval_ms as f64, ms(jitter) as f64)),
            (None, None) => None,
        };
        let alarms = beats.map(|(mean, deviation)| (deviation, settings.alarms(mean, deviation)));
        Ok(Answer { settings, budget_ms: self.budget.map(ms), measured, alarms })
    }
}

/// No duration on the command line is longer than a year.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Answer {
    fn overdue(&self) -> Option<Detection> {
        self.budget_ms.map(|budget_ms| self.settings.overdue(budget_ms))
    }

    fn text(&self) -> String {
        let Settings { interval_ms, promise_ms, period_ms, failures, answer_ms } = self.settings;
        let mut lines = vec![format!(
            "a beat every {}, promise {}; asked every {}, {failures} in a row count, each within {}",
            Human(interval_ms),
            Human(promise_ms),
            Human(period_ms),
            Human(answer_ms)
        )];
        let told = |what: &str, Detection { worst_ms, typical_ms }| {
            format!("{what:22} worst {:>8}   typical {:>8}", Human(worst_ms).to_string(), Human(typical_ms))
        };
        lines.push(told("its process is gone", self.settings.gone()));
        lines.push(told("no beat any more", self.settings.silent()));
        lines.extend(self.overdue().map(|overdue| told("its loop or task hangs", overdue)));
        lines.push(format!("a pause of up to {} is never told", Human(self.settings.rides_out_ms())));
        lines.extend(self.measured.map(|measured| self.seen(&measured)));
        if let Some((deviation_ms, Alarms { typical, at_most })) = self.alarms {
            let (typical, at_most) = (how_often(typical), how_often(at_most));
            let basis = if self.measured.is_some() { "measured" } else { "given" };
            lines.push(format!(
                "false alarms, by a {basis} deviation of {deviation_ms:.1} ms: typically {typical}, at most {at_most}"
            ));
        }
        lines.join("\n") + "\n"
    }

    fn seen(&self, measured: &Measured) -> String {
        let Measured { count, mean_ms, longest_ms, unseen, .. } = measured;
        let needed = Human(self.settings.silence_ms());
        let mut line = format!(
            "measured: {count} times between beats, {mean_ms:.1} ms on average, {} the longest, of {needed} that may be told",
            Human(*longest_ms)
        );
        if *unseen > 0 {
            // Writing to a string cannot fail.
            let _ = write!(line, "; {unseen} beats were missed by the measurement");
        }
        line
    }

    fn json(&self) -> Value {
        let Settings { interval_ms, promise_ms, period_ms, failures, answer_ms } = self.settings;
        let told =
            |Detection { worst_ms, typical_ms }| json!({ "worst_ms": worst_ms, "typical_ms": typical_ms });
        let measured = self.measured.map(|it| {
            json!({ "count": it.count, "mean_ms": it.mean_ms, "deviation_ms": it.deviation_ms, "longest_ms": it.longest_ms, "unseen": it.unseen })
        });
        let alarms = self.alarms.map(|(deviation_ms, Alarms { typical, at_most })| {
            json!({ "deviation_ms": deviation_ms, "typical": typical, "at_most": at_most })
        });
        json!({
            "interval_ms": interval_ms,
            "promise_ms": promise_ms,
            "period_ms": period_ms,
            "failures": failures,
            "probe_timeout_ms": answer_ms,
            "budget_ms": self.budget_ms,
            "gone": told(self.settings.gone()),
            "silent": told(self.settings.silent()),
            "overdue": self.overdue().map(told),
            "rides_out_ms": self.settings.rides_out_ms(),
            "silence_ms": self.settings.silence_ms(),
            "measured": measured,
            "false_alarms_per_year": alarms,
        })
    }
}

/// So many times a year, as a person would say it.
fn how_often(per_year: f64) -> String {
    const DAYS: f64 = 365.25;
    if per_year < 1e-6 {
        "less than once in a million years".to_owned()
    } else if per_year < 1.0 {
        format!("once in {:.1} years", 1.0 / per_year)
    } else if per_year < DAYS {
        format!("once in {:.1} days", DAYS / per_year)
    } else {
        format!("{:.1} times a day", per_year / DAYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_shown_as_people_say_them() {
        for (per_year, text) in [
            (0.0, "less than once in a million years"),
            (0.25, "once in 4.0 years"),
            (36.525, "once in 10.0 days"),
            (3652.5, "10.0 times a day"),
        ] {
            assert_eq!(how_often(per_year), text);
        }
    }
}
