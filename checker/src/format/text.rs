//! One line for people.

use std::fmt;

use shared::checks::worker::Answer;

use super::plain::Plain;

/// `VERDICT: REASON (CLUSTER@WORKER, FILE)`.
pub fn worker(answer: &Answer) -> String {
    format!("{}\n", Plain(Line(answer)))
}

/// The same without its newline, for lines that hold more.
pub struct Line<'a>(pub &'a Answer);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { verdict, reason, file, record, .. } = self.0;
        write!(f, "{verdict}: {reason} (")?;
        if let Some(record) = record {
            write!(f, "{}@{}, ", record.cluster, record.worker)?;
        }
        write!(f, "{})", file.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;

    #[test]
    fn a_line_names_the_verdict_the_reason_the_worker_and_the_file() {
        let shown = worker(&samples::alive());
        assert_eq!(shown, "alive: busy, beat 812 ms ago, 1 task running (orders@web-3:17, /run/beat)\n");
        let shown = worker(&samples::missing());
        assert_eq!(shown, "missing: there is no beat file (/run/beat)\n");
    }

    #[test]
    fn every_answer_is_one_line() {
        for answer in samples::all() {
            let shown = worker(&answer);
            assert_eq!(shown.matches(char::is_control).collect::<Vec<_>>(), ["\n"], "{shown:?}");
            assert!(shown.starts_with(&format!("{}: ", answer.verdict)), "{shown}");
        }
    }
}
