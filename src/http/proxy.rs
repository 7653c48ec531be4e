//! The PROXY protocol, versions 1 and 2: what a proxy that passes bytes on says first, to tell
//! whose bytes they are (haproxy's `proxy-protocol.txt`). Bytes in, an address out.
//!
//! Knows the two versions' bytes. Must not know which proxies are trusted: only the caller knows
//! the peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with, and the most bytes that it may have (section 2.1).
const WORD: &[u8; 6] = b"PROXY ";
const LINE_BYTES: usize = 107;
/// The most bytes of a header of version 2. What the known proxies append to the addresses is far
/// smaller; the format allows 64 KiB.
const HEADER_BYTES: usize = 4096;

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preface {
    /// It may be a header; more has to come.
    Partial,
    /// It is not a header.
    Absent,
    /// A header of `length` bytes. `source` is the client; `None` if the proxy speaks for itself or
    /// does not say: then it is the peer.
    Header { length: usize, source: Option<IpAddr> },
}

/// A header that began and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Parses the beginning of a connection.
pub(crate) fn parse(bytes: &[u8]) -> Result<Preface, Malformed> {
    if begins(bytes, WORD) {
        parse_line(bytes)
    } else if begins(bytes, SIGNATURE) {
        parse_binary(bytes)
    } else {
        Ok(Preface::Absent)
    }
}

/// Whether the bytes begin with `start`, as far as they have come.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, expected)| byte == expected)
}

/// Version 1 (section 2.1): `PROXY TCP4 source destination source-port destination-port`.
fn parse_line(bytes: &[u8]) -> Result<Preface, Malformed> {
    let line = &bytes[..bytes.len().min(LINE_BYTES)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES { Ok(Preface::Partial) } else { Err(Malformed) };
    };
    let line = str::from_utf8(&line[..end]).map_err(|_| Malformed)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    let source = match family {
        // What else it says is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(addresses::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(addresses::<Ipv6Addr>(words)?),
        _ => return Err(Malformed),
    };
    Ok(Preface::Header { length: end + 2, source })
}

/// The source address, if it and the rest of the line are right.
fn addresses<'w, A>(mut words: impl Iterator<Item = &'w str>) -> Result<IpAddr, Malformed>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut next = || words.next().ok_or(Malformed);
    let (source, destination): (Result<A, _>, Result<A, _>) = (next()?.parse(), next()?.parse());
    let (Ok(source), Ok(_)) = (source, destination) else { return Err(Malformed) };
    for port in [next()?, next()?] {
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || port.parse::<u16>().is_err() {
            return Err(Malformed);
        }
    }
    if words.next().is_some() { Err(Malformed) } else { Ok(source.into()) }
}

/// Version 2 (section 2.2): signature, version and command, family, length, addresses, and what is
/// of no use here.
fn parse_binary(bytes: &[u8]) -> Result<Preface, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<16>() else { return Ok(Preface::Partial) };
    let [.., command, family, high, low] = *fixed;
    let body_bytes = usize::from(u16::from_be_bytes([high, low]));
    let address_bytes = match (command, family) {
        // The proxy speaks for itself, a health check for one: the rest is to be ignored.
        (0x20, _) => 0,
        // TCP over IPv4 and IPv6: two addresses, two ports.
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        // Unspecified, datagrams, Unix sockets: no address of a client.
        (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => 0,
        _ => return Err(Malformed),
    };
    if body_bytes < address_bytes || fixed.len() + body_bytes > HEADER_BYTES {
        return Err(Malformed);
    }
    let Some(body) = rest.get(..body_bytes) else { return Ok(Preface::Partial) };
    let source = match address_bytes {
        12 => body.first_chunk::<4>().map(|&octets| octets.into()),
        36 => body.first_chunk::<16>().map(|&octets| octets.into()),
        _ => None,
    };
    Ok(Preface::Header { length: fixed.len() + body_bytes, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, body].concat()
    }

    /// Parses at every split: partial up to the last byte, then the same whatever follows.
    fn source(header: &[u8]) -> Option<IpAddr> {
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Ok(Preface::Partial), "cut at {cut}");
        }
        let whole = parse(header).expect("well-formed");
        assert_eq!(parse(&[header, b"\r\nPROXY "].concat()), Ok(whole));
        let Preface::Header { length, source } = whole else { panic!("not whole: {whole:?}") };
        assert_eq!(length, header.len());
        source
    }

    /// Malformed from some byte on, and never taken back.
    fn is_malformed(header: &[u8]) -> bool {
        let verdicts: Vec<_> = (0..=header.len()).map(|cut| parse(&header[..cut])).collect();
        let first = verdicts.iter().position(|verdict| *verdict == Err(Malformed));
        first.is_some_and(|first| {
            verdicts[..first].iter().all(|verdict| *verdict == Ok(Preface::Partial))
                && verdicts[first..].iter().all(|verdict| *verdict == Err(Malformed))
        })
    }

    #[test]
    fn a_line_tells_the_client() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(LINE_BYTES - 16));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n", Some("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", Some("2001:db8::1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ff::1 ff::2 1 2\r\n", None),
            (&longest, None),
        ] {
            let expected = expected.map(|text| text.parse().expect("an address"));
            assert_eq!(source(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_line_that_is_not_right_is_malformed() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 ::2 1 2\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n",
            "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "f".repeat(LINE_BYTES - 15)),
            &format!("PROXY TCP4 {}", " ".repeat(LINE_BYTES)),
        ] {
            assert!(is_malformed(line.as_bytes()), "{line:?}");
        }
        assert!(is_malformed(b"PROXY TCP4 \xFF\r\n"));
    }

    #[test]
    fn a_binary_header_tells_the_client_and_what_is_appended_is_skipped() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 9, 0, 1, 0, 2];
        let v6 = [[0x20; 16].as_slice(), &[0x30; 16], &[0, 1, 0, 2]].concat();
        let extended = [v4.as_slice(), &[1, 0, 2, b'h', b'2']].concat();
        let largest = [v4.as_slice(), &[0; HEADER_BYTES - 16 - 12]].concat();
        for (header, expected) in [
            (binary(0x21, 0x11, &v4), Some(IpAddr::from([192, 0, 2, 1]))),
            (binary(0x21, 0x11, &extended), Some(IpAddr::from([192, 0, 2, 1]))),
            (binary(0x21, 0x11, &largest), Some(IpAddr::from([192, 0, 2, 1]))),
            (binary(0x21, 0x21, &v6), Some(IpAddr::from([0x20; 16]))),
            (binary(0x20, 0x00, b""), None),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x20, 0xFF, b"anything"), None),
            (binary(0x21, 0x00, b"anything"), None),
            (binary(0x21, 0x31, &[b'/'; 216]), None),
            (binary(0x21, 0x12, &v4), None),
        ] {
            assert_eq!(source(&header), expected, "{header:?}");
        }
    }

    #[test]
    fn a_binary_header_that_is_not_right_is_malformed() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 9, 0, 1, 0, 2];
        for header in [
            binary(0x11, 0x11, &v4),
            binary(0x31, 0x11, &v4),
            binary(0x22, 0x11, &v4),
            binary(0x21, 0x10, &v4),
            binary(0x21, 0x13, &v4),
            binary(0x21, 0x41, &v4),
            binary(0x21, 0x11, &v4[..11]),
            binary(0x21, 0x21, &v4),
            binary(0x21, 0x11, &[0; HEADER_BYTES - 16 + 1]),
            binary(0x20, 0x00, &[0; 65_535]),
        ] {
            // The length is the last that is looked at: no need to try what follows.
            assert!(is_malformed(&header[..header.len().min(200)]), "{header:?}");
        }
    }

    #[test]
    fn a_request_is_not_a_header_from_its_first_byte_that_differs() {
        for request in
            ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1", "PROXIES", "\r\nGET", "\r\n\r\nGET"]
        {
            let common = [WORD.as_slice(), SIGNATURE].map(|start| {
                start.iter().zip(request.as_bytes()).take_while(|(a, b)| a == b).count()
            });
            let differs = common.into_iter().max().expect("two");
            for cut in 0..=request.len() {
                let expected = if cut > differs { Preface::Absent } else { Preface::Partial };
                assert_eq!(parse(&request.as_bytes()[..cut]), Ok(expected), "{request:?} {cut}");
            }
        }
    }
}
