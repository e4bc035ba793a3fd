//! What the mock brokers of `kafka` do not know: a broker of our own that encrypts, asks for a login, and does as it is told. Its
//! messages are read and written by the crate that is made of Kafka's schemas; it is no Kafka.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, MetadataRequest, MetadataResponse, RequestHeader, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use ring::{digest, hmac, pbkdf2};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The user, and the password.
const USER: &str = "sh,op=";
const PASSWORD: &str = "S3cret/ü";

/// Who is let in by a broker that does not know the password, and hopes to be told something.
pub const DUPE: &str = "dupe";

/// Kafka's own limit of what one question may have (`socket.request.max.bytes`) is some such number too.
const LONGEST: u32 = 1 << 20;

pub struct KafkaPeer {
    pub address: SocketAddr,
    /// How many connections there have been.
    pub connections: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

trait Bytes: Read + Write {}

impl<T: Read + Write> Bytes for T {}

impl KafkaPeer {
    /// A broker that offers `mechanism` alone, or asks for no login where there is none.
    pub fn start(mechanism: Option<&'static str>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            open: Arc::default(),
        };
        let (connections, open) = (Arc::clone(&peer.connections), Arc::clone(&peer.open));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::Relaxed);
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let (tls, open) = (tls.clone(), Arc::clone(&open));
                thread::spawn(move || {
                    let from = stream.peer_addr().ok();
                    let (port, end) = (stream.local_addr().unwrap().port(), stream.try_clone().unwrap());
                    let mut stream: Box<dyn Bytes> = match tls {
                        Some(tls) => Box::new(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream)),
                        None => Box::new(stream),
                    };
                    // The other side may go at any time.
                    let _ = serve(&mut *stream, mechanism, port);
                    let _ = end.shutdown(Shutdown::Both);
                    open.lock().unwrap().retain(|one| one.peer_addr().is_ok_and(|peer| Some(peer) != from));
                });
            }
        });
        peer
    }

    /// Closes every connection, as a broker does with those that are idle.
    pub fn hang_up(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(stream: &mut dyn Bytes, mechanism: Option<&str>, port: u16) -> std::io::Result<()> {
    let mut login = mechanism.map(Login::new);
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > LONGEST {
            return Ok(());
        }
        let mut frame = vec![0; length.try_into().unwrap()];
        stream.read_exact(&mut frame)?;
        let mut frame = &*frame;
        let header = RequestHeader::decode(&mut frame, 1).unwrap();
        let (key, version) = (ApiKey::try_from(header.request_api_key).unwrap(), header.request_api_version);
        let mut answer = header.correlation_id.to_be_bytes().to_vec();
        match (key, &mut login) {
            (ApiKey::SaslHandshake, login) => {
                let asked = SaslHandshakeRequest::decode(&mut frame, version).unwrap();
                let offered = login.iter().map(|login| login.mechanism.clone()).collect::<Vec<_>>();
                let error = match login {
                    None => 34,
                    Some(login) if *login.mechanism == *asked.mechanism => 0,
                    Some(_) => 33,
                };
                let told = SaslHandshakeResponse::default().with_error_code(error).with_mechanisms(offered);
                told.encode(&mut answer, version).unwrap();
            }
            (ApiKey::SaslAuthenticate, Some(login)) => {
                let asked = SaslAuthenticateRequest::decode(&mut frame, version).unwrap();
                let told = match login.step(std::str::from_utf8(&asked.auth_bytes).unwrap()) {
                    Some(words) => SaslAuthenticateResponse::default().with_auth_bytes(words.into()),
                    // A broker may repeat what it was told.
                    None => SaslAuthenticateResponse::default()
                        .with_error_code(58)
                        .with_error_message(Some(StrBytes::from_static_str("S3cret"))),
                };
                told.encode(&mut answer, version).unwrap();
            }
            // Kafka ends the connection of who asks anything else before the login.
            (_, Some(login)) if !login.is_in => return Ok(()),
            (ApiKey::Metadata, _) => {
                MetadataRequest::decode(&mut frame, version).unwrap();
                metadata(port).encode(&mut answer, version).unwrap();
            }
            _ => return Ok(()),
        }
        assert!(frame.is_empty(), "a question with something behind it");
        let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length, &*answer].concat())?;
        stream.flush()?;
    }
}

/// One broker, and one topic with one partition.
fn metadata(port: u16) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(1))
        .with_host(StrBytes::from_static_str("localhost"))
        .with_port(port.into());
    let partition = MetadataResponsePartition::default()
        .with_leader_id(BrokerId(1))
        .with_replica_nodes(vec![BrokerId(1)])
        .with_isr_nodes(vec![BrokerId(1)]);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(StrBytes::from_static_str("orders").into()))
        .with_partitions(vec![partition]);
    MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
}

/// A broker's side of a login.
struct Login {
    mechanism: StrBytes,
    is_in: bool,
    /// SCRAM's messages so far.
    said: Option<(String, String)>,
}

const SALT: &[u8] = b"salt of the tests";

impl Login {
    fn new(mechanism: &str) -> Self {
        Self { mechanism: StrBytes::from_string(mechanism.to_owned()), is_in: false, said: None }
    }

    fn step(&mut self, words: &str) -> Option<Vec<u8>> {
        if &*self.mechanism == "PLAIN" {
            self.is_in = words == format!("\0{USER}\0{PASSWORD}");
            return self.is_in.then(Vec::new);
        }
        let Some((first, told)) = self.said.take() else {
            let first = words.strip_prefix("n,,").unwrap().to_owned();
            let (user, nonce) = first.split_once(",r=").unwrap();
            if user != "n=sh=2Cop=3D" && user != format!("n={DUPE}") {
                return None;
            }
            let told = format!("r={nonce}+of-the-broker,s={},i=4096", BASE64_STANDARD.encode(SALT));
            self.said = Some((first, told.clone()));
            return Some(told.into_bytes());
        };
        let (words, proof) = words.split_once(",p=").unwrap();
        let proof = BASE64_STANDARD.decode(proof).unwrap();
        if first.starts_with(&format!("n={DUPE},")) {
            self.is_in = true;
            return Some(format!("v={}", BASE64_STANDARD.encode([0; 32])).into_bytes());
        }
        let (is_known, signature) = self.verify(&format!("{first},{told},{words}"), &proof);
        self.is_in = is_known;
        is_known.then(|| format!("v={}", BASE64_STANDARD.encode(signature)).into_bytes())
    }

    fn verify(&self, message: &str, proof: &[u8]) -> (bool, Vec<u8>) {
        let (mac, hash, derive) = if &*self.mechanism == "SCRAM-SHA-256" {
            (hmac::HMAC_SHA256, &digest::SHA256, pbkdf2::PBKDF2_HMAC_SHA256)
        } else {
            (hmac::HMAC_SHA512, &digest::SHA512, pbkdf2::PBKDF2_HMAC_SHA512)
        };
        let mut salted = vec![0; hash.output_len()];
        pbkdf2::derive(derive, 4_096.try_into().unwrap(), SALT, PASSWORD.as_bytes(), &mut salted);
        let salted = hmac::Key::new(mac, &salted);
        let stored = digest::digest(hash, hmac::sign(&salted, b"Client Key").as_ref());
        let signed = hmac::sign(&hmac::Key::new(mac, stored.as_ref()), message.as_bytes());
        let client: Vec<u8> = proof.iter().zip(signed.as_ref()).map(|(proof, sign)| proof ^ sign).collect();
        let server = hmac::Key::new(mac, hmac::sign(&salted, b"Server Key").as_ref());
        let signature = hmac::sign(&server, message.as_bytes()).as_ref().to_vec();
        (digest::digest(hash, &client).as_ref() == stored.as_ref(), signature)
    }
}
