//! One connection: its socket, how far it has come, and what it still has to write.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::incoming::Incoming;
use crate::script::{Script, put_frame};
use crate::upgrade::Upgrade;

/// The mask of what is not measured.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is none.
    Absent,
    Connecting,
    Upgrading,
    Open,
    /// Close has been sent.
    Closing,
    /// Both have sent Close; the server has to end it (RFC 6455 section 7.1.1).
    Ending,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Option<TcpStream>,
    pub(crate) stage: Stage,
    /// When the stage began; while it opens, when the first did.
    pub(crate) since: u64,
    pub(crate) incoming: Incoming,
    /// The answer to the upgrade as far as it has come.
    pub(crate) head: Vec<u8>,
    /// Messages before this number are to be written, those before `written` have been, and of the
    /// next one so many bytes.
    pub(crate) queued: u64,
    written: u64,
    written_bytes: usize,
    /// The request, Pongs and Close: written between messages.
    control: Vec<u8>,
    is_within_control: bool,
    /// The kernel takes no more.
    is_blocked: bool,
}

impl Link {
    /// Its messages begin with this number.
    pub(crate) fn new(first_number: u64) -> Self {
        Self {
            socket: None,
            stage: Stage::Absent,
            since: 0,
            incoming: Incoming::starting_at(first_number),
            head: Vec::new(),
            queued: first_number,
            written: first_number,
            written_bytes: 0,
            control: Vec::new(),
            is_within_control: false,
            is_blocked: true,
        }
    }

    /// Begins to connect.
    pub(crate) fn connect(
        &mut self,
        address: SocketAddr,
        from: Option<IpAddr>,
        now: u64,
    ) -> io::Result<&mut TcpStream> {
        *self = Self { since: now, stage: Stage::Connecting, ..Self::new(self.queued) };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(ip) = from {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error),
            _ => {}
        }
        Ok(self.socket.insert(TcpStream::from_std(socket.into())))
    }

    /// Once writable: has it connected? Then the request is written.
    pub(crate) fn connected(&mut self, upgrade: &Upgrade) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(ErrorKind::NotConnected)?;
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
            other => other?,
        };
        self.stage = Stage::Upgrading;
        self.is_blocked = false;
        self.control.extend(&upgrade.request);
        Ok(())
    }

    pub(crate) fn pong(&mut self, payload: &[u8]) {
        // Who pings without reading does not get all Pongs (RFC 6455 section 5.5.3).
        if self.control.len() < 4096 {
            put_frame(&mut self.control, 0x8A, payload, Some(MASK));
        }
    }

    /// Sends Close, and nothing after it.
    pub(crate) fn close(&mut self, code: Option<u16>, now: u64) {
        self.queued = self.written + u64::from(self.written_bytes > 0);
        let code = code.map(u16::to_be_bytes);
        put_frame(&mut self.control, 0x88, code.as_ref().map_or(&[], |code| &code[..]), Some(MASK));
        self.stage = Stage::Closing;
        self.since = now;
    }

    /// How many messages have been sent wholly; no more can come back.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Nothing is written until there is an event.
    pub(crate) fn block(&mut self) {
        self.is_blocked = true;
    }

    /// The kernel takes more. Whether that is news.
    pub(crate) fn unblock(&mut self) -> bool {
        std::mem::take(&mut self.is_blocked)
    }

    /// Writes what there is, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, script: &Script) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while !self.is_blocked && (self.written < self.queued || !self.control.is_empty()) {
            let is_control =
                self.is_within_control || self.written_bytes == 0 && !self.control.is_empty();
            let bytes = if is_control {
                &self.control[..]
            } else {
                // With a Pong waiting, only to the end of this message.
                let count = self.queued - self.written;
                let count = if self.control.is_empty() { count } else { 1 };
                script.to_send(self.written, self.written_bytes, count)
            };
            match socket.write(bytes) {
                Ok(length) if is_control => {
                    self.control.drain(..length);
                    self.is_within_control = !self.control.is_empty();
                }
                Ok(length) => {
                    let (count, rest) = script.sent_messages(self.written_bytes + length);
                    self.written += count;
                    self.written_bytes = rest;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends it at once.
    pub(crate) fn drop_socket(&mut self) {
        self.socket = None;
        self.stage = Stage::Absent;
    }
}

/// `EINPROGRESS`: the connection is on its way.
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
