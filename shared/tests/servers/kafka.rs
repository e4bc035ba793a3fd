//! Kafka brokers: those that librdkafka brings along for its own tests, because no registry that the tests install from has
//! a Kafka. They keep topics, messages, leaders and commits as a cluster does, and know neither TLS nor a login.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use super::{Program, free_port, python, until};

pub struct Kafka {
    pub program: Program,
    /// `HOST:PORT` of each broker, in the order of their numbers, which begin with 1.
    pub servers: Vec<String>,
    control: u16,
}

impl Kafka {
    pub fn start(brokers: u8) -> Self {
        let control = free_port();
        let mut command = python();
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/kafka.py"));
        command.args([control.to_string(), brokers.to_string()]);
        let program = Program::start(command, tempfile::tempdir().unwrap());
        let mut kafka = Self { program, servers: Vec::new(), control };
        until("brokers of Kafka", || TcpStream::connect(("127.0.0.1", control)).ok());
        kafka.servers = kafka.tell("servers").split(',').map(str::to_owned).collect();
        kafka
    }

    /// One command of `kafka.py`.
    #[track_caller]
    pub fn tell(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control)).unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(!answer.starts_with("error"), "{command}: {answer}{}", self.program.log());
        answer.trim_end().to_owned()
    }
}
