//! A way to a server that forgets its connections, as a firewall does: nothing goes over any more, and nobody is told. New
//! ones go through.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Its threads end with their connections, and the one that takes new ones with the test program.
pub struct Proxy {
    pub port: u16,
    taken: Arc<AtomicUsize>,
    forgotten: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (taken, forgotten) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let proxy = Self { port, taken: Arc::clone(&taken), forgotten: Arc::clone(&forgotten) };
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let number = taken.fetch_add(1, Ordering::SeqCst);
                let other_way = (far.try_clone().unwrap(), near.try_clone().unwrap());
                for (from, to) in [(near, far), other_way] {
                    let forgotten = Arc::clone(&forgotten);
                    thread::spawn(move || carry(from, to, || number < forgotten.load(Ordering::SeqCst)));
                }
            }
        });
        proxy
    }

    /// Of all connections that were taken so far.
    pub fn forget(&self) {
        self.forgotten.store(self.taken(), Ordering::SeqCst);
    }

    /// How many connections were taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_forgotten: impl Fn() -> bool) {
    let mut bytes = [0; 4_096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !is_forgotten() && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    if !is_forgotten() {
        // It may have ended before.
        let _ = to.shutdown(Shutdown::Write);
    }
}
