use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A client of somebody who says exactly this to whoever connects, and then nothing more.
fn client_of(says: Vec<u8>, then_closes: bool) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            // Whoever asked may have gone: that is for the test to see.
            let _ = stream.write_all(&says);
            if !then_closes {
                kept.push(stream);
            }
        }
    });
    Client::new(url.parse().expect("a URL"), Arc::default())
}

fn ask(client: &mut Client, millis: u64) -> Result<Answer, Error> {
    let until = Instant::now() + Duration::from_millis(millis);
    client.ask(&[Ask::Command(cmd("PING"))], until).map(|mut answers| answers.remove(0))
}

#[test]
fn what_does_not_speak_as_redis_is_garbled() {
    for says in ["HTTP/1.1 400 Bad Request\r\n\r\n", "\0\0\0", ":12x\r\n"] {
        let error = ask(&mut client_of(says.into(), false), 2_000).expect_err(says);
        assert_eq!(error.kind(), ErrorKind::Garbled, "{says:?}: {error}");
    }
}

#[test]
fn a_peer_that_says_nothing_or_only_half_costs_its_deadline_and_no_more() {
    for says in ["", "+", "$5\r\nab", "*3\r\n:1\r\n", "$99999999999999999\r\nabc", "*4611686018427387904\r\n"]
    {
        let begun = Instant::now();
        let error = ask(&mut client_of(says.into(), false), 150).expect_err(says);
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{says:?}: {error}");
        assert!(begun.elapsed() < Duration::from_millis(1_500), "{says:?} took {:?}", begun.elapsed());
    }
}

#[test]
fn a_peer_that_trickles_gains_no_time_by_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        while stream.write_all(b"+").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let begun = Instant::now();
    let mut client = Client::new(url.parse().expect("a URL"), Arc::default());
    let error = ask(&mut client, 300).expect_err("an answer");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

#[test]
fn an_answer_has_its_limit() {
    let mut says = format!("${}\r\n", 64 << 20).into_bytes();
    says.resize(64 << 20, b'x');
    let error = ask(&mut client_of(says, false), 5_000).expect_err("an answer");
    assert_eq!(error.kind(), ErrorKind::Garbled, "{error}");
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn a_peer_that_hangs_up_is_unreachable() {
    let error = ask(&mut client_of(Vec::new(), true), 2_000).expect_err("an answer");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[test]
fn a_wait_ends_at_once_when_it_is_given_up() {
    let given_up: Arc<AtomicBool> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let mut client = Client::new(url.parse().expect("a URL"), Arc::clone(&given_up));
    let waiting = thread::spawn(move || ask(&mut client, 30_000).expect_err("an answer"));
    let stream = listener.accept().expect("the client");
    let begun = Instant::now();
    given_up.store(true, Ordering::Relaxed);
    let error = waiting.join().expect("no panic");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(stream);
}

/// A client of a server that answers each question so late, by the numbers of the connection and of the question on it, from 0;
/// or never. Beside it the number of connections.
fn client_of_late(
    answers: impl Fn(usize, usize) -> Option<Duration> + Clone + Send + 'static,
) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let connections = Arc::<AtomicUsize>::default();
    let taken = Arc::clone(&connections);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let connection = taken.fetch_add(1, Ordering::SeqCst);
            let answers = answers.clone();
            thread::spawn(move || {
                for question in 0.. {
                    if !matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                        return;
                    }
                    if let Some(late) = answers(connection, question) {
                        thread::sleep(late);
                        // Whoever asked may have gone.
                        let _ = stream.write_all(b"+PONG\r\n");
                    }
                }
            });
        }
    });
    (Client::new(url.parse().expect("a URL"), Arc::default()), connections)
}

/// Asked once, and then not for so long that it may have been forgotten.
fn asked_and_idle(client: &mut Client) {
    ask(client, 5_000).expect("an answer").expect("a pong");
    thread::sleep(Duration::from_millis(600));
}

#[test]
fn a_kept_connection_that_was_forgotten_on_the_way_is_replaced_within_the_same_question() {
    let at_once = Some(Duration::ZERO);
    let (mut client, connections) =
        client_of_late(move |connection, question| match (connection, question) {
            (0, 1..) => None,
            _ => at_once,
        });
    asked_and_idle(&mut client);
    ask(&mut client, 3_000).expect("an answer").expect("a pong");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    asked_and_idle(&mut client);
    client.prove(Instant::now() + Duration::from_secs(3)).expect("a pong");
    assert_eq!(connections.load(Ordering::SeqCst), 2, "the new one is kept");
}

#[test]
fn a_server_that_is_slow_has_all_the_time_that_there_is() {
    // Whoever connects anew waits in vain.
    let (mut client, connections) = client_of_late(|connection, question| match (connection, question) {
        (0, 0) => Some(Duration::ZERO),
        (0, _) => Some(Duration::from_millis(1_500)),
        _ => None,
    });
    asked_and_idle(&mut client);
    ask(&mut client, 3_000).expect("an answer").expect("a pong");
    assert_eq!(connections.load(Ordering::SeqCst), 2, "it was looked for another one");
    ask(&mut client, 3_000).expect("an answer").expect("a pong");
    assert_eq!(connections.load(Ordering::SeqCst), 2, "it has just answered");
}

#[test]
fn a_kept_connection_is_not_waited_for_where_nobody_listens_any_more() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        drop(listener);
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"+PONG\r\n").expect("a client");
        // Silent from now on, until the client goes.
        while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
    });
    let mut client = Client::new(url.parse().expect("a URL"), Arc::default());
    asked_and_idle(&mut client);
    let begun = Instant::now();
    let error = ask(&mut client, 6_000).expect_err("an answer");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(client);
    server.join().expect("no panic");
}

#[test]
fn who_tells_does_not_connect_beside_a_server_that_is_slow() {
    let (mut client, connections) = client_of_late(|_, question| match question {
        0 => Some(Duration::ZERO),
        _ => Some(Duration::from_secs(1)),
    });
    asked_and_idle(&mut client);
    let until = Instant::now() + Duration::from_millis(2_500);
    client.tell(&[Ask::Command(cmd("PING"))], until).expect("an answer");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn the_answer_to_a_login_is_never_told() {
    let says = b"-ERR unknown command 'AUTH', with args beginning with: 'me' 'S3cret'\r\n".to_vec();
    let listening = client_of(says, false);
    let Servers::One(host) = &listening.url().servers else { panic!("one server") };
    let url = format!("redis://me:S3cret@{host}");
    let mut client = Client::new(url.parse().expect("a URL"), Arc::default());
    let error = ask(&mut client, 2_000).expect_err("an answer");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(!format!("{error} {error:?} {client:?}").contains("S3cret"), "{error}");
}

#[test]
fn what_does_not_exist_is_unreachable() {
    for url in ["redis://no-such-name.invalid", "unix:///no/such/socket"] {
        let mut client = Client::new(url.parse().expect("a URL"), Arc::default());
        let error = ask(&mut client, 5_000).expect_err("an answer");
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{url}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(
        prop_oneof![Just(b'*'), Just(b'$'), Just(b'%'), Just(b'|'), Just(b'>'), Just(b'='), Just(b'-'),
            Just(b'+'), Just(b':'), Just(b'\r'), Just(b'\n'), b'0'..=b'9', any::<u8>()], 0..80)) {
        // Any outcome is one, but a panic.
        drop(redis::Parser::new().parse_value(bytes.as_slice()));
    }
}
