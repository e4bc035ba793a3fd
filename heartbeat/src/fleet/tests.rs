use super::*;
use crate::record::Broker;
use crate::record::tests::least;

#[test]
fn only_a_worker_that_is_well_and_neither_starting_nor_draining_takes_work() {
    for verdict in Verdict::ALL {
        for status in [Status::Starting, Status::Idle, Status::Busy, Status::Draining, Status::Stopped] {
            let mut record = least();
            record.status = status;
            let able = matches!(status, Status::Idle | Status::Busy)
                && matches!(verdict, Verdict::Alive | Verdict::CutOff);
            assert_eq!(takes_work(&record, verdict), able, "{status} {verdict}");
            // Its broker counts from when that makes it cut off.
            for (lost_ms, reached) in [(record.promise_ms, true), (record.promise_ms + 1, false)] {
                record.broker = Some(Broker { lost_mono_ms: record.at_mono_ms - lost_ms });
                assert_eq!(takes_work(&record, verdict), able && reached, "{status} {verdict}");
            }
        }
    }
}
