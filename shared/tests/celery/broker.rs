//! A broker that is none: it speaks AMQP 0-9-1 as far as connections of ours need it, keeps what is published to it, and
//! answers as the test says. A real one neither floods who asks nor shows what it was sent, byte by byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// What was published, as it came: where to, its properties behind their flags, and its body.
#[derive(Debug)]
pub struct Published {
    pub exchange: String,
    pub routing_key: String,
    pub content_type: String,
    pub content_encoding: String,
    pub body: String,
}

/// When a broker delivers its answers: a real one may do it before it confirms what they answer, and after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    AnswersFirst,
    ConfirmsFirst,
}

/// A broker.
pub struct Broker {
    pub address: SocketAddr,
    pub published: Receiver<Published>,
}

/// A message for the connection's own queue: a ticket in its headers, where there is one, and a body.
pub struct Message {
    pub ticket: Option<String>,
    pub body: Vec<u8>,
}

impl Broker {
    /// Answers each message that is published to it with those that `answers` makes of it.
    pub fn start<I: IntoIterator<Item = Message>>(
        order: Order,
        answers: impl Fn(&Published) -> I + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, published) = channel();
        thread::spawn(move || {
            let answers = Arc::new(answers);
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, answers) = (sender.clone(), Arc::clone(&answers));
                // It ends where the other side does.
                thread::spawn(move || serve(stream, &sender, order, &*answers));
            }
        });
        Self { address, published }
    }
}

fn serve<I: IntoIterator<Item = Message>>(
    mut stream: TcpStream,
    published: &Sender<Published>,
    order: Order,
    answers: impl Fn(&Published) -> I,
) -> io::Result<()> {
    stream.read_exact(&mut [0; 8])?;
    method(&mut stream, 0, (10, 10), b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US")?;
    let mut tag = 0_u64;
    loop {
        let (channel, payload) = frame(&mut stream)?;
        match (number(&payload[..2]), number(&payload[2..4])) {
            // How many channels, how large a frame, no heartbeats.
            (10, 11) => method(&mut stream, 0, (10, 30), b"\x07\xff\0\x02\0\0\0\0")?,
            (10, 40) => method(&mut stream, 0, (10, 41), b"\0")?,
            (10, 50) => return method(&mut stream, 0, (10, 51), b""),
            (20, 10) => method(&mut stream, channel, (20, 11), b"\0\0\0\0")?,
            (85, 10) => method(&mut stream, channel, (85, 11), b"")?,
            (50, 10) => method(&mut stream, channel, (50, 11), b"\x03own\0\0\0\0\0\0\0\0")?,
            (60, 20) => method(&mut stream, channel, (60, 21), b"\x07checker")?,
            (60, 40) => {
                let message = message(&mut stream, &payload[6..])?;
                tag += 1;
                let confirm = [&tag.to_be_bytes()[..], b"\0"].concat();
                if order == Order::ConfirmsFirst {
                    method(&mut stream, channel, (60, 80), &confirm)?;
                }
                for answer in answers(&message) {
                    deliver(&mut stream, channel, &answer)?;
                }
                if order == Order::AnswersFirst {
                    method(&mut stream, channel, (60, 80), &confirm)?;
                }
                // Nobody may look any more.
                let _ = published.send(message);
            }
            _ => {}
        }
    }
}

fn frame(stream: &mut TcpStream) -> io::Result<(u16, Vec<u8>)> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let mut payload = vec![0; number(&head[3..]) + 1];
    stream.read_exact(&mut payload)?;
    assert_eq!(payload.pop(), Some(0xce), "the end of a frame");
    Ok((u16::from_be_bytes([head[1], head[2]]), payload))
}

fn message(stream: &mut TcpStream, mut publish: &[u8]) -> io::Result<Published> {
    let (exchange, routing_key) = (short(&mut publish), short(&mut publish));
    let (_, header) = frame(stream)?;
    let (size, flags) = (number(&header[4..12]), header[12]);
    assert_eq!(flags & 0xc0, 0xc0, "both its type and its encoding");
    let mut properties = &header[14..];
    let (content_type, content_encoding) = (short(&mut properties), short(&mut properties));
    let mut body = Vec::new();
    while body.len() < size {
        body.extend(frame(stream)?.1);
    }
    let body = String::from_utf8(body).unwrap();
    Ok(Published { exchange, routing_key, content_type, content_encoding, body })
}

fn deliver(stream: &mut TcpStream, channel: u16, message: &Message) -> io::Result<()> {
    let mut bytes = Vec::new();
    method(&mut bytes, channel, (60, 60), b"\x07checker\0\0\0\0\0\0\0\x01\0\0\x03own")?;
    let headers = message.ticket.as_ref().map(|ticket| {
        let value =
            [b"\x06ticketS", &u32::try_from(ticket.len()).unwrap().to_be_bytes()[..], ticket.as_bytes()];
        let table = value.concat();
        [&u32::try_from(table.len()).unwrap().to_be_bytes()[..], &table].concat()
    });
    let mut header = [&b"\0\x3c\0\0"[..], &u64::try_from(message.body.len()).unwrap().to_be_bytes()].concat();
    header.extend(if headers.is_some() { b"\x20\0" } else { b"\0\0" });
    header.extend(headers.unwrap_or_default());
    put(&mut bytes, 2, channel, &header)?;
    put(&mut bytes, 3, channel, &message.body)?;
    stream.write_all(&bytes)
}

fn method(stream: &mut impl Write, channel: u16, name: (u16, u16), arguments: &[u8]) -> io::Result<()> {
    let payload = [&name.0.to_be_bytes()[..], &name.1.to_be_bytes(), arguments].concat();
    put(stream, 1, channel, &payload)
}

fn put(stream: &mut impl Write, kind: u8, channel: u16, payload: &[u8]) -> io::Result<()> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    stream.write_all(&[&[kind][..], &channel.to_be_bytes(), &size, payload, b"\xce"].concat())
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn short(bytes: &mut &[u8]) -> String {
    let (text, rest) = bytes[1..].split_at(usize::from(bytes[0]));
    *bytes = rest;
    String::from_utf8(text.to_vec()).unwrap()
}
