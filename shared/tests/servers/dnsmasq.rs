//! dnsmasq: a DNS server that knows the names below `shop.test`, and passes on what is asked of `broken.test`.

use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::{Program, free_port, until};

pub struct Dnsmasq {
    pub program: Program,
    pub port: u16,
}

impl Dnsmasq {
    pub fn start() -> Self {
        let port = free_port();
        let mut command = Command::new("/usr/sbin/dnsmasq");
        let own =
            ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--log-facility=-"];
        command.args(own).args(["--conf-file=/dev/null", "--user=root", "--listen-address=127.0.0.1"]);
        command.args([&format!("--port={port}"), "--pid-file=", "--edns-packet-max=512", "--no-daemon"]);
        command.args(["--local=/shop.test/", "--host-record=db.shop.test,10.0.0.7,fd00::7"]);
        command.args(["--host-record=db.shop.test,10.0.0.8", "--cname=www.shop.test,db.shop.test"]);
        command.args(["--mx-host=shop.test,mail.shop.test,10", "--txt-record=shop.test,v=spf1 -all"]);
        command.args(["--srv-host=_sip._udp.shop.test,sip.shop.test,5060,1,5"]);
        command.args(["--ptr-record=7.0.0.10.in-addr.arpa,db.shop.test"]);
        for n in 0..20 {
            command.arg(format!("--txt-record=large.shop.test,{n} {}", "x".repeat(200)));
        }
        command.arg(format!("--server=/broken.test/127.0.0.1#{}", failing()));
        let server = Self { program: Program::start(command, tempfile::tempdir().unwrap()), port };
        server.wait();
        server
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn wait(&self) {
        // A question for the root's A record: any answer will do.
        let question = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        until("dnsmasq answers", || {
            socket.send_to(&question, self.address()).ok()?;
            socket.recv(&mut [0; 512]).ok()
        });
    }
}

/// The port of a server that answers every question with SERVFAIL, for as long as this process lives.
fn failing() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut packet) {
            packet[2] |= 0x80;
            packet[3] = 0x82;
            socket.send_to(&packet[..length], asker).unwrap();
        }
    });
    port
}
