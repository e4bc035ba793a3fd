//! What an SMTP client reads: so many bytes and no more, because it takes a line of any length.

use std::fmt::Debug;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a mail server may say in all, over one connection. A real one says some hundred bytes.
pub const MOST: usize = 64 << 10;

/// A connection that fails once the other side has said more than [`MOST`].
#[derive(Debug)]
pub struct Bounded<S> {
    stream: S,
    peer: SocketAddr,
    /// What is read first: what was said before this stream began.
    said: &'static [u8],
    room: usize,
}

impl<S> Bounded<S> {
    /// With the greeting, where that has been heard already.
    pub fn new(stream: S, peer: SocketAddr, said: &'static [u8]) -> Self {
        Self { stream, peer, said, room: MOST }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.said.is_empty() {
            let read = self.said.read(buffer.initialize_unfilled())?;
            buffer.advance(read);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        let Some(room) = self.room.checked_sub(read) else {
            // With an error nothing has been read.
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::other("the server says too much")));
        };
        self.room = room;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin> AsyncTokioStream for Bounded<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_said_before_comes_first_and_no_more_than_there_is_room_for() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 25));
        let all = vec![b'a'; MOST];
        let mut read = Vec::new();
        Bounded::new(&*all, peer, b"220 go\r\n").read_to_end(&mut read).await.unwrap();
        assert!(read.starts_with(b"220 go\r\naa") && read.len() == MOST + 8);
        let more = vec![b'a'; MOST + 1];
        let mut bounded = Bounded::new(&*more, peer, b"");
        bounded.read_to_end(&mut read).await.unwrap_err();
    }
}
