//! What is said before TLS begins, by protocols that begin without it.
//!
//! The handshake, and what is spoken afterwards, is the concern of the kinds that ask.

use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a server may say before TLS begins, in all.
const TOO_MUCH: usize = 16 << 10;

/// A protocol that begins without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Starttls {
    /// Mail submission and transport.
    Smtp,
    /// Mailboxes.
    Imap,
    /// Mailboxes.
    Pop3,
    /// PostgreSQL.
    Postgres,
}

/// Which lines end an answer, and which of them agree.
struct Answer {
    last: fn(&[u8]) -> bool,
    agrees: &'static [u8],
}

const SMTP: fn(&[u8]) -> bool = |line| line.get(3) != Some(&b'-');
const ANY: fn(&[u8]) -> bool = |_| true;

impl Starttls {
    /// Asks the server to begin. Not a byte is read beyond its answer, so that nothing which somebody else has put behind
    /// it can be taken for what comes encrypted. Mail servers are greeted by the name `hello`.
    ///
    /// A server that speaks the protocol and does not begin is an error of the kind [`io::ErrorKind::Unsupported`].
    pub async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: &mut S,
        hello: &str,
    ) -> io::Result<()> {
        let mut room = TOO_MUCH;
        match self {
            Self::Smtp => {
                let no_smtp = |error: io::Error| match error.kind() {
                    io::ErrorKind::Unsupported => io::Error::other("not an answer that a mail server gives"),
                    _ => error,
                };
                expect(stream, &Answer { last: SMTP, agrees: b"220" }, &mut room).await.map_err(no_smtp)?;
                stream.write_all(format!("EHLO {hello}\r\n").as_bytes()).await?;
                expect(stream, &Answer { last: SMTP, agrees: b"250" }, &mut room).await.map_err(no_smtp)?;
                stream.write_all(b"STARTTLS\r\n").await?;
                expect(stream, &Answer { last: SMTP, agrees: b"220" }, &mut room).await
            }
            Self::Imap => {
                expect(stream, &Answer { last: ANY, agrees: b"* OK" }, &mut room).await?;
                stream.write_all(b"a STARTTLS\r\n").await?;
                let tagged = |line: &[u8]| line.starts_with(b"a ");
                expect(stream, &Answer { last: tagged, agrees: b"a OK" }, &mut room).await
            }
            Self::Pop3 => {
                expect(stream, &Answer { last: ANY, agrees: b"+OK" }, &mut room).await?;
                stream.write_all(b"STLS\r\n").await?;
                expect(stream, &Answer { last: ANY, agrees: b"+OK" }, &mut room).await
            }
            Self::Postgres => {
                // SSLRequest: its length, and its number.
                stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
                if stream.read_u8().await? == b'S' { Ok(()) } else { Err(refused()) }
            }
        }
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the server does not agree")
}

async fn expect<S: AsyncRead + Unpin>(stream: &mut S, answer: &Answer, room: &mut usize) -> io::Result<()> {
    loop {
        let line = line(stream, room).await?;
        if (answer.last)(&line) {
            return if line.starts_with(answer.agrees) { Ok(()) } else { Err(refused()) };
        }
    }
}

/// One line, byte by byte: see [`Starttls::begin`].
async fn line<S: AsyncRead + Unpin>(stream: &mut S, room: &mut usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        *room = room.checked_sub(1).ok_or_else(|| io::Error::other("the server says too much"))?;
        match stream.read_u8().await? {
            b'\n' => return Ok(line),
            byte => line.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of it with a server that says all of this, what it was told, and what was left unread.
    async fn begun(with: Starttls, says: &str) -> (bool, String, String) {
        let (mut here, mut there) = tokio::io::duplex(1 << 20);
        there.write_all(says.as_bytes()).await.unwrap();
        let agreed = with.begin(&mut here, "checker.invalid").await.is_ok();
        let mut left = vec![0; 64];
        let unread = tokio::time::timeout(std::time::Duration::ZERO, here.read(&mut left)).await;
        left.truncate(unread.map_or(0, Result::unwrap));
        drop(here);
        let mut told = Vec::new();
        there.read_to_end(&mut told).await.unwrap();
        (agreed, String::from_utf8_lossy(&told).into_owned(), String::from_utf8(left).unwrap())
    }

    #[tokio::test]
    async fn each_protocol_says_what_it_takes_and_reads_no_further() {
        let agreeing = [
            (
                Starttls::Smtp,
                "220-a\r\n220 b\r\n250-c\r\n250 STARTTLS\r\n220 go\r\nX",
                "EHLO checker.invalid\r\nSTARTTLS\r\n",
            ),
            (Starttls::Imap, "* OK hi\r\n* CAPABILITY\r\na OK go\r\nX", "a STARTTLS\r\n"),
            (Starttls::Pop3, "+OK hi\r\n+OK go\r\nX", "STLS\r\n"),
        ];
        for (with, says, told) in agreeing {
            assert_eq!(begun(with, says).await, (true, told.to_owned(), "X".to_owned()), "{with:?}");
        }
        assert!(begun(Starttls::Postgres, "S").await.0);
    }

    #[tokio::test]
    async fn a_server_that_does_not_agree_or_talks_without_end_is_refused() {
        let endless = "250-more\r\n".repeat(TOO_MUCH);
        let refusing = [
            (Starttls::Smtp, "220 a\r\n250 b\r\n454 no\r\n"),
            (Starttls::Smtp, "554 no\r\n"),
            (Starttls::Smtp, &format!("220 a\r\n{endless}")),
            (Starttls::Imap, "* OK hi\r\na NO\r\n"),
            (Starttls::Imap, "* BYE\r\n"),
            (Starttls::Pop3, "+OK\r\n-ERR\r\n"),
            (Starttls::Postgres, "N"),
        ];
        for (with, says) in refusing {
            let (agreed, ..) = begun(with, says).await;
            assert!(!agreed, "{with:?}: {says:.40}");
        }
    }
}
