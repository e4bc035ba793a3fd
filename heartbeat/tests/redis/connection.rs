//! A connection on which anything is asked: answers and refusals in their order, and a listener that tells silence from
//! a server that is frozen.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Connection, ErrorKind};
use redis::{Value, cmd};

use crate::servers::{Server, soon};

fn connection(server: &Server) -> Connection {
    Connection::new(server.url().parse().unwrap())
}

#[test]
fn answers_come_in_their_order_and_a_refusal_is_one_of_them() {
    let server = Server::start(&[]);
    let mut set = cmd("SET");
    let mut push = cmd("LPUSH");
    let mut get = cmd("GET");
    let asked = [set.arg("a").arg(1).clone(), push.arg("a").arg(2).clone(), get.arg("a").clone()];
    let answers = connection(&server).ask(&asked, soon()).unwrap();
    assert_eq!(answers[0].as_ref().unwrap(), &Value::Okay);
    let refusal = answers[1].as_ref().unwrap_err();
    assert!(refusal.kind() == ErrorKind::Server && refusal.to_string().contains("WRONGTYPE"), "{refusal}");
    assert_eq!(answers[2].as_ref().unwrap(), &Value::BulkString(b"1".to_vec()));
}

#[test]
fn a_listener_hears_what_is_published_until_it_has_heard_enough() {
    let server = Server::start(&[]);
    let mut speaker = connection(&server);
    let heard = thread::scope(|scope| {
        let listener = scope.spawn(|| {
            let mut heard = Vec::new();
            let patterns = ["news.*".to_owned(), "other".to_owned()];
            let listened = connection(&server).listen(&patterns, soon(), soon(), |payload| {
                heard.push(String::from_utf8(payload.to_vec()).unwrap());
                if heard.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            listened.map(|()| heard)
        });
        let publish = |channel: &str, text: &str| cmd("PUBLISH").arg(channel).arg(text).clone();
        let until = soon();
        while speaker.ask(&[publish("news.a", "1")], until).unwrap()[0].as_ref().unwrap() == &Value::Int(0) {}
        speaker.ask(&[publish("elsewhere", "2"), publish("other", "3")], until).unwrap();
        listener.join().unwrap()
    });
    assert_eq!(heard.unwrap(), ["1", "3"]);
}

#[test]
fn silence_is_told_from_a_server_that_is_frozen() {
    let server = Server::start(&[]);
    let listen = || {
        let quiet = Instant::now() + Duration::from_millis(200);
        let until = quiet + Duration::from_millis(500);
        connection(&server).listen(&["news".to_owned()], quiet, until, |_| ControlFlow::Continue(()))
    };
    listen().unwrap();
    server.freeze();
    assert_eq!(listen().unwrap_err().kind(), ErrorKind::TimedOut);
    server.thaw();
    // Frozen once it has confirmed the subscription.
    thread::scope(|scope| {
        let listener = scope.spawn(|| {
            let quiet = Instant::now() + Duration::from_secs(1);
            let until = quiet + Duration::from_millis(500);
            connection(&server).listen(&["news".to_owned()], quiet, until, |_| ControlFlow::Continue(()))
        });
        let mut numpat = cmd("PUBSUB");
        numpat.arg("NUMPAT");
        let mut asker = connection(&server);
        while asker.ask(std::slice::from_ref(&numpat), soon()).unwrap()[0].as_ref().unwrap() != &Value::Int(1)
        {
        }
        server.freeze();
        assert_eq!(listener.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    });
    server.thaw();
}
