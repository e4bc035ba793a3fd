//! Where the workers beat to: one Redis, or a Redis Cluster of six nodes; and what the server itself tells of its cost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use heartbeat::fleet::Url;

use crate::servers::{Server, until};

/// Servers of this run's own, which end with it.
pub struct Place {
    nodes: Vec<Server>,
    clustered: bool,
}

impl Place {
    pub fn one() -> Self {
        Self { nodes: vec![Server::start(&["--enable-debug-command", "local"])], clustered: false }
    }

    /// Three masters, each with a replica.
    pub fn cluster() -> Self {
        let settings = ["--enable-debug-command", "local", "--cluster-enabled", "yes"];
        let quick = ["--repl-diskless-sync-delay", "0"];
        let nodes: Vec<_> = (0..6).map(|_| Server::start(&[&settings[..], &quick].concat())).collect();
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)))
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .stdout(Stdio::null())
            .status()
            .expect("redis-cli (Debian: redis-tools)");
        assert!(created.success(), "redis-cli --cluster create: {created}");
        let place = Self { nodes, clustered: true };
        until("the cluster is well", || {
            let well = |node: &Server| node.ask("CLUSTER INFO").contains("cluster_state:ok");
            place.nodes.iter().all(well).then_some(())
        });
        until("its replicas follow", || {
            let follows = |node: &&Server| node.ask("INFO replication").contains("master_link_status:up");
            (place.nodes.iter().filter(follows).count() == 3).then_some(())
        });
        place
    }

    pub fn url(&self) -> Url {
        self.text().parse().expect("a URL")
    }

    /// The same as text, for commands.
    pub fn text(&self) -> String {
        if !self.clustered {
            return self.nodes[0].url();
        }
        let seeds = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        format!("redis+cluster://{}", seeds.collect::<Vec<_>>().join(","))
    }

    /// The node that holds the keys of the cluster of this name.
    pub fn node(&self, cluster: &str) -> Node<'_> {
        if !self.clustered {
            return Node(&self.nodes[0]);
        }
        // A node that holds a key's slot answers, and any other one says who does.
        let ask = format!("ZCARD heartbeat:{{{cluster}}}:workers");
        let said = self.nodes[0].try_ask(&ask).expect("an answer");
        let port = said.rsplit_once(':').filter(|_| said.starts_with("-MOVED"));
        let port = port.map_or(self.nodes[0].port, |(_, port)| port.parse().expect("a port"));
        Node(self.nodes.iter().find(|node| node.port == port).expect("one of ours"))
    }

    /// Another name, with its keys on the same node.
    pub fn name_beside(&self, cluster: &str) -> String {
        let port = self.node(cluster).0.port;
        let mut names = (0..200).map(|number| format!("beside-{number}"));
        names.find(|name| self.node(name).0.port == port).expect("a name for each node")
    }

    /// Names of which each has its keys on another master.
    pub fn names_apart(&self) -> Vec<String> {
        let mut names: Vec<(u16, String)> = Vec::new();
        for name in (0..200).map(|number| format!("orders-{number}")) {
            let port = self.node(&name).0.port;
            if names.iter().all(|(known, _)| *known != port) {
                names.push((port, name));
            }
        }
        names.into_iter().map(|(_, name)| name).collect()
    }
}

/// One server.
#[derive(Clone, Copy)]
pub struct Node<'a>(&'a Server);

impl Node<'_> {
    pub fn ask(self, command: &str) -> String {
        self.0.ask(command)
    }

    /// Fills it with keys that are no worker's.
    pub fn populate(self, keys: usize) {
        let said = Line::to(self).ask(&format!("DEBUG POPULATE {keys} foreign 32"));
        assert_eq!(said, "+OK");
        assert!(self.ask("DBSIZE").trim_start_matches(':').parse::<usize>().expect("a number") >= keys);
    }

    /// What it has used of processor time, in its one thread that does the work, in seconds.
    pub fn busy(self) -> f64 {
        self.info("cpu", "used_cpu_user_main_thread") + self.info("cpu", "used_cpu_sys_main_thread")
    }

    /// What it has allocated, but for connections, and for what it keeps to pass on to replicas, which grows with each
    /// beat up to its bound.
    pub fn memory(self) -> f64 {
        let alone = || self.info("clients", "connected_clients") <= 1.0;
        until("nobody else is connected", || alone().then_some(()));
        let of = |field| self.info("memory", field);
        of("used_memory") - of("mem_replication_backlog") - of("mem_clients_slaves")
    }

    fn info(self, section: &str, field: &str) -> f64 {
        let told = self.ask(&format!("INFO {section}"));
        let value = told.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field}: {told}"))
    }
}

/// A bare connection, for what the library is compared with.
pub struct Line(BufReader<TcpStream>);

impl Line {
    pub fn to(node: Node<'_>) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", node.0.port)).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_mins(5))).expect("a patient socket");
        Self(BufReader::new(stream))
    }

    /// One command that is answered with one line.
    pub fn ask(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("a connection");
        self.next()
    }

    /// Looks through all keys in steps of 1,000; how many have such a name.
    pub fn scan(&mut self, pattern: &str) -> usize {
        let (mut cursor, mut found) = ("0".to_owned(), 0);
        loop {
            // The cursor, by its length and itself, and then the keys in the same form.
            assert_eq!(self.ask(&format!("SCAN {cursor} MATCH {pattern} COUNT 1000")), "*2");
            self.next();
            cursor = self.next();
            let keys: usize = self.next().trim_start_matches('*').parse().expect("a number");
            found += keys;
            (0..2 * keys).for_each(|_| drop(self.next()));
            if cursor == "0" {
                return found;
            }
        }
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    /// A PING, and how long it took.
    pub fn ping(&mut self) -> Duration {
        let begun = Instant::now();
        self.0.get_mut().write_all(b"PING\r\n").expect("a connection");
        let mut answer = [0; 7];
        self.0.read_exact(&mut answer).expect("an answer");
        let took = begun.elapsed();
        assert_eq!(&answer, b"+PONG\r\n");
        took
    }
}
