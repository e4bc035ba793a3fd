//! The last runs of a check as a strip of bars: the latest at the right, the worse the higher, and in words for who cannot see it.

use std::fmt::Write as _;

use maud::{Markup, html};
use shared::Status;

use crate::serve::standing::RUNS;

/// From one bar to the next, and a bar's width.
const STEP: usize = 3;
const WIDTH: usize = 2;

const HEIGHT: usize = 20;

/// Draws runs, the latest last.
pub fn draw(runs: &[Status]) -> Markup {
    let runs = &runs[runs.len().saturating_sub(RUNS)..];
    let empty = RUNS - runs.len();
    let bars = |status: Status| {
        let at = runs.iter().enumerate().filter(move |(_, run)| **run == status);
        path(at.map(|(at, _)| (empty + at, height(status))))
    };
    let view = format!("0 0 {} {HEIGHT}", RUNS * STEP);
    html! {
        svg class="strip" viewBox=(view) preserveAspectRatio="none" role="img" aria-label=(told(runs)) {
            path class="none" d=(path((0..empty).map(|at| (at, 2)))) {}
            @for status in Status::ALL {
                @if runs.contains(&status) {
                    path class=(status.word()) d=(bars(status)) {}
                }
            }
        }
    }
}

fn height(status: Status) -> usize {
    match status {
        Status::Pass => 9,
        Status::Unknown | Status::Warn => 14,
        Status::Fail => HEIGHT,
    }
}

fn path(bars: impl Iterator<Item = (usize, usize)>) -> String {
    bars.fold(String::new(), |mut path, (at, height)| {
        let (x, y) = (at * STEP, HEIGHT - height);
        // Writing to a string cannot fail.
        let _ = write!(path, "M{x} {y}h{WIDTH}v{height}h-{WIDTH}z");
        path
    })
}

fn told(runs: &[Status]) -> String {
    let counted = |status: Status| runs.iter().filter(|run| **run == status).count();
    let parts: Vec<_> = Status::ALL
        .into_iter()
        .map(|status| (counted(status), status.word()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    match runs.len() {
        0 => "no runs yet".to_owned(),
        1 => format!("the only run: {}", parts.join(", ")),
        count => format!("the last {count} runs: {}", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::{Fail, Pass, Unknown};

    #[test]
    fn it_is_told_in_words_too() {
        assert_eq!(told(&[]), "no runs yet");
        assert_eq!(told(&[Fail]), "the only run: 1 fail");
        assert_eq!(told(&[Pass, Fail, Pass, Unknown]), "the last 4 runs: 2 ok, 1 fail, 1 unknown");
    }

    #[test]
    fn the_latest_run_is_the_last_bar_and_there_are_never_more_than_are_remembered() {
        let last = (RUNS - 1) * STEP;
        assert!(draw(&[Pass, Fail]).into_string().contains(&format!("d=\"M{last} 0h2v20h-2z\"")));
        let full = draw(&[Pass; 2 * RUNS]).into_string();
        assert_eq!(full.matches("h2").count(), RUNS);
        assert!(full.contains("the last 60 runs: 60 ok"));
    }
}
