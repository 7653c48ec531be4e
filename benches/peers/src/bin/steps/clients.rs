//! Clients that never wait: they send and receive as much as is possible now, and compare it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::Result;
use crate::inputs::{ACCEPT, SHORT_REQUEST};

/// What is to come.
#[derive(Clone, Debug)]
pub(crate) enum Awaited {
    /// The answer to the upgrade.
    Upgrade,
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// These, and then the end of the connection.
    End(Arc<[u8]>),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: TcpStream,
    to_send: Arc<[u8]>,
    sent_bytes: usize,
    awaited: Awaited,
    received: Vec<u8>,
    has_ended: bool,
}

impl Client {
    /// Connects, and will ask for the upgrade.
    pub(crate) fn open(address: SocketAddr, path: &str) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let request = SHORT_REQUEST.replace("/echo", path).into_bytes();
        let mut client = Self {
            socket,
            to_send: Arc::default(),
            sent_bytes: 0,
            awaited: Awaited::Upgrade,
            received: Vec::new(),
            has_ended: false,
        };
        client.begin(request.into(), Awaited::Upgrade);
        Ok(client)
    }

    /// From now on it sends this, and waits for that.
    pub(crate) fn begin(&mut self, to_send: Arc<[u8]>, awaited: Awaited) {
        (self.to_send, self.awaited, self.sent_bytes) = (to_send, awaited, 0);
        self.received.clear();
    }

    /// Sends and receives what is possible; whether that was anything.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        let mut has_moved = false;
        while self.sent_bytes < self.to_send.len() {
            match self.socket.write(&self.to_send[self.sent_bytes..]) {
                Ok(count) => self.sent_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            has_moved = true;
        }
        let mut part = [0; 16 << 10];
        while !self.has_ended {
            match self.socket.read(&mut part) {
                Ok(count) => {
                    self.has_ended = count == 0;
                    self.received.extend(&part[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            has_moved = true;
        }
        Ok(has_moved)
    }

    /// Whether all has come, and nothing else.
    pub(crate) fn is_done(&self) -> Result<bool> {
        self.awaited.is_met(&self.received, self.has_ended)
    }
}

impl Awaited {
    fn is_met(&self, received: &[u8], has_ended: bool) -> Result<bool> {
        let (is_whole, is_right, ends) = match self {
            Self::Upgrade => {
                let head = String::from_utf8_lossy(received);
                let is_right = head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT);
                (head.ends_with("\r\n\r\n"), is_right, false)
            }
            Self::Bytes(bytes) => (received.len() >= bytes.len(), received == &bytes[..], false),
            Self::End(bytes) => (has_ended, received == &bytes[..], true),
        };
        if is_whole && !is_right {
            return Err("what came is not what was to come".into());
        }
        if has_ended && !ends {
            return Err("the server ended the connection".into());
        }
        Ok(is_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::Awaited;

    #[test]
    fn what_comes_in_parts_is_met_when_it_is_whole() {
        let awaited = Awaited::Bytes((*b"echo").into());
        assert!(!awaited.is_met(b"", false).expect("nothing wrong"));
        assert!(!awaited.is_met(b"ech", false).expect("nothing wrong"));
        assert!(awaited.is_met(b"echo", false).expect("nothing wrong"));
    }

    #[test]
    fn what_is_wrong_or_too_much_or_ends_too_early_is_an_error() {
        let awaited = Awaited::Bytes((*b"echo").into());
        assert!(awaited.is_met(b"ecHo", false).is_err());
        assert!(awaited.is_met(b"echo!", false).is_err());
        assert!(awaited.is_met(b"ec", true).is_err());
        assert!(Awaited::Upgrade.is_met(b"HTTP/1.1 400 Bad Request\r\n\r\n", false).is_err());
    }

    #[test]
    fn an_end_is_awaited_with_what_comes_before_it() {
        let awaited = Awaited::End((*b"bye").into());
        assert!(!awaited.is_met(b"bye", false).expect("nothing wrong"));
        assert!(awaited.is_met(b"bye", true).expect("nothing wrong"));
        assert!(awaited.is_met(b"", true).is_err());
    }
}
