//! Beats so often, to have their instructions counted: `beats FILE NUMBER`.

use std::time::Duration;
use std::{env, thread};

use heartbeat::Heartbeat;

fn main() {
    let words: Vec<_> = env::args().collect();
    let number: u64 = words[2].parse().expect("a number");
    let heartbeat = Heartbeat::builder()
        .environment(|_| None)
        .file(&words[1])
        .cluster("orders")
        .worker("web-3")
        .queues(["mail"])
        .interval(Duration::from_millis(10))
        .start()
        .expect("a heartbeat");
    heartbeat.pulse_within(Duration::from_hours(1));
    let _task = heartbeat.task("resize", Duration::from_hours(1));
    while heartbeat.counters().beats < number {
        thread::sleep(Duration::from_millis(1));
    }
    heartbeat.stop().expect("its end");
    println!("{}", heartbeat.counters().beats);
}
