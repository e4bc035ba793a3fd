//! What one worker must be judged as, from its start to the demo's end, and whether it was.
//!
//! Pure: looks and their times come in, findings go out. That the worker was alive *before* it was broken is
//! tried as hard as that it was told after.

use std::time::Duration;

use heartbeat::verdict::Verdict;

/// What a busy machine may take for itself, beside a verdict's own bound, before it counts as late.
const GRACE: Duration = Duration::from_millis(500);

/// How long after its bound a verdict is still waited for, so that it can be said how late it was.
const PATIENCE: Duration = Duration::from_secs(3);

/// The trial of one worker.
#[derive(Debug)]
pub struct Trial {
    /// The verdict that is right now.
    standing: Verdict,
    coming: Option<Coming>,
    mistakes: Vec<Verdict>,
}

/// A verdict that has to come, because something was done to the worker.
#[derive(Debug)]
struct Coming {
    verdict: Verdict,
    since: Duration,
    bound: Duration,
    /// The last look that still had the old verdict: what the checker did not look at, it could not tell.
    looked: Duration,
}

impl Coming {
    fn took(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }
}

/// What a look meant for a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As it has to be, with nothing to come.
    Standing,
    /// The verdict that has to come is not there yet.
    Waiting,
    /// The verdict that had to come is there.
    Told {
        /// How long that took.
        after: Duration,
        /// Whether it was looked for in vain when it was overdue.
        late: bool,
    },
    /// The verdict that had to come did not, and is no longer waited for.
    NeverTold,
    /// A verdict that is neither the old nor the new one.
    Mistake,
}

impl Trial {
    /// A worker that is not there yet.
    pub fn new() -> Self {
        Self { standing: Verdict::Missing, coming: None, mistakes: Vec::new() }
    }

    /// From now on `verdict` has to come, within `bound`.
    pub fn expect(&mut self, verdict: Verdict, bound: Duration, now: Duration) {
        self.coming = Some(Coming { verdict, since: now, bound, looked: now });
    }

    /// Takes note of one look.
    pub fn look(&mut self, verdict: Verdict, now: Duration) -> Look {
        let Some(coming) = &mut self.coming else {
            return if verdict == self.standing { Look::Standing } else { self.mistake(verdict) };
        };
        let most = coming.bound + GRACE;
        if verdict == coming.verdict {
            let told = Look::Told { after: coming.took(now), late: coming.took(coming.looked) > most };
            self.standing = verdict;
            self.coming = None;
            return told;
        }
        if verdict != self.standing {
            return self.mistake(verdict);
        }
        coming.looked = now;
        if coming.took(now) > most + PATIENCE {
            self.coming = None;
            return Look::NeverTold;
        }
        Look::Waiting
    }

    fn mistake(&mut self, verdict: Verdict) -> Look {
        if !self.mistakes.contains(&verdict) {
            self.mistakes.push(verdict);
        }
        Look::Mistake
    }

    /// The verdicts that were wrong at the moment of a look, each once.
    pub fn mistakes(&self) -> &[Verdict] {
        &self.mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn alive() -> Trial {
        let mut trial = Trial::new();
        trial.expect(Verdict::Alive, SECOND, ms(0));
        assert_eq!(trial.look(Verdict::Missing, ms(10)), Look::Waiting);
        assert_eq!(trial.look(Verdict::Alive, ms(20)), Look::Told { after: ms(20), late: false });
        trial
    }

    #[test]
    fn the_right_verdict_in_time_is_told() {
        let mut trial = alive();
        assert_eq!(trial.look(Verdict::Alive, ms(30)), Look::Standing);
        trial.expect(Verdict::Silent, SECOND, ms(40));
        assert_eq!(trial.look(Verdict::Alive, ms(50)), Look::Waiting);
        assert_eq!(trial.look(Verdict::Silent, ms(1_040)), Look::Told { after: SECOND, late: false });
        assert_eq!(trial.look(Verdict::Silent, ms(1_050)), Look::Standing);
        assert!(trial.mistakes().is_empty());
    }

    #[test]
    fn a_healthy_worker_called_dead_once_is_a_mistake_for_good() {
        let mut trial = alive();
        assert_eq!(trial.look(Verdict::Gone, ms(30)), Look::Mistake);
        assert_eq!(trial.look(Verdict::Gone, ms(35)), Look::Mistake);
        assert_eq!(trial.look(Verdict::Alive, ms(40)), Look::Standing);
        assert_eq!(trial.mistakes(), [Verdict::Gone]);
    }

    #[test]
    fn another_verdict_than_the_expected_one_is_a_mistake() {
        let mut trial = alive();
        trial.expect(Verdict::Wedged, SECOND, ms(30));
        assert_eq!(trial.look(Verdict::Silent, ms(40)), Look::Mistake);
        assert_eq!(trial.look(Verdict::Alive, ms(45)), Look::Waiting);
        assert_eq!(trial.mistakes(), [Verdict::Silent]);
    }

    #[test]
    fn falling_back_to_alive_after_the_verdict_is_a_mistake() {
        let mut trial = alive();
        trial.expect(Verdict::Gone, SECOND, ms(30));
        trial.look(Verdict::Gone, ms(40));
        assert_eq!(trial.look(Verdict::Alive, ms(50)), Look::Mistake);
    }

    #[test]
    fn a_verdict_is_late_where_a_look_past_its_bound_had_still_the_old_one() {
        let mut trial = alive();
        trial.expect(Verdict::Silent, SECOND, ms(1_000));
        assert_eq!(trial.look(Verdict::Alive, ms(2_501)), Look::Waiting);
        assert_eq!(trial.look(Verdict::Silent, ms(2_510)), Look::Told { after: ms(1_510), late: true });
    }

    #[test]
    fn a_checker_that_did_not_look_does_not_make_a_verdict_late() {
        let mut trial = alive();
        trial.expect(Verdict::Silent, SECOND, ms(1_000));
        assert_eq!(trial.look(Verdict::Alive, ms(1_100)), Look::Waiting);
        assert_eq!(trial.look(Verdict::Silent, ms(9_000)), Look::Told { after: SECOND * 8, late: false });
    }

    #[test]
    fn a_verdict_that_never_comes_is_not_waited_for_forever() {
        let mut trial = alive();
        trial.expect(Verdict::Silent, SECOND, ms(1_000));
        assert_eq!(trial.look(Verdict::Alive, ms(5_500)), Look::Waiting);
        assert_eq!(trial.look(Verdict::Alive, ms(5_501)), Look::NeverTold);
        assert_eq!(trial.look(Verdict::Alive, ms(5_502)), Look::Standing);
    }
}
