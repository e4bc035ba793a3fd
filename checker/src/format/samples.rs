//! Answers for the formats' tests: one a verdict and question, and some whose names mean harm.

use heartbeat::record::Record;
use heartbeat::verdict::Verdict;
use shared::Status;
use shared::checks::worker::{Answer, Settings, Want};

const RECORD: &str = r#"{"v":1,"id":"0123456789abcdef0123456789abcdef","cluster":"orders","worker":"web-3:17","host":"web-3",
"queues":["mail"],"pid":17,"pid_start":1,"pid_ns":1,"boot":"b","seq":9,"at_mono_ms":5000,"at_unix_ms":1,"interval_ms":1000,
"promise_ms":30000,"status":"busy","tasks":{"running":1,"done":41,"failed":2},"version":"2.1.0"}"#;

const HARM: [&str; 5] = ["a\u{202e}b", "a | age=1s", "\"},\"status\":\"pass", "a\" 1\\", "# EOF"];

/// A healthy worker.
pub fn alive() -> Answer {
    let record = Record::parse(RECORD.as_bytes()).unwrap();
    let mut answer = answer(Verdict::Alive, Want::Live, "busy, beat 812 ms ago, 1 task running");
    answer.age_ms = Some(812);
    answer.budget_ms = Some(record.promise_ms);
    answer.record = Some(Box::new(record));
    answer
}

/// A worker that is not there.
pub fn missing() -> Answer {
    answer(Verdict::Missing, Want::Live, "there is no beat file")
}

/// Every verdict, for both questions; then names and paths that mean harm.
pub fn all() -> Vec<Answer> {
    let mut all = Vec::new();
    for verdict in Verdict::ALL {
        for want in [Want::Live, Want::Ready] {
            all.push(answer(verdict, want, "some reason"));
        }
    }
    all.push(alive());
    for harm in HARM {
        let mut answer = alive();
        let record = answer.record.as_mut().unwrap();
        harm.clone_into(&mut record.worker);
        harm.clone_into(&mut record.cluster);
        record.version = Some(harm.to_owned());
        answer.reason = format!("its task {harm:?} was due 1 s ago");
        answer.file = format!("/run/{harm}\n\u{1b}[31m").into();
        all.push(answer);
    }
    all
}

/// As the default policy judges it.
fn answer(verdict: Verdict, want: Want, reason: &str) -> Answer {
    let settings = Settings { want, ..Settings::new("/run/beat") };
    let mut answer = settings.cannot_tell(reason);
    answer.verdict = verdict;
    let fits = if want == Want::Live { verdict.live() } else { verdict.ready() };
    (answer.status, answer.passed) = match fits {
        None => (Status::Unknown, want == Want::Live),
        Some(true) if verdict == Verdict::CutOff => (Status::Warn, true),
        Some(true) => (Status::Pass, true),
        Some(false) => (Status::Fail, false),
    };
    answer
}
