//! Signed records: no byte of one can be changed, and what cannot be a key is none.

use std::fs;
use std::path::Path;
use std::time::Instant;

use heartbeat::fleet::{Beat, Fleet, Fleets, InvalidKey, Member, News, SigningKeys};
use heartbeat::record::{Corrupt, MAX_BYTES, Record};
use heartbeat::verdict::Verdict;
use ring::hmac;

use crate::servers::{Server, soon};

pub const OLD: &str = "the-old-key-of-this-cluster-0123456789";
const NEW: &str = "the-new-key-of-this-cluster-0123456789";

/// What a signature adds, as the documentation has it.
const MORE: usize = 99;

const STAT: &str = "heartbeat:{c}:stat:00000000000000000000000000000001";

/// A record of so many bytes, or the least one.
fn record(length: usize) -> (Record, Vec<u8>) {
    let of = |version: &str| {
        format!(
            "{{\"v\":1,\"id\":\"{:032x}\",\"cluster\":\"c\",\"worker\":\"w\",\"host\":\"h\",\"queues\":[\"mail\"],\"pid\":7,\
             \"pid_start\":1,\"pid_ns\":1,\"boot\":\"b\",\"seq\":1,\"at_mono_ms\":5000,\"at_unix_ms\":5000,\
             \"interval_ms\":10,\"promise_ms\":300000,\"status\":\"idle\",\
             \"tasks\":{{\"running\":0,\"done\":0,\"failed\":0}},\"version\":\"{version}\"}}\n",
            1
        )
        .into_bytes()
    };
    let line = of(&"x".repeat(length.saturating_sub(of("").len()).max(1)));
    (Record::parse(&line).expect("a record"), line)
}

pub fn keys(text: &str) -> SigningKeys {
    text.parse().unwrap()
}

/// What the documentation says of the signature, said once more.
fn signed(line: &[u8], at_ms: u64) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, OLD.as_bytes());
    let line = String::from_utf8(line.to_vec()).unwrap();
    let signed = format!("{},\"signed_ms\":{at_ms}", line.strip_suffix("}\n").unwrap());
    let mac = hmac::sign(&key, format!("heartbeat record 1\n{signed}").as_bytes());
    let digits = mac.as_ref().iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
    format!("{signed},\"mac\":\"{digits}\"}}\n").into_bytes()
}

/// The server's clock.
fn time_ms(redis: &Server) -> u64 {
    let time: Vec<u64> = redis.ask("TIME");
    time[0] * 1_000 + time[1] / 1_000
}

fn fleet(redis: &Server, text: &str) -> Fleet {
    Fleet::new(redis.url().parse().unwrap(), "c").signed(keys(text))
}

fn publish(fleet: &mut Fleet, (record, line): &(Record, Vec<u8>)) {
    let beat = Beat { record, line, takes_work: true, age_ms: 0 };
    fleet.publish(&[beat], soon()).unwrap().pop().unwrap().unwrap();
}

fn member(fleet: &mut Fleet) -> Member {
    fleet.named(&["w"], soon()).unwrap().pop().expect("a member")
}

fn stored(redis: &Server) -> Vec<u8> {
    redis::cmd("GET").arg(STAT).query(&mut redis.connection().unwrap()).unwrap()
}

#[test]
fn a_signed_record_is_the_same_record_and_longer_by_what_is_said() {
    let redis = Server::start(&[]);
    let beat = record(0);
    publish(&mut fleet(&redis, OLD), &beat);
    let line = stored(&redis);
    assert_eq!(line.len(), beat.1.len() + MORE);
    assert_eq!(Record::parse(&line).unwrap(), beat.0);
    for mut reader in [fleet(&redis, OLD), Fleet::new(redis.url().parse().unwrap(), "c")] {
        let member = member(&mut reader);
        assert!(member.is_trusted() && member.takes_work);
        assert_eq!(member.judge(None).verdict, Verdict::Alive);
    }
}

#[test]
fn it_says_when_it_was_signed_by_the_servers_clock() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis, OLD);
    let beat = record(0);
    // What the server said of its clock is late by what its answer took, and is cut to a millisecond.
    let mut late_ms = 0;
    for _ in 0..3 {
        let (before, asked) = (time_ms(&redis), Instant::now());
        publish(&mut fleet, &beat);
        let took = asked.elapsed();
        let (line, after) = (stored(&redis), time_ms(&redis));
        let at = (before - late_ms..=after).find(|at| signed(&beat.1, *at) == line);
        assert!(at.is_some(), "{before} to {after}: {}", String::from_utf8_lossy(&line));
        late_ms = u64::try_from(took.as_millis()).unwrap() + 2;
    }
}

#[test]
fn what_is_sent_again_counts_until_two_of_its_promises_have_passed() {
    let redis = Server::start(&[]);
    let (beat, mut connection) = (record(0), redis.connection().unwrap());
    let mut fleet = fleet(&redis, OLD);
    publish(&mut fleet, &beat);
    let twice = 2 * beat.0.promise_ms;
    let mut found = |at_ms: u64| {
        redis::cmd("SET").arg(STAT).arg(signed(&beat.1, at_ms)).query::<()>(&mut connection).unwrap();
        member(&mut fleet)
    };
    let now = time_ms(&redis);
    for at in [now, now - twice + 60_000, now + twice - 60_000] {
        assert!(found(at).is_trusted() && found(at).takes_work);
    }
    for at in [0, now - twice - 1, now + twice + 60_000, u64::MAX] {
        let stale = found(at);
        assert!(!stale.is_trusted() && !stale.takes_work);
        assert!(
            stale.judge(None).to_string().ends_with(&Corrupt::Stale.to_string()),
            "{}",
            stale.judge(None)
        );
    }
}

#[test]
fn no_byte_can_be_changed_dropped_or_added() {
    let redis = Server::start(&[]);
    let mut fleet = fleet(&redis, OLD);
    publish(&mut fleet, &record(0));
    let (line, mut connection) = (stored(&redis), redis.connection().unwrap());
    let mut refused = |bytes: &[u8]| {
        redis::cmd("SET").arg(STAT).arg(bytes).query::<()>(&mut connection).unwrap();
        let member = member(&mut fleet);
        !member.is_trusted() && !member.takes_work && member.judge(None).verdict != Verdict::Alive
    };
    for at in 0..line.len() {
        let mut changed = line.clone();
        changed[at] ^= 1;
        assert!(refused(&changed), "{at}");
        let mut shorter = line.clone();
        shorter.remove(at);
        assert!(refused(&shorter), "{at}");
        let mut longer = line.clone();
        longer.insert(at, b' ');
        assert!(refused(&longer), "{at}");
        assert!(refused(&line[..at]), "{at}");
    }
    assert!(refused(&[&line[..], b"\n"].concat()));
    assert!(!refused(&line));
}

#[test]
fn while_keys_change_the_first_signs_and_both_are_accepted() {
    let redis = Server::start(&[]);
    let trusted = |signing: &str, reading: &str| {
        publish(&mut fleet(&redis, signing), &record(0));
        member(&mut fleet(&redis, reading)).is_trusted()
    };
    let both = format!(" {NEW}\n{OLD}\n");
    assert!(trusted(OLD, &both) && trusted(NEW, &both) && trusted(&both, NEW));
    assert!(!trusted(&both, OLD) && !trusted(OLD, NEW));
}

#[test]
fn what_is_wrong_is_told_apart() {
    let redis = Server::start(&[]);
    publish(&mut fleet(&redis, OLD), &record(0));
    let reason = |key: &str| member(&mut fleet(&redis, key)).judge(None).to_string();
    assert!(reason(NEW).ends_with(&Corrupt::Signature.to_string()), "{}", reason(NEW));
    publish(&mut Fleet::new(redis.url().parse().unwrap(), "c"), &record(0));
    assert!(reason(OLD).ends_with(&Corrupt::Unsigned.to_string()), "{}", reason(OLD));
}

#[test]
fn what_would_be_too_long_is_not_published_and_holds_up_nobody() {
    let redis = Server::start(&[]);
    let longest = record(MAX_BYTES - MORE);
    publish(&mut fleet(&redis, OLD), &longest);
    assert_eq!(stored(&redis).len(), MAX_BYTES);
    assert!(member(&mut fleet(&redis, OLD)).is_trusted());
    let (too_long, other) = (record(MAX_BYTES - MORE + 1), record(0));
    let news = [&too_long, &other]
        .map(|(record, line)| News::Beat(Beat { record, line, takes_work: true, age_ms: 0 }));
    let told = Fleets::new(redis.url().parse().unwrap()).signed(keys(OLD)).tell(&news, soon());
    assert!(told[0].as_ref().unwrap_err().to_string().contains("too long to be signed"), "{told:?}");
    assert!(told[1].is_ok());
    assert_eq!(stored(&redis).len(), other.1.len() + MORE);
}

#[test]
fn a_key_that_cannot_be_is_refused_and_not_shown() {
    let (short, long, three) = ("x".repeat(31), "x".repeat(1_025), format!("{OLD} {NEW} {OLD}"));
    let cases = [
        ("", InvalidKey::None),
        (" \n", InvalidKey::None),
        (short.as_str(), InvalidKey::Length),
        (&long, InvalidKey::Length),
        (&three, InvalidKey::TooMany),
        ("not-ascii-ä-0123456789-0123456789-", InvalidKey::NotText),
    ];
    for (text, why) in cases {
        let refused = text.parse::<SigningKeys>().unwrap_err();
        assert_eq!(refused, why, "{text:?}");
        assert!(text.trim().is_empty() || !refused.to_string().contains(text));
    }
    for length in [32, 1_024] {
        keys(&"x".repeat(length));
    }
    assert!(!format!("{:?}", keys(OLD)).contains(OLD));
}

#[test]
fn a_key_is_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, format!("{OLD}\n")).unwrap();
    let redis = Server::start(&[]);
    let publisher = Fleet::new(redis.url().parse().unwrap(), "c");
    publish(&mut publisher.signed(SigningKeys::from_file(&file).unwrap()), &record(0));
    assert!(member(&mut fleet(&redis, OLD)).is_trusted());
    fs::write(&file, [0xff; 64]).unwrap();
    assert_eq!(SigningKeys::from_file(&file).unwrap_err(), InvalidKey::NotText);
    let missing = SigningKeys::from_file(&folder.path().join("none")).unwrap_err();
    assert_eq!(missing, InvalidKey::Unreadable(std::io::ErrorKind::NotFound));
    // One without an end.
    assert_eq!(SigningKeys::from_file(Path::new("/dev/zero")).unwrap_err(), InvalidKey::NotText);
}
