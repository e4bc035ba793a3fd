//! What reads the bytes of clients and proxies, as the fuzzer calls it (`tests/fuzz`), with what must be true of every answer.
//! Built for nobody else.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use shared::config::{Access, Configuration, Surroundings};
use shared::settings::Network;
use tokio::runtime::{Builder, Runtime};

use super::access::{self, From};
use super::board::Board;
use super::formats::FORMS;
use super::{listen, negotiate};

/// A question's header lines, one a line: who it is from.
pub fn forwarded(bytes: &[u8]) {
    let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    let network = |text: &str| Network(text.parse().expect("a network"));
    for header in ["Forwarded", "X-Forwarded-For"] {
        let access = Access {
            networks: vec![network("192.0.2.0/24")],
            trusted_proxies: vec![network("127.0.0.0/8")],
            client_ip_header: header.to_owned(),
            ..Access::default()
        };
        let from = |peer: [u8; 4]| From {
            peer: Some(IpAddr::V4(Ipv4Addr::from(peer))),
            forwarded: &lines,
            told_elsewhere: false,
            token: None,
        };
        let stranger = from([203, 0, 113, 7]);
        assert_eq!(access::client(&access, stranger), stranger.peer, "nobody's word but a proxy's counts");
        assert!(!access::allows(&access, stranger));
        let proxy = from([127, 0, 0, 1]);
        let client = access::client(&access, proxy);
        let near = client.is_some_and(|client| access.networks[0].0.contains(&client));
        assert_eq!(access::allows(&access, proxy), near);
    }
}

/// A query, and header lines of `Accept`, one a line.
pub fn accept(bytes: &[u8]) {
    let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    let query = lines.first().and_then(|line| std::str::from_utf8(line).ok());
    for (query, accept) in [(query, &lines[1..]), (None, &lines[..])] {
        let chosen = negotiate::choose(FORMS, query, accept);
        assert!(chosen.is_none_or(|form| FORMS.iter().any(|known| known.name == form.name)));
    }
}

/// All that a client sends over a connection.
pub fn http(bytes: &[u8]) {
    static SERVED: OnceLock<(Runtime, Arc<Board>)> = OnceLock::new();

    let (runtime, board) = SERVED.get_or_init(|| {
        let text = "[subsets]\nreadiness = ['secretly']\n[checks.secretly]\ntype = 'worker'\nfile = '/proc/nowhere'\n\
            [server.access]\npath_secret = 'hidden-and-long-enough'\n";
        let surroundings = Surroundings { variable: &|_| None, folder: Path::new("/proc/nowhere") };
        let reading = Configuration::parse(text, surroundings);
        let configuration = reading.configuration.unwrap_or_else(|| panic!("{:?}", reading.problems));
        let board = Arc::new(Board::new(configuration).expect("there are threads"));
        (Builder::new_current_thread().enable_all().build().expect("there are descriptors"), board)
    });
    let told = runtime.block_on(listen::answered(Arc::clone(board), &bytes[..bytes.len().min(1 << 16)]));
    assert!(told.is_empty() || told.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&told));
    // Without the secret first part of the path nobody learns of a check.
    let has = |bytes: &[u8], word: &[u8]| bytes.windows(word.len()).any(|bytes| bytes == word);
    let knows = has(bytes, b"hidden") || has(bytes, b"secretly");
    assert!(knows || !has(&told, b"secretly"), "{}", String::from_utf8_lossy(&told));
}
