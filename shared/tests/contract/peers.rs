//! Peers that do not do what they should, each on a port of its own, and ended with the test.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::servers::free_port;

/// What a peer does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// There is nobody.
    Refused,
    /// Accepts, and never says a word.
    BlackHole,
    /// One byte a second.
    Trickle,
    /// Bytes that are no protocol, and the end.
    Garbage,
    /// Says nothing more from the start, and listens on.
    HalfClosed,
    /// Never stops talking.
    Endless,
    /// Never stops talking, in lines that begin as an HTTP answer does.
    EndlessHttp,
}

impl Manner {
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::BlackHole,
        Self::Trickle,
        Self::Garbage,
        Self::HalfClosed,
        Self::Endless,
        Self::EndlessHttp,
    ];
}

/// A peer.
pub struct Peer {
    pub address: SocketAddr,
    over: Arc<AtomicBool>,
    /// Connections that are still open on this side.
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Peer {
    pub fn start(manner: Manner) -> Self {
        // One of those that nobody else is given, where nobody is to listen.
        let port = if manner == Manner::Refused { free_port() } else { 0 };
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = listener.local_addr().unwrap();
        let (over, open) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let peer = Self { address, over: Arc::clone(&over), open: Arc::clone(&open) };
        if manner == Manner::Refused {
            return peer;
        }
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let over = Arc::clone(&over);
                thread::spawn(move || {
                    // The other side may have gone at any time.
                    let _ = talk(manner, stream, &over);
                });
            }
        });
        peer
    }

    /// How many connections the other side has not closed.
    pub fn held(&self) -> usize {
        let mut open = self.open.lock().unwrap();
        open.retain(|stream| !has_gone(stream));
        open.len()
    }
}

/// Whether the other side has closed. What it has said before is of no interest.
fn has_gone(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4_096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for stream in self.open.lock().unwrap().iter() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener; where there is none, there is nothing to wake.
        let _ = TcpStream::connect(self.address);
    }
}

fn talk(manner: Manner, mut stream: TcpStream, over: &AtomicBool) -> std::io::Result<()> {
    match manner {
        Manner::Refused | Manner::BlackHole => {}
        Manner::Trickle => {
            while !over.load(Ordering::Relaxed) {
                stream.write_all(b"1")?;
                thread::sleep(Duration::from_secs(1));
            }
        }
        Manner::Garbage => {
            let bytes: Vec<u8> =
                (0..512_u32).map(|number| u8::try_from(number * 197 % 256).unwrap()).collect();
            stream.write_all(&bytes)?;
            stream.shutdown(Shutdown::Both)?;
        }
        Manner::HalfClosed => stream.shutdown(Shutdown::Write)?,
        Manner::Endless => endless(&mut stream, over)?,
        Manner::EndlessHttp => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            endless(&mut stream, over)?;
        }
    }
    Ok(())
}

fn endless(stream: &mut TcpStream, over: &AtomicBool) -> std::io::Result<()> {
    let bytes = [b'a'; 16 * 1024];
    while !over.load(Ordering::Relaxed) {
        match stream.write(&bytes) {
            Ok(_) => {}
            // Looking whether the other side has gone has made it so.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
