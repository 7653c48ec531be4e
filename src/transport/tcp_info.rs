//! What the kernel knows of a peer that the server does not hear: whether the peer's kernel
//! acknowledges what was sent to it (`TCP_INFO`, tcp(7)).
//!
//! Knows one socket option of Linux. Must not know what follows from it.

use std::os::fd::AsFd;
use std::panic::catch_unwind;
use std::time::Duration;

use nix::sys::socket::getsockopt;

use self::option::TcpInfo;
use crate::transport::outcome::Acknowledged;

/// The first part of the kernel's `struct tcp_info` (linux/tcp.h), which only ever grows at its
/// end: this much of it there has been since Linux 4.6.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(unreachable_pub, reason = "as public as the option")]
pub struct Info {
    state_and_options: [u8; 8],
    timeouts_and_sizes: [u32; 4],
    /// How many segments are sent and not acknowledged.
    unacked_count: u32,
    counts_and_times: [u32; 7],
    /// For how long no acknowledgement has come, in milliseconds.
    last_ack_ms: u32,
    measurements: [u32; 11],
    pacing_rates: [u64; 2],
    acked_bytes: u64,
    received_bytes: u64,
    segment_counts: [u32; 2],
    /// How much waits in the kernel to be sent.
    unsent_bytes: u32,
    min_rtt: u32,
}

mod option {
    use nix::{getsockopt_impl, libc, sockopt_impl};

    sockopt_impl!(
        #[allow(unreachable_pub, reason = "the macro makes it public")]
        TcpInfo,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        super::Info
    );
}

/// What the peer has acknowledged; `None` if the kernel does not tell.
pub(crate) fn acknowledged(socket: impl AsFd) -> Option<Acknowledged> {
    let socket = socket.as_fd();
    // nix panics if the kernel tells less than was asked for.
    let info = catch_unwind(|| getsockopt(&socket, TcpInfo)).ok()?.ok()?;
    Some(Acknowledged {
        bytes: info.acked_bytes,
        is_outstanding: info.unacked_count > 0 || info.unsent_bytes > 0,
        last_ago: Duration::from_millis(info.last_ack_ms.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn it_tells_what_was_acknowledged_and_whether_something_is_outstanding() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("open");
        let (mut server, _) = listener.accept().expect("a connection");
        server.write_all(&[7; 1000]).expect("room");
        client.read_exact(&mut [0; 1000]).expect("bytes");
        let info = acknowledged(&server).expect("told");
        assert_eq!((info.bytes, info.is_outstanding), (1000, false));
        server.set_nonblocking(true).expect("an option");
        while server.write(&[7; 1 << 16]).is_ok() {}
        let full = acknowledged(&server).expect("told");
        assert!(
            full.is_outstanding && full.bytes > 1000 && full.last_ago < Duration::from_secs(60)
        );
        client.read_exact(&mut vec![0; 1 << 20]).expect("bytes");
        let info = acknowledged(&server).expect("told");
        assert!(info.is_outstanding && info.bytes > full.bytes, "{full:?} {info:?}");
    }
}
