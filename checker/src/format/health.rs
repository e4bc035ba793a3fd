//! `application/health+json`, draft-inadarei-api-health-check-06.
//!
//! The draft knows pass, warn and fail. What nobody can tell is a warning where it passes and a failure where
//! it does not; its `observedValue` says `unknown` all the same.

use serde_json::{Map, Value, json};
use shared::Status;
#[cfg(feature = "redis")]
use shared::checks::cluster;
use shared::checks::worker::{Answer, Want};
#[cfg(feature = "run")]
use shared::runner::{Outcome, Overall, Report};

#[cfg(feature = "run")]
use super::Shown;
use super::time::{now, rfc3339};

/// A worker's answer: its verdict, and, where they are known, its beat's age and its tasks.
pub fn worker(answer: &Answer) -> String {
    let status = status(answer.status, answer.passed);
    let time = rfc3339(now());
    let measurement = |value: Value, unit: Option<&str>| {
        let mut entry = json!({ "componentType": "component", "observedValue": value, "time": time });
        if let Some(record) = &answer.record {
            entry["componentId"] = format!("{}@{}", record.cluster, record.worker).into();
        }
        if let Some(unit) = unit {
            entry["observedUnit"] = unit.into();
        }
        entry
    };
    let mut verdict = measurement(answer.verdict.as_str().into(), None);
    verdict["status"] = status.into();
    let mut document = json!({ "status": status, "description": answer.file.to_string_lossy() });
    // The draft wants no output of what passes.
    if answer.status != Status::Pass {
        verdict["output"] = answer.reason.as_str().into();
        document["output"] = format!("{}: {}", answer.verdict, answer.reason).into();
    }
    let mut checks = Map::new();
    checks.insert(name(answer.want).to_owned(), json!([verdict]));
    if let Some(age_ms) = answer.age_ms {
        checks.insert("worker:beatAge".to_owned(), json!([measurement(age_ms.into(), Some("ms"))]));
    }
    if let Some(record) = &answer.record {
        let running = measurement(record.tasks.running.into(), Some("tasks"));
        checks.insert("worker:tasksRunning".to_owned(), json!([running]));
        document["serviceId"] = record.worker.as_str().into();
        if let Some(version) = &record.version {
            document["releaseId"] = version.as_str().into();
        }
    }
    document["checks"] = checks.into();
    format!("{document}\n")
}

fn name(want: Want) -> &'static str {
    match want {
        Want::Live => "worker:liveness",
        Want::Ready => "worker:readiness",
    }
}

/// A cluster's answer: how many workers there are, and where they are listed, each one's verdict.
#[cfg(feature = "redis")]
pub fn cluster(answer: &cluster::Answer) -> String {
    let status = status(answer.status, answer.passed);
    let time = rfc3339(now());
    let measurement = |value: Value| json!({ "componentType": "component", "componentId": answer.cluster, "observedValue": value, "time": time });
    let mut document = json!({ "status": status, "serviceId": answer.cluster, "description": answer.place });
    let mut summary = measurement(answer.status.as_str().into());
    summary["status"] = status.into();
    if answer.status != Status::Pass {
        document["output"] = answer.explanation().into();
        summary["output"] = answer.explanation().into();
    }
    let mut checks = Map::new();
    checks.insert("cluster:policies".to_owned(), json!([summary]));
    if let Some(facts) = &answer.facts {
        for (name, count) in [("fresh", facts.fresh), ("ready", facts.ready), ("lost", facts.lost_count)] {
            let mut entry = measurement(count.into());
            entry["observedUnit"] = "workers".into();
            checks.insert(format!("cluster:{name}"), json!([entry]));
        }
    }
    if let Some(roll) = &answer.roll {
        let worker = |listed: &cluster::Listed| {
            let mut entry = measurement(listed.verdict.as_str().into());
            entry["componentId"] = format!("{}@{}", answer.cluster, listed.worker).into();
            entry
        };
        checks.insert("cluster:workers".to_owned(), roll.workers.iter().map(worker).collect());
    }
    document["checks"] = checks.into();
    format!("{document}\n")
}

/// A report: what each check found, and, where that is shown, how long it took.
#[cfg(feature = "run")]
pub fn report(subset: &str, report: &Report, shown: Shown) -> String {
    format!("{}\n", report_document(subset, report, shown))
}

/// The member of `checks` that a check of this name is. Where there is no measurement, it is a component alone.
#[cfg(feature = "run")]
pub fn key(check: &str, shown: Shown) -> String {
    if shown.durations { format!("{check}:responseTime") } else { check.to_owned() }
}

/// The same report as a document, for who has more to say in it.
#[cfg(feature = "run")]
pub fn report_document(subset: &str, report: &Report, shown: Shown) -> Value {
    let time = rfc3339(now());
    let check = |outcome: &Outcome| {
        let mut entry = json!({ "componentType": "component", "status": status(outcome.status, !outcome.critical), "time": time });
        if let Some(reason) = outcome.reason.as_ref().filter(|_| shown.reasons) {
            entry["output"] = reason.as_str().into();
        }
        if shown.durations {
            entry["observedValue"] = super::json::duration_ms(outcome.took);
            entry["observedUnit"] = "ms".into();
        }
        (key(&outcome.name, shown), json!([entry]))
    };
    let status = match report.status {
        Overall::Ok => Status::Pass,
        Overall::Warning => Status::Warn,
        Overall::Fail => Status::Fail,
    };
    let mut document = json!({ "status": status.as_str(), "description": subset });
    if status != Status::Pass {
        document["output"] = super::text::summary(subset, report).into();
    }
    document["checks"] = report.outcomes.iter().map(check).collect::<Map<_, _>>().into();
    document
}

fn status(status: Status, passed: bool) -> &'static str {
    let status = match status {
        Status::Unknown if passed => Status::Warn,
        Status::Unknown => Status::Fail,
        told => told,
    };
    status.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;

    fn read(answer: &Answer) -> Value {
        let shown = worker(answer);
        assert_eq!(shown.matches('\n').count(), 1, "{shown:?}");
        serde_json::from_str(&shown).unwrap()
    }

    #[test]
    fn every_answer_keeps_to_the_draft() {
        for answer in samples::all() {
            let document = read(&answer);
            let status = document["status"].as_str().unwrap();
            assert!(["pass", "warn", "fail"].contains(&status), "{document}");
            assert_eq!(status != "fail", answer.passed, "{document}");
            assert_eq!(document["output"].is_null(), status == "pass", "{document}");
            for (name, entries) in document["checks"].as_object().unwrap() {
                assert_eq!(name.matches(':').count(), 1, "{name}");
                for entry in entries.as_array().unwrap() {
                    assert_eq!(entry["componentType"], "component");
                    assert!(!entry["observedValue"].is_null() && entry["time"].is_string(), "{entry}");
                }
            }
            let verdict = &document["checks"][name(answer.want)][0];
            assert_eq!(
                (&verdict["observedValue"], &verdict["status"]),
                (&json!(answer.verdict.as_str()), &json!(status))
            );
        }
    }

    #[test]
    fn a_healthy_worker_tells_who_it_is_how_old_its_beat_and_what_it_does() {
        let document = read(&samples::alive());
        assert_eq!((&document["serviceId"], &document["releaseId"]), (&json!("web-3:17"), &json!("2.1.0")));
        let age = &document["checks"]["worker:beatAge"][0];
        assert_eq!((&age["observedValue"], &age["observedUnit"]), (&json!(812), &json!("ms")));
        assert_eq!(document["checks"]["worker:tasksRunning"][0]["observedValue"], 1);
    }
}
