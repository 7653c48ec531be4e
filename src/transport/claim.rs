//! That a port is exclusive, told to the other servers of this crate: a mark in the abstract
//! namespace of Unix sockets, which belongs to the network namespace as ports do, and which the
//! kernel removes when its process ends.
//!
//! The shards' listeners share their port among themselves by `SO_REUSEPORT`, so the kernel lets
//! any other process of the same user join that sets it, too. A server that shares its port looks
//! for the marks of servers that do not.
//!
//! Knows addresses and names. Must not know listeners.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixDatagram};

use rustix::process::geteuid;

/// A mark, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Claim {
    _mark: UnixDatagram,
}

impl Claim {
    /// Marks an address.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { _mark: UnixDatagram::bind_addr(&name(address)?)? })
    }
}

/// Whether a server of this user has claimed the address, or all addresses with its port.
pub(crate) fn is_claimed(address: SocketAddr) -> bool {
    let port = address.port();
    let of_any_v4 = (Ipv4Addr::UNSPECIFIED, port).into();
    let of_any_v6 = (Ipv6Addr::UNSPECIFIED, port).into();
    [address, of_any_v4, of_any_v6].into_iter().any(has_mark)
}

fn has_mark(address: SocketAddr) -> bool {
    let look = || UnixDatagram::unbound()?.connect_addr(&name(address)?);
    look().is_ok()
}

/// Servers of other users cannot join anyway. An IPv4 address is the same in the notation of IPv6.
fn name(address: SocketAddr) -> io::Result<Name> {
    let (user, port) = (geteuid().as_raw(), address.port());
    let address = match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, port)),
        IpAddr::V6(_) => address,
    };
    Name::from_abstract_name(format!("peregrine/{user}/{address}"))
}
