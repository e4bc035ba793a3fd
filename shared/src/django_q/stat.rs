//! One stat of Django-Q2: what a cluster process says of itself, twice a second.
//!
//! In Django-Q's words a cluster is one `qcluster` process tree; in ours it is a worker, and the cluster is all of them
//! of one name. A stat is a signed pickle of a `django_q.status.Stat`; only the fields that are wanted are read, as data.

use std::fmt;

use super::pickle::{Id, Int, Node, Pickle, Unreadable};
use super::signature::{Key, Refused};

/// The most bytes that a stat may have as it is stored.
pub const MOST_BYTES: usize = 64 << 10;

/// The longest host name and the longest status that are taken.
const MOST_NAME: usize = 255;

/// What a cluster process says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which one it is, anew at each start: the end of its key.
    pub id: Uuid,
    /// The host that it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u64,
    /// Its status, in English whatever language it is set to; `None` where it says none.
    pub status: Option<String>,
    /// How many worker processes it has.
    pub workers: u64,
    /// When it said so, in seconds since 1970 by its own clock.
    pub at_unix_s: u64,
}

/// Why there is no stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStat {
    /// It was not signed with this key.
    Signature,
    /// It was signed with this key, and is no stat that is understood.
    Content,
    /// It is the stat of another one than its key says: somebody has copied it there.
    Copied,
}

impl fmt::Display for NoStat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => {
                "a signature that is wrong: another SECRET_KEY than $DJANGO_SECRET_KEY, or forged"
            }
            Self::Content => "a right signature on what is no stat of Django-Q2",
            Self::Copied => "a stat at another key than its own",
        })
    }
}

impl Stat {
    /// Reads the stat of `id` as it is stored.
    pub fn open(value: &[u8], key: &Key, id: Uuid) -> Result<Self, NoStat> {
        let signed = key.open(value).map_err(|refused| match refused {
            Refused::Signature => NoStat::Signature,
            Refused::Content => NoStat::Content,
        })?;
        let pickle = Pickle::parse(&signed.data).map_err(|_| NoStat::Content)?;
        let stat = read(&pickle, signed.at_unix_s).ok_or(NoStat::Content)?;
        if stat.id == id { Ok(stat) } else { Err(NoStat::Copied) }
    }
}

pub(crate) fn read(pickle: &Pickle, at_unix_s: u64) -> Option<Stat> {
    let Node::Object { what, state: Some(state), .. } = pickle.root() else { return None };
    let Node::Dict(state) = pickle.node(*state) else { return None };
    if !pickle.is_global(*what, "django_q.status", "Stat") {
        return None;
    }
    let entry = |name: &str| pickle.entry(state, name);
    Some(Stat {
        id: uuid(pickle, entry("cluster_id")?)?,
        host: entry("host").and_then(text).filter(|host| is_name(host))?.to_owned(),
        pid: entry("pid").and_then(number)?,
        status: status(pickle, entry("status")?).ok()?,
        workers: entry("workers").and_then(length)?,
        at_unix_s,
    })
}

/// A name, or a lazy translation of one: `_lazy_proxy_unpickle(gettext, ("Idle",), {}, str)`. None but the first argument of
/// `gettext` is the same in every language.
fn status(pickle: &Pickle, node: &Node) -> Result<Option<String>, Unreadable> {
    let name = match node {
        Node::None => return Ok(None),
        Node::Object { what, arguments, .. }
            if pickle.is_global(*what, "django.utils.functional", "_lazy_proxy_unpickle") =>
        {
            translated(pickle, *arguments)
        }
        node => text(node),
    };
    let name = name.filter(|name| is_name(name)).ok_or(Unreadable)?;
    Ok(Some(name.to_owned()))
}

fn translated(pickle: &Pickle, arguments: Id) -> Option<&str> {
    let Node::Tuple(arguments) = pickle.node(arguments) else { return None };
    let Node::Tuple(arguments) = pickle.node(*arguments.get(1)?) else { return None };
    text(pickle.node(*arguments.first()?))
}

/// A `uuid.UUID`: its state is its number.
fn uuid(pickle: &Pickle, node: &Node) -> Option<Uuid> {
    let Node::Object { what, state: Some(state), .. } = node else { return None };
    let Node::Dict(state) = pickle.node(*state) else { return None };
    match pickle.entry(state, "int")? {
        Node::Int(Int { negative: false, magnitude }) if pickle.is_global(*what, "uuid", "UUID") => {
            Some(Uuid(*magnitude))
        }
        _ => None,
    }
}

fn text(node: &Node) -> Option<&str> {
    match node {
        Node::Text(text) => Some(text),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    (1..=MOST_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn number(node: &Node) -> Option<u64> {
    match node {
        Node::Int(Int { negative: false, magnitude }) => u64::try_from(*magnitude).ok(),
        _ => None,
    }
}

fn length(node: &Node) -> Option<u64> {
    match node {
        Node::List(items) => u64::try_from(items.len()).ok(),
        _ => None,
    }
}

/// A UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(u128);

impl Uuid {
    /// Reads the form that Python writes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.split('-').collect();
        let number = u128::from_str_radix(&digits, 16).ok()?;
        Some(Self(number)).filter(|id| id.to_string() == text)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        f.pad(&parts.join("-"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        std::fs::read(folder.join(name)).unwrap()
    }

    fn vectors() -> Value {
        serde_json::from_slice(&fixture("djangoq_stat_fixtures.json")).unwrap()
    }

    fn word<'v>(value: &'v Value, name: &str) -> &'v str {
        value[name].as_str().unwrap()
    }

    fn key() -> Key {
        let vectors = vectors();
        Key::new(word(&vectors, "secret_key"), word(&vectors, "prefix_and_salt"))
    }

    fn id_of(key: &str) -> Uuid {
        Uuid::parse(key.rsplit_once(':').unwrap().1).unwrap()
    }

    #[test]
    fn every_stat_that_django_q_wrote_is_read() {
        let (vectors, key) = (vectors(), key());
        let stats = vectors["stats"].as_array().unwrap();
        assert_eq!(stats.len(), 20);
        for vector in stats {
            let stat =
                Stat::open(word(vector, "payload").as_bytes(), &key, id_of(word(vector, "key"))).unwrap();
            let case = word(vector, "case");
            let word = case.split('-').next().filter(|word| *word != "None");
            assert_eq!(stat.status.as_deref(), word, "{case}");
            let host = if case.contains("unicode") { "hôte-é" } else { "host-a" };
            assert_eq!((stat.host.as_str(), stat.pid), (host, 4_242), "{case}");
            assert_eq!((stat.workers, stat.at_unix_s), (3, 1_795_190_629), "{case}");
        }
    }

    #[test]
    fn each_bad_one_is_refused_by_its_signature() {
        let (vectors, key) = (vectors(), key());
        let id = Uuid::parse("12345678-1234-5678-1234-567812345678").unwrap();
        let bad = vectors["bad"].as_array().unwrap();
        assert_eq!(bad.len(), 3);
        for vector in bad {
            let opened = Stat::open(word(vector, "payload").as_bytes(), &key, id);
            assert_eq!(opened, Err(NoStat::Signature), "{}", word(vector, "why"));
        }
    }

    #[test]
    fn a_stat_captured_from_a_running_cluster_is_read() {
        let sample: Value = serde_json::from_slice(&fixture("djangoq_stat_sample.json")).unwrap();
        for (field, file) in
            [("key", "djangoq_stat_sample.key"), ("secret_key", "djangoq_stat_sample.secret")]
        {
            assert_eq!(word(&sample, field).as_bytes(), fixture(file).trim_ascii_end(), "{file}");
        }
        let key = Key::new(word(&sample, "secret_key"), word(&sample, "salt/prefix"));
        let id = id_of(word(&sample, "key"));
        let stat = Stat::open(&fixture("djangoq_stat_sample.bin"), &key, id).unwrap();
        assert_eq!((stat.status.as_deref(), stat.id), (Some("Idle"), id));
        let captured = sample["captured_unix"].as_f64().unwrap();
        assert!(
            (0.0..3.0).contains(&(captured - f64::from(u32::try_from(stat.at_unix_s).unwrap()))),
            "{stat:?}"
        );
    }

    #[test]
    fn a_stat_that_was_copied_to_another_key_is_refused() {
        let vectors = vectors();
        let payload = word(&vectors["stats"][2], "payload").as_bytes();
        let other = Uuid::parse("12345678-1234-5678-1234-567812345679").unwrap();
        assert_eq!(Stat::open(payload, &key(), other), Err(NoStat::Copied));
    }

    #[test]
    fn a_stat_with_any_byte_changed_is_refused() {
        let (vectors, key) = (vectors(), key());
        let id = Uuid::parse("12345678-1234-5678-1234-567812345678").unwrap();
        for vector in &vectors["stats"].as_array().unwrap()[2..4] {
            let payload = word(vector, "payload").as_bytes();
            for at in 0..payload.len() {
                for flip in [0x01, 0x20] {
                    let mut changed = payload.to_vec();
                    changed[at] ^= flip;
                    assert_eq!(Stat::open(&changed, &key, id), Err(NoStat::Signature), "byte {at} ^ {flip}");
                }
                let mut shortened = payload.to_vec();
                shortened.remove(at);
                assert_eq!(Stat::open(&shortened, &key, id), Err(NoStat::Signature), "without byte {at}");
            }
            for other in [Key::new("other", "anchor"), Key::new(word(&vectors, "secret_key"), "other")] {
                assert_eq!(Stat::open(payload, &other, id), Err(NoStat::Signature));
            }
        }
    }

    #[test]
    fn a_uuid_has_one_form() {
        let text = "00000000-0000-0000-0000-00000000000a";
        assert_eq!(Uuid::parse(text).unwrap().to_string(), text);
        for wrong in [
            "",
            "a",
            "0000000000000000000000000000000a",
            "+0000000-0000-0000-0000-00000000000a",
            &text.to_uppercase(),
        ] {
            assert_eq!(Uuid::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_pickle_with_any_bytes_changed_never_panics(changes in proptest::collection::vec((0..500_usize, any::<u8>()), 1..6)) {
            let vectors = vectors();
            let payload = word(&vectors["stats"][3], "payload").as_bytes();
            let mut data = key().open(payload).unwrap().data;
            for (at, byte) in changes {
                let length = data.len();
                data[at % length] = byte;
            }
            if let Ok(pickle) = Pickle::parse(&data) {
                drop(read(&pickle, 0));
            }
        }
    }
}
