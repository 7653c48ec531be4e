//! Networks of addresses: [`Networks`], by which trusted proxies are recognised.
//!
//! Knows IP addresses and prefixes. Must not know requests, nor what a match is used for.

use std::net::IpAddr;

use crate::error::Error;

/// A set of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks(Box<[Network]>);

impl Networks {
    /// Each text is a network such as `10.0.0.0/8` or `fd00::/8`, or one address. What stands in
    /// an address behind the prefix does not matter.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, Error> {
        let parse = |text: &String| Network::parse(text).ok_or_else(|| Error::Proxy(text.clone()));
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0.iter().any(|network| (network.bits ^ bits) & network.mask == 0)
    }
}

/// IPv4 is seen as what it is mapped to in IPv6 (RFC 4291 section 2.5.5.2): a socket that serves
/// both may tell it either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    bits: u128,
    mask: u128,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        let free = width.checked_sub(prefix)?;
        // With no prefix at all, the shift would be by the whole width.
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Some(Self { bits: bits(address), mask })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_what_shares_its_prefix() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("10.1.2.3/8", "10.9.9.9", "11.1.2.3"),
            ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1/32", "::ffff:127.0.0.1", "127.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::1", "::1", "::"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
        ] {
            let networks = Networks::parse(&[network.to_owned()]).expect(network);
            let contains = |address: &str| networks.contains(address.parse().expect(address));
            assert!(contains(inside) && !contains(outside), "{network}");
        }
        let all = Networks::parse(&["::/0".to_owned()]).expect("a network");
        assert!(all.contains([1, 2, 3, 4].into()));
        assert!(!Networks::default().contains([127, 0, 0, 1].into()));
    }

    #[test]
    fn what_is_no_network_is_an_error() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::1/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "a",
            "10.0.0.0/8/8",
            "10.0.0.0/-1",
            "localhost",
            "10.0.0.1:80",
            "10.0.0.0/4294967296",
            " 10.0.0.0/8",
        ] {
            let parsed = Networks::parse(&["::1".to_owned(), text.to_owned()]);
            assert!(matches!(parsed, Err(Error::Proxy(wrong)) if wrong == text), "{text:?}");
        }
    }

    /// Bit by bit, in the form that both families share.
    fn contains_naively(network: &str, address: IpAddr) -> bool {
        let digits = |address: IpAddr| format!("{:0128b}", bits(address));
        let (base, prefix) = network.split_once('/').expect("a prefix");
        let base: IpAddr = base.parse().expect("an address");
        let prefix: usize = prefix.parse().expect("a number");
        let prefix = if base.is_ipv4() { 96 + prefix } else { prefix };
        digits(base)[..prefix] == digits(address)[..prefix]
    }

    #[test]
    fn a_network_contains_what_has_the_same_first_bits() {
        use proptest::prelude::*;

        let v4 = || any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
        let v6 = || any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
        let address = || prop_oneof![v4(), v6()];
        // Near one another, so that they share a prefix: one bit is turned.
        let near = (address(), 0..128u32).prop_map(|(address, bit)| match address {
            IpAddr::V4(v4) => {
                (address, IpAddr::from((v4.to_bits() ^ 1 << (bit % 32)).to_be_bytes()))
            }
            IpAddr::V6(v6) => (address, IpAddr::from((v6.to_bits() ^ 1 << bit).to_be_bytes())),
        });
        let pair = prop_oneof![3 => near, 1 => (address(), address())];
        crate::cases::check(256, (pair, 0..=128u8), |((base, address), prefix)| {
            let prefix = if base.is_ipv4() { prefix % 33 } else { prefix };
            let network = format!("{base}/{prefix}");
            let networks = Networks::parse(&["192.0.2.1".to_owned(), network.clone()]);
            let networks = networks.expect("a network");
            let expected = contains_naively(&network, address);
            assert_eq!(networks.contains(address), expected, "{address} in {network}");
            assert!(networks.contains(base));
        });
    }
}
