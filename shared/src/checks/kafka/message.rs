//! The questions that are asked of brokers, and what of their answers counts.
//!
//! Each stands in a version that Kafka has spoken since 1.0 and does to this day, none of them in the newer, compact form.
//! So no version needs to be agreed on.

use std::collections::{BTreeMap, HashMap};

use super::wire::{Garbled, Reader, Writer};
use crate::net::Address;

/// More brokers no cluster has.
const MOST_BROKERS: usize = 1_000;

/// What an answer may take besides what grows with the question.
const PLAIN: usize = 64 << 10;

/// What the longest answer may take: all topics of a large cluster.
const LONGEST: usize = 16 << 20;

/// What a consumer may add to each offset that it commits, by Kafka's default, and twice that.
const NOTE: usize = 8 << 10;

/// The end of a partition's log, and its beginning, as "timestamps".
pub const END: i64 = -1;
pub const BEGINNING: i64 = -2;

/// Partitions by their topics, in order.
pub type Partitions<'a> = BTreeMap<&'a str, Vec<i32>>;

/// A question.
#[derive(Debug)]
pub struct Request {
    pub key: i16,
    pub version: i16,
    pub body: Vec<u8>,
    /// The most bytes that its answer may have.
    pub most: usize,
}

impl Request {
    /// What brokers there are, and of these topics all that is known; or where none is named, which topics there are. No
    /// topic is made by asking for it.
    pub fn metadata(topics: &[String]) -> Self {
        let body = Writer::default();
        let body =
            if topics.is_empty() { body.i32(-1) } else { body.list(topics.iter(), |to, name| to.text(name)) };
        Self { key: 3, version: 4, body: body.i8(0).done(), most: LONGEST }
    }

    /// Which broker keeps a consumer group's offsets.
    pub fn coordinator(group: &str) -> Self {
        Self { key: 10, version: 1, body: Writer::default().text(group).i8(0).done(), most: PLAIN }
    }

    /// What a consumer group has committed.
    pub fn committed(group: &str, partitions: &Partitions<'_>) -> Self {
        let body = Writer::default().text(group).list(partitions.iter(), |to, (topic, indexes)| {
            to.text(topic).list(indexes.iter(), |to, index| to.i32(*index))
        });
        Self { key: 9, version: 3, body: body.done(), most: room(partitions, NOTE) }
    }

    /// Where the logs of partitions end, or begin.
    pub fn offsets(at: i64, partitions: &Partitions<'_>) -> Self {
        let body = Writer::default().i32(-1).i8(0).list(partitions.iter(), |to, (topic, indexes)| {
            to.text(topic).list(indexes.iter(), |to, index| to.i32(*index).i64(at))
        });
        Self { key: 2, version: 2, body: body.done(), most: room(partitions, 0) }
    }

    /// Which way to log in.
    pub fn handshake(mechanism: &str) -> Self {
        Self { key: 17, version: 1, body: Writer::default().text(mechanism).done(), most: PLAIN }
    }

    /// What that way has to say.
    pub fn authenticate(words: &[u8]) -> Self {
        Self { key: 36, version: 0, body: Writer::default().bytes(words).done(), most: PLAIN }
    }
}

/// What an answer about these partitions may take.
fn room(partitions: &Partitions<'_>, each: usize) -> usize {
    let topic = |(name, indexes): (&&str, &Vec<i32>)| name.len() + 64 + indexes.len() * (64 + each);
    (PLAIN + partitions.iter().map(topic).sum::<usize>()).min(LONGEST)
}

/// What a cluster consists of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub brokers: HashMap<i32, Address>,
    /// How many topics were told of without an error.
    pub known: usize,
    /// Those that were named in the question.
    pub topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Topic {
    pub error: i16,
    pub partitions: BTreeMap<i32, Partition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    pub leader: Option<i32>,
    pub in_sync: u32,
}

impl Metadata {
    /// Of the topics those that are `wanted`.
    pub fn read(answer: &[u8], wanted: &[String]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(answer);
        let mut metadata = Self::default();
        let _throttled = reader.i32()?;
        reader.each(|reader| {
            let (id, broker) = broker(reader)?;
            let _rack = reader.optional_text()?;
            metadata.brokers.insert(id, broker);
            if metadata.brokers.len() > MOST_BROKERS { Err(Garbled) } else { Ok(()) }
        })?;
        let _cluster = reader.optional_text()?;
        let _controller = reader.i32()?;
        reader.each(|reader| {
            let error = reader.i16()?;
            let name = reader.text()?;
            let _internal = reader.i8()?;
            metadata.known += usize::from(error == 0);
            if wanted.iter().any(|wanted| wanted == name) {
                metadata.topics.insert(name.to_owned(), Topic { error, partitions: partitions(reader)? });
            } else {
                reader.each(|reader| partition(reader).map(drop))?;
            }
            Ok(())
        })?;
        reader.end()?;
        Ok(metadata)
    }
}

impl Metadata {
    /// All partitions that are known, in order.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, i32, &Partition)> {
        self.topics.iter().flat_map(|(name, topic)| {
            topic.partitions.iter().map(move |(index, partition)| (name.as_str(), *index, partition))
        })
    }
}

fn broker(reader: &mut Reader<'_>) -> Result<(i32, Address), Garbled> {
    let (id, host, port) = (reader.i32()?, reader.text()?, reader.i32()?);
    let port = u16::try_from(port).map_err(|_| Garbled)?;
    // No name is longer, however it is written.
    if host.len() > 255 { Err(Garbled) } else { Ok((id, Address { host: host.to_owned(), port })) }
}

fn partitions(reader: &mut Reader<'_>) -> Result<BTreeMap<i32, Partition>, Garbled> {
    let mut partitions = BTreeMap::new();
    reader.each(|reader| {
        let (index, partition) = partition(reader)?;
        partitions.insert(index, partition);
        Ok(())
    })?;
    Ok(partitions)
}

fn partition(reader: &mut Reader<'_>) -> Result<(i32, Partition), Garbled> {
    // The error tells nothing that the leader does not.
    let (_error, index, leader) = (reader.i16()?, reader.i32()?, reader.i32()?);
    let _replicas = reader.each(|reader| reader.i32().map(drop))?;
    let in_sync = reader.each(|reader| reader.i32().map(drop))?;
    let in_sync = u32::try_from(in_sync).map_err(|_| Garbled)?;
    Ok((index, Partition { leader: (leader >= 0).then_some(leader), in_sync }))
}

/// The broker that keeps a group's offsets, or the error's number.
pub fn read_coordinator(answer: &[u8]) -> Result<Result<(i32, Address), i16>, Garbled> {
    let mut reader = Reader::new(answer);
    let _throttled = reader.i32()?;
    let error = reader.i16()?;
    let _words = reader.optional_text()?;
    if error != 0 {
        return Ok(Err(error));
    }
    let broker = broker(&mut reader)?;
    reader.end()?;
    Ok(Ok(broker))
}

/// What was told of one partition: an offset, or the error's number.
pub type Offset = Result<i64, i16>;

/// Offsets by topic and partition.
pub type Offsets<'a> = HashMap<(&'a str, i32), Offset>;

/// What a group has committed, -1 where it has not; or the error's number where that is of the whole group.
pub fn read_committed<'a>(
    answer: &[u8],
    asked: &Partitions<'a>,
) -> Result<Result<Offsets<'a>, i16>, Garbled> {
    let mut reader = Reader::new(answer);
    let offsets = read_each(&mut reader, asked, |reader| {
        let (index, offset, _note, error) =
            (reader.i32()?, reader.i64()?, reader.optional_text()?, reader.i16()?);
        Ok((index, if error == 0 { Ok(offset) } else { Err(error) }))
    })?;
    let error = reader.i16()?;
    reader.end()?;
    Ok(if error == 0 { Ok(offsets) } else { Err(error) })
}

/// Where logs end, or begin.
pub fn read_offsets<'a>(answer: &[u8], asked: &Partitions<'a>) -> Result<Offsets<'a>, Garbled> {
    let mut reader = Reader::new(answer);
    let offsets = read_each(&mut reader, asked, |reader| {
        let (index, error, _time, offset) = (reader.i32()?, reader.i16()?, reader.i64()?, reader.i64()?);
        Ok((index, if error == 0 { Ok(offset) } else { Err(error) }))
    })?;
    reader.end()?;
    Ok(offsets)
}

/// One for each partition that was asked about, and for no other.
fn read_each<'a>(
    reader: &mut Reader<'_>,
    asked: &Partitions<'a>,
    mut partition: impl FnMut(&mut Reader<'_>) -> Result<(i32, Offset), Garbled>,
) -> Result<Offsets<'a>, Garbled> {
    let mut offsets = Offsets::new();
    let _throttled = reader.i32()?;
    reader.each(|reader| {
        let (topic, indexes) = asked.get_key_value(reader.text()?).ok_or(Garbled)?;
        reader.each(|reader| {
            let (index, offset) = partition(reader)?;
            offsets.insert((*topic, index), offset);
            if indexes.binary_search(&index).is_ok() { Ok(()) } else { Err(Garbled) }
        })?;
        Ok(())
    })?;
    if offsets.len() == asked.values().map(Vec::len).sum::<usize>() { Ok(offsets) } else { Err(Garbled) }
}

/// The ways to log in that a broker offers, and whether the one that was asked for is among them: else the error's number.
pub fn read_handshake(answer: &[u8]) -> Result<Result<(), i16>, Garbled> {
    let mut reader = Reader::new(answer);
    let error = reader.i16()?;
    reader.each(|reader| reader.text().map(drop))?;
    reader.end()?;
    Ok(if error == 0 { Ok(()) } else { Err(error) })
}

/// What the broker says to a login, or the error's number.
pub fn read_authenticate(answer: &[u8]) -> Result<Result<&[u8], i16>, Garbled> {
    let mut reader = Reader::new(answer);
    let error = reader.i16()?;
    let _words = reader.optional_text()?;
    let words = reader.bytes()?;
    reader.end()?;
    Ok(if error == 0 { Ok(words) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::find_coordinator_response::FindCoordinatorResponse;
    use kafka_protocol::messages::list_offsets_response::{
        ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
    };
    use kafka_protocol::messages::metadata_response::{
        MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::offset_fetch_response::{
        OffsetFetchResponse, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
    };
    use kafka_protocol::messages::{
        BrokerId, FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest, OffsetFetchRequest,
        SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
        TopicName,
    };
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn topic(name: &'static str) -> TopicName {
        text(name).into()
    }

    /// As the schemas have it, to the last byte.
    #[track_caller]
    fn decoded<T: Decodable>(request: &Request) -> T {
        let mut body = &*request.body;
        let decoded = T::decode(&mut body, request.version).unwrap();
        assert!(body.is_empty(), "{body:?} is left");
        decoded
    }

    fn encoded(answer: &impl Encodable, to: &Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes, to.version).unwrap();
        bytes
    }

    fn asked() -> Partitions<'static> {
        Partitions::from([("mail", vec![0]), ("orders", vec![0, 2])])
    }

    #[test]
    fn questions_are_those_of_kafkas_schemas() {
        let metadata: MetadataRequest =
            decoded(&Request::metadata(&["orders".to_owned(), "mail".to_owned()]));
        let names: Vec<_> = metadata.topics.unwrap().into_iter().map(|topic| topic.name.unwrap().0).collect();
        assert_eq!((names, metadata.allow_auto_topic_creation), (vec![text("orders"), text("mail")], false));
        let metadata: MetadataRequest = decoded(&Request::metadata(&[]));
        assert_eq!((metadata.topics, metadata.allow_auto_topic_creation), (None, false));
        let coordinator: FindCoordinatorRequest = decoded(&Request::coordinator("billing"));
        assert_eq!((coordinator.key, coordinator.key_type), (text("billing"), 0));
        let committed: OffsetFetchRequest = decoded(&Request::committed("billing", &asked()));
        assert_eq!(committed.group_id.0, text("billing"));
        let topics = committed.topics.unwrap().into_iter().map(|of| (of.name, of.partition_indexes));
        assert_eq!(topics.collect::<Vec<_>>(), [(topic("mail"), vec![0]), (topic("orders"), vec![0, 2])]);
        let offsets: ListOffsetsRequest = decoded(&Request::offsets(BEGINNING, &asked()));
        assert_eq!((offsets.replica_id, offsets.isolation_level), (BrokerId(-1), 0));
        let indexes = offsets.topics[1].partitions.iter().map(|of| (of.partition_index, of.timestamp));
        assert_eq!(indexes.collect::<Vec<_>>(), [(0, -2), (2, -2)]);
        let handshake: SaslHandshakeRequest = decoded(&Request::handshake("PLAIN"));
        assert_eq!(handshake.mechanism, text("PLAIN"));
        let authenticate: SaslAuthenticateRequest = decoded(&Request::authenticate(b"\0a\0b"));
        assert_eq!(&*authenticate.auth_bytes, b"\0a\0b");
    }

    fn metadata() -> Vec<u8> {
        let broker = |id: i32| {
            let broker = MetadataResponseBroker::default().with_node_id(id.into()).with_host(text("kafka"));
            broker.with_port(9_090 + id).with_rack((id == 1).then(|| text("a")))
        };
        let partition = |index, leader: i32, replicas: &[i32], isr: &[i32]| {
            let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
            let partition = MetadataResponsePartition::default().with_partition_index(index);
            let partition =
                partition.with_leader_id(leader.into()).with_error_code(if leader < 0 { 5 } else { 0 });
            partition.with_replica_nodes(ids(replicas)).with_isr_nodes(ids(isr))
        };
        let named = |name, error, partitions| {
            let named = MetadataResponseTopic::default().with_name(Some(topic(name))).with_error_code(error);
            named.with_partitions(partitions)
        };
        let answer = MetadataResponse::default()
            .with_cluster_id(Some(text("it")))
            .with_brokers(vec![broker(1), broker(2)]);
        let orders = vec![partition(1, -1, &[1, 2], &[]), partition(0, 2, &[1, 2], &[2])];
        let topics = vec![
            named("orders", 0, orders),
            named("other", 0, vec![partition(0, 1, &[1], &[1])]),
            named("gone", 3, vec![]),
        ];
        encoded(&answer.with_topics(topics), &Request::metadata(&[]))
    }

    #[test]
    fn of_metadata_counts_what_was_asked_about() {
        let wanted = ["orders".to_owned(), "gone".to_owned()];
        let read = Metadata::read(&metadata(), &wanted).unwrap();
        assert_eq!(read.brokers[&2], Address { host: "kafka".to_owned(), port: 9_092 });
        assert_eq!((read.brokers.len(), read.known), (2, 2));
        assert_eq!(read.topics.keys().collect::<Vec<_>>(), ["gone", "orders"]);
        assert_eq!(read.topics["gone"], Topic { error: 3, ..Topic::default() });
        let partitions: Vec<_> = read.partitions().map(|(topic, index, of)| (topic, index, *of)).collect();
        let led = Partition { leader: Some(2), in_sync: 1 };
        let leaderless = Partition { leader: None, in_sync: 0 };
        assert_eq!(partitions, [("orders", 0, led), ("orders", 1, leaderless)]);
    }

    #[test]
    fn a_coordinator_or_an_error_is_read() {
        let request = Request::coordinator("billing");
        let told = FindCoordinatorResponse::default().with_node_id(BrokerId(3)).with_host(text("kafka"));
        let answer = encoded(&told.with_port(9_092), &request);
        let address = Address { host: "kafka".to_owned(), port: 9_092 };
        assert_eq!(read_coordinator(&answer), Ok(Ok((3, address))));
        let told =
            FindCoordinatorResponse::default().with_error_code(15).with_node_id(BrokerId(-1)).with_port(-1);
        let answer = encoded(&told.with_error_message(Some(text("S3cret"))), &request);
        assert_eq!(read_coordinator(&answer), Ok(Err(15)));
    }

    fn committed(error: i16) -> Vec<u8> {
        let partition = |index, offset, error| {
            let partition = OffsetFetchResponsePartition::default().with_partition_index(index);
            partition.with_committed_offset(offset).with_metadata(Some(text("note"))).with_error_code(error)
        };
        let named = |name, partitions| {
            OffsetFetchResponseTopic::default().with_name(topic(name)).with_partitions(partitions)
        };
        let topics = vec![
            named("orders", vec![partition(0, 7, 0), partition(2, -1, 0)]),
            named("mail", vec![partition(0, -1, 3)]),
        ];
        let answer = OffsetFetchResponse::default().with_topics(topics).with_error_code(error);
        encoded(&answer, &Request::committed("billing", &asked()))
    }

    #[test]
    fn offsets_are_read_of_exactly_the_partitions_that_were_asked_about() {
        let offsets = Offsets::from([(("orders", 0), Ok(7)), (("orders", 2), Ok(-1)), (("mail", 0), Err(3))]);
        assert_eq!(read_committed(&committed(0), &asked()), Ok(Ok(offsets)));
        assert_eq!(read_committed(&committed(30), &asked()), Ok(Err(30)));
        for other in [
            Partitions::from([("orders", vec![0, 2])]),
            Partitions::from([("mail", vec![0]), ("orders", vec![0, 1])]),
            Partitions::from([("mail", vec![0]), ("orders", vec![0, 1, 2])]),
        ] {
            assert_eq!(read_committed(&committed(0), &other), Err(Garbled));
        }
        let partition = |index, offset, error| {
            let partition = ListOffsetsPartitionResponse::default().with_partition_index(index);
            partition.with_offset(offset).with_error_code(error)
        };
        let named = |name, partitions| {
            ListOffsetsTopicResponse::default().with_name(topic(name)).with_partitions(partitions)
        };
        let topics = vec![
            named("mail", vec![partition(0, i64::MAX, 0)]),
            named("orders", vec![partition(0, 9, 0), partition(2, -1, 6)]),
        ];
        let answer = ListOffsetsResponse::default().with_topics(topics);
        let offsets =
            Offsets::from([(("mail", 0), Ok(i64::MAX)), (("orders", 0), Ok(9)), (("orders", 2), Err(6))]);
        assert_eq!(read_offsets(&encoded(&answer, &Request::offsets(END, &asked())), &asked()), Ok(offsets));
    }

    #[test]
    fn what_a_broker_says_to_a_login_is_read() {
        let offered = SaslHandshakeResponse::default().with_mechanisms(vec![text("PLAIN"), text("GSSAPI")]);
        let request = Request::handshake("PLAIN");
        assert_eq!(read_handshake(&encoded(&offered, &request)), Ok(Ok(())));
        assert_eq!(read_handshake(&encoded(&offered.with_error_code(33), &request)), Ok(Err(33)));
        let told = SaslAuthenticateResponse::default().with_auth_bytes(b"v=it".to_vec().into());
        let request = Request::authenticate(b"");
        assert_eq!(read_authenticate(&encoded(&told, &request)), Ok(Ok(&b"v=it"[..])));
        let told = told.with_error_code(58).with_error_message(Some(text("S3cret")));
        assert_eq!(read_authenticate(&encoded(&told, &request)), Ok(Err(58)));
    }

    /// Every answer cut short at every byte, with a byte more, and with every byte in turn as large as can be: it ends, in no
    /// more memory than it has.
    #[test]
    fn no_answer_is_taken_for_more_than_it_is() {
        let wanted = ["orders".to_owned()];
        for answer in [metadata(), committed(0)] {
            let read = |answer: &[u8]| {
                let metadata = Metadata::read(answer, &wanted).is_ok();
                metadata | read_committed(answer, &asked()).is_ok()
            };
            assert!(read(&answer));
            for end in 0..answer.len() {
                assert!(!read(&answer[..end]), "{end}");
            }
            assert!(!read(&[&*answer, &[0]].concat()));
            for at in 0..answer.len() - 4 {
                for length in [i32::MAX, i32::MIN, -2, 1 << 24] {
                    let mut answer = answer.clone();
                    answer[at..at + 4].copy_from_slice(&length.to_be_bytes());
                    read(&answer);
                }
            }
        }
    }
}
