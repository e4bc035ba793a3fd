//! Under systemd: what the manager is told.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::bench::start;
use crate::scene::Scene;

#[test]
fn a_manager_that_takes_no_message_holds_nothing_up() {
    let scene = Scene::new();
    let _worker = scene.worker("w").start().unwrap();
    let socket = UnixDatagram::bind(scene.bench.path("notify")).unwrap();
    // Until it is full, as where nobody reads.
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"full", scene.bench.path("notify")).is_ok() {}
    let mut command = scene.agent_command(&[]);
    command.env("NOTIFY_SOCKET", scene.bench.path("notify")).env("WATCHDOG_USEC", "200000");
    let agent = start(&mut command);
    scene.until_counts(1, 1);
    // Once it takes messages again, it is told what it has missed.
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 1024];
    let mut told = String::new();
    while !(told.contains("READY=1") && told.contains("WATCHDOG=1") && told.contains("STATUS=1 worker")) {
        let length = socket.recv(&mut buffer).unwrap();
        told += std::str::from_utf8(&buffer[..length]).unwrap();
    }
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.exit(), 0);
}

#[test]
fn systemd_is_told_of_the_start_the_workers_the_turning_loop_and_the_end() {
    let scene = Scene::new();
    let _worker = scene.worker("w").start().unwrap();
    let socket = UnixDatagram::bind(scene.bench.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = scene.agent_command(&[]);
    command.env("NOTIFY_SOCKET", scene.bench.path("notify")).env("WATCHDOG_USEC", "200000");
    let agent = start(&mut command);
    let mut buffer = [0; 1024];
    let mut hear = || {
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(hear(), "READY=1\n");
    let begun = Instant::now();
    let mut told = String::new();
    while told.matches("WATCHDOG=1").count() < 20 {
        told += &hear();
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(told.contains("STATUS=1 worker, 1 can take work\n"), "{told}");
    agent.signal(Signal::SIGTERM);
    while !hear().contains("STOPPING=1") {}
    assert_eq!(agent.exit(), 0);
}
