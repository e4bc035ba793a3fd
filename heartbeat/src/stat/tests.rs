use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn workers_that_start_together_do_not_beat_together() {
    let now = Instant::now();
    let mut phases: Vec<_> =
        (0..1_000).map(|_| Pace::new(SECOND, SECOND * 30, now).due.duration_since(now).as_millis()).collect();
    phases.sort_unstable();
    // Spread over the whole interval: no tenth of it has more than a fifth of them.
    for tenth in 0..10 {
        let within = phases.iter().filter(|phase| (tenth * 100..(tenth + 1) * 100).contains(*phase)).count();
        assert!((20..200).contains(&within), "{within} of 1,000 in one tenth of the interval");
    }
    assert!(Pace::new(SECOND * 600, SECOND * 3_600, now).due <= now + LONGEST_PHASE);
}

#[test]
fn a_beat_keeps_its_phase_and_does_not_catch_up() {
    let now = Instant::now();
    let mut pace = Pace::new(SECOND, SECOND * 30, now);
    let first = pace.due;
    pace.succeeded(first + SECOND / 10);
    assert_eq!(pace.due, first + SECOND);
    // News went out before the line was due.
    pace.succeeded(first + SECOND / 2);
    assert_eq!(pace.due, first + SECOND);
    let late = first + SECOND * 10;
    pace.succeeded(late);
    assert_eq!(pace.due, late + SECOND);
}

#[test]
fn a_redis_that_is_away_is_tried_ever_more_rarely_but_about_as_often_as_it_would_be_beaten_to() {
    let now = Instant::now();
    let mut pace = Pace::new(SECOND, SECOND * 30, now);
    let mut waits = Vec::new();
    for _ in 0..20 {
        pace.failed(now, now);
        waits.push(pace.not_before.duration_since(now).as_millis());
    }
    assert!((50..=100).contains(&waits[0]), "{waits:?}");
    assert!(waits[5..].iter().all(|wait| (750..=1_500).contains(wait)), "{waits:?}");
    assert!(waits[5..].windows(2).any(|pair| pair[0] != pair[1]), "no jitter: {waits:?}");
    pace.succeeded(pace.due);
    pace.failed(now, now);
    assert!(pace.not_before <= now + LEAST_BACKOFF);
}

#[test]
fn a_try_that_was_waited_for_in_vain_has_waited_already() {
    let begun = Instant::now();
    let mut pace = Pace::new(SECOND, SECOND * 30, begun);
    for _ in 0..20 {
        // Nothing between this moment and the last try leaves a Redis that returns without a question for two intervals.
        pace.failed(begun, begun + pace.patience);
        assert_eq!(pace.not_before, begun + pace.patience);
        pace.failed(begun, begun + SECOND / 100);
        assert!(pace.not_before <= begun + SECOND * 3 / 2);
    }
}

#[test]
fn no_wait_is_longer_than_a_third_of_the_promise_or_its_own_limit() {
    let now = Instant::now();
    for (interval_ms, promise_ms) in [(10, 20), (1_000, 2_000), (60_000, 120_000), (3_600_000, 86_400_000)] {
        let promise = Duration::from_millis(promise_ms);
        let mut pace = Pace::new(Duration::from_millis(interval_ms), promise, now);
        let third = (promise / 3).max(LEAST_BACKOFF);
        assert!(pace.patience <= third.min(Duration::from_secs(5)), "{pace:?}");
        for _ in 0..20 {
            pace.failed(now, now);
            assert!(pace.not_before <= now + third.min(MOST_BACKOFF), "{pace:?}");
        }
    }
}
