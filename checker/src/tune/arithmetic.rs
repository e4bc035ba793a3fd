//! How soon a probe tells what is wrong with a worker, and how often it tells what is not: arithmetic alone.
//!
//! A probe asks every `period`, and counts once it has failed `failures` times in a row. Its answer takes `answer` at most. A
//! fault is told by the record at some moment after it: at once, or once the promise or a budget has passed. From there on:
//!
//! * worst: the fault is told just after a probe has looked, so `failures` whole periods pass, and the last answer is slow;
//! * typical: the mean, half a period less, with answers that take no time.
//!
//! All times are in milliseconds.

/// What a worker and its probe are set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often the worker beats.
    pub interval_ms: u64,
    /// How long its silence may last.
    pub promise_ms: u64,
    /// How often the probe asks.
    pub period_ms: u64,
    /// How many failures in a row count.
    pub failures: u64,
    /// How long the probe's answer may take.
    pub answer_ms: u64,
}

/// How long it takes from a fault until it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// It takes no longer.
    pub worst_ms: u64,
    /// The mean.
    pub typical_ms: u64,
}

/// How often a living worker is told dead, a year.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alarms {
    /// Where the lateness of beats is distributed exponentially, as waiting times mostly are.
    pub typical: f64,
    /// Whatever the distribution is that has this deviation.
    pub at_most: f64,
}

const YEAR_MS: f64 = 365.25 * 86_400_000.0;

impl Settings {
    /// A process that has ended, seen by who shares its PID namespace: the next probe tells.
    pub fn gone(&self) -> Detection {
        self.told_after(0, 0)
    }

    /// No beat any more: the last one was made up to an interval before the fault.
    pub fn silent(&self) -> Detection {
        self.told_after(self.promise_ms, self.interval_ms)
    }

    /// A loop or a task that hangs: what was left of its budget passes, and the worker's own thread tells at that moment.
    pub fn overdue(&self, budget_ms: u64) -> Detection {
        self.told_after(budget_ms, 0)
    }

    /// The record tells `wait_ms` after the fault, or up to `spread_ms` sooner.
    fn told_after(&self, wait_ms: u64, spread_ms: u64) -> Detection {
        // A probe that takes longer than its period delays the next.
        let slowest = self.period_ms.max(self.answer_ms);
        Detection {
            worst_ms: wait_ms + slowest * self.failures + self.answer_ms,
            typical_ms: wait_ms - spread_ms / 2 + self.period_ms * self.failures - self.period_ms / 2,
        }
    }

    /// A worker that cannot run for no longer than this is never told dead: its last beat was an interval before, and this many
    /// probes find it silent that do not count yet.
    pub fn rides_out_ms(&self) -> u64 {
        self.silence_ms().saturating_sub(self.interval_ms)
    }

    /// The shortest time between two beats that may be told: between them there is room for all the probes that count.
    pub fn silence_ms(&self) -> u64 {
        self.promise_ms + (self.failures - 1) * self.period_ms
    }

    /// How often beats are so late that it is told, where the time between two has the mean `mean_ms` and the standard
    /// deviation `deviation_ms`.
    ///
    /// The chance that the probes hit a silence that is long enough grows over one period from none to certainty, so it is
    /// averaged over one. `at_most` takes it for certain, and Cantelli's inequality for the distribution.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of less than a million years")]
    pub fn alarms(&self, mean_ms: f64, deviation_ms: f64) -> Alarms {
        let beats = YEAR_MS / mean_ms;
        let late = self.silence_ms() as f64 - mean_ms;
        let period = self.period_ms as f64;
        if late <= 0.0 {
            return Alarms { typical: beats, at_most: beats };
        }
        if deviation_ms <= 0.0 {
            return Alarms { typical: 0.0, at_most: 0.0 };
        }
        // An exponential distribution's mean is its deviation: it begins that much before the mean of what is late.
        let beyond = |late: f64| (-late / deviation_ms - 1.0).exp();
        let typical = deviation_ms / period * (beyond(late) - beyond(late + period));
        let variance = deviation_ms * deviation_ms;
        Alarms { typical: beats * typical, at_most: beats * variance / (variance + late * late) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Settings =
        Settings { interval_ms: 1_000, promise_ms: 30_000, period_ms: 10_000, failures: 3, answer_ms: 5_000 };

    fn detection(worst_ms: u64, typical_ms: u64) -> Detection {
        Detection { worst_ms, typical_ms }
    }

    #[test]
    fn the_defaults_are_worked_out_by_hand() {
        assert_eq!(DEFAULT.gone(), detection(35_000, 25_000));
        assert_eq!(DEFAULT.silent(), detection(65_000, 54_500));
        assert_eq!(DEFAULT.overdue(60_000), detection(95_000, 85_000));
        assert_eq!(DEFAULT.silence_ms(), 50_000);
        assert_eq!(DEFAULT.rides_out_ms(), 49_000);
    }

    #[test]
    fn a_probe_that_takes_longer_than_its_period_delays_the_next() {
        let slow = Settings { period_ms: 1_000, failures: 2, answer_ms: 3_000, ..DEFAULT };
        assert_eq!(slow.gone(), detection(9_000, 1_500));
    }

    #[test]
    fn a_single_failure_counts_at_the_first_probe() {
        let once = Settings { failures: 1, answer_ms: 0, ..DEFAULT };
        assert_eq!(once.gone(), detection(10_000, 5_000));
        assert_eq!((once.silence_ms(), once.rides_out_ms()), (30_000, 29_000));
    }

    /// Numbers in [0, 1) that look like chance, the same in each run.
    fn chance() -> impl FnMut() -> f64 {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(u32::try_from(state >> 32).expect("32 bits")) / 4_294_967_296.0
        }
    }

    /// A probe with its period plays against a fault, step by step; how long after it the fault counts.
    fn play(settings: &Settings, chance: &mut impl FnMut() -> f64, promised: bool, answer: f64) -> f64 {
        let ms = |ms: u64| f64::from(u32::try_from(ms).expect("small"));
        let told = if promised { ms(settings.promise_ms) - chance() * ms(settings.interval_ms) } else { 0.0 };
        let mut asks = chance() * ms(settings.period_ms);
        let mut failed = 0;
        loop {
            failed = if asks > told { failed + 1 } else { 0 };
            if failed == settings.failures {
                return asks + answer;
            }
            asks += ms(settings.period_ms);
        }
    }

    #[test]
    fn worst_and_typical_are_what_a_probe_played_out_takes() {
        let mut chance = chance();
        for (promised, formula) in [(false, DEFAULT.gone()), (true, DEFAULT.silent())] {
            let took: Vec<f64> = (0..100_000).map(|_| play(&DEFAULT, &mut chance, promised, 0.0)).collect();
            let mean = took.iter().sum::<f64>() / 100_000.0;
            let (worst, typical) = (formula.worst_ms - DEFAULT.answer_ms, formula.typical_ms);
            assert!((mean - f64::from(u32::try_from(typical).unwrap())).abs() < 50.0, "{mean} {formula:?}");
            let longest = took.iter().copied().fold(0.0, f64::max);
            let worst = f64::from(u32::try_from(worst).unwrap());
            assert!(longest <= worst && longest > worst - 300.0, "{longest} {formula:?}");
        }
    }

    #[test]
    fn false_alarms_are_what_a_probe_played_out_tells() {
        // Nothing that anybody would set: an alarm must come often enough to be counted.
        let settings =
            Settings { interval_ms: 100, promise_ms: 300, period_ms: 250, failures: 2, answer_ms: 0 };
        let deviation = 150.0;
        let mut chance = chance();
        let beats = 2_000_000;
        let mut alarms = 0.0;
        for _ in 0..beats {
            // A time between two beats whose lateness is exponential: the mean is an interval and the deviation.
            let gap = 100.0 - deviation * (1.0 - chance()).ln();
            let mut asks = chance() * 250.0;
            let mut failed = 0;
            while asks < gap {
                failed += u64::from(asks > 300.0);
                asks += 250.0;
            }
            alarms += f64::from(u8::from(failed >= settings.failures));
        }
        let played = alarms / f64::from(beats);
        let mean = 100.0 + deviation;
        let (told, beats) = (settings.alarms(mean, deviation), YEAR_MS / mean);
        assert!((played / (told.typical / beats) - 1.0).abs() < 0.03, "{played} {told:?}");
        assert!(told.at_most / beats > played, "{told:?}");
    }

    #[test]
    fn no_jitter_no_alarm_and_no_margin_nothing_else() {
        assert_eq!(DEFAULT.alarms(1_000.0, 0.0), Alarms { typical: 0.0, at_most: 0.0 });
        let none = Settings { promise_ms: 2_000, failures: 1, ..DEFAULT };
        let always = none.alarms(2_000.0, 1.0);
        assert_eq!((always.typical, always.at_most), (YEAR_MS / 2_000.0, YEAR_MS / 2_000.0));
    }

    #[test]
    fn more_patience_means_fewer_alarms_and_later_news() {
        let patient = Settings { failures: 4, ..DEFAULT };
        assert!(patient.alarms(1_000.0, 3_000.0).typical < DEFAULT.alarms(1_000.0, 3_000.0).typical);
        assert!(patient.alarms(1_000.0, 3_000.0).at_most < DEFAULT.alarms(1_000.0, 3_000.0).at_most);
        assert!(patient.silent().typical_ms > DEFAULT.silent().typical_ms);
    }
}
