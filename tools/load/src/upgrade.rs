//! The upgrade: the request, and whether the answer is what RFC 6455 section 4.1 wants.

use httparse::{EMPTY_HEADER, Response, Status};
use tungstenite::handshake::derive_accept_key;

use crate::script::Numbers;
use crate::url::Url;

/// The longest head of an answer, in bytes, and the most headers in it.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADER_COUNT_MAX: usize = 100;

/// All requests are alike: one key is enough, and one answer to it.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) request: Vec<u8>,
    accept: String,
}

impl Upgrade {
    pub(crate) fn new(url: &Url, seed: u64) -> Self {
        let key = base64(Numbers(!seed).bytes());
        let (target, host) = (&url.target, url.authority());
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        Self { request: request.into_bytes(), accept: derive_accept_key(key.as_bytes()) }
    }

    /// The length of the head if all of it has come and all is well.
    pub(crate) fn check(&self, head: &[u8]) -> Result<Option<usize>, String> {
        let mut headers = [EMPTY_HEADER; HEADER_COUNT_MAX];
        let mut response = Response::new(&mut headers);
        let length = match response.parse(head) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if head.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(Status::Partial) => {
                return Err(format!("the answer's head is longer than {HEAD_BYTES_MAX} bytes"));
            }
            Err(error) => return Err(format!("the answer is not HTTP: {error}")),
        };
        let status = response.code.unwrap_or_default();
        if status != 101 {
            let reason = response.reason.unwrap_or_default();
            let body = String::from_utf8_lossy(&head[length..]);
            let body = body.lines().next().unwrap_or_default();
            let body = if body.is_empty() { String::new() } else { format!(": {body}") };
            return Err(format!("refused with {status} {reason}{body}"));
        }
        let values = |name: &str| {
            let name = name.to_owned();
            let fits =
                move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(&name);
            response.headers.iter().filter(fits).map(|header| header.value.trim_ascii())
        };
        let has_token = |name: &str, token: &str| {
            values(name)
                .flat_map(|value| value.split(|byte| *byte == b','))
                .any(|word| word.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        };
        if !has_token("upgrade", "websocket") || !has_token("connection", "upgrade") {
            return Err("a 101 without `Upgrade: websocket` and `Connection: Upgrade`".to_owned());
        }
        if !values("sec-websocket-accept").eq([self.accept.as_bytes()]) {
            return Err("a 101 with a wrong `Sec-WebSocket-Accept`".to_owned());
        }
        for name in ["sec-websocket-extensions", "sec-websocket-protocol"] {
            if values(name).next().is_some() {
                return Err(format!("a 101 with `{name}`, which was not asked for"));
            }
        }
        Ok(Some(length))
    }
}

fn base64(bytes: [u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let number = u128::from_be_bytes(bytes);
    // 21 digits of six bits, and one of the last two.
    let digit = |at: u32| match at {
        21 => number << 4 & 63,
        _ => number >> (122 - 6 * at) & 63,
    };
    let digits = (0..22).map(|at| char::from(DIGITS[digit(at) as usize % 64]));
    digits.chain(['=', '=']).collect()
}

#[cfg(test)]
mod tests {
    use super::{Upgrade, base64};

    fn upgrade() -> Upgrade {
        Upgrade::new(&"ws://example.com:81/a?b".parse().expect("a URL"), 1)
    }

    fn answer(status: &str, headers: &[&str]) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\n{}\r\n\r\n", headers.join("\r\n")).into_bytes()
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert_eq!(base64(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(base64([255; 16]), "/////////////////////w==");
    }

    #[test]
    fn only_the_right_answer_is_accepted_whenever_it_comes() {
        let upgrade = upgrade();
        assert!(upgrade.request.starts_with(b"GET /a?b HTTP/1.1\r\nHost: example.com:81\r\n"));
        let accept = format!("sec-websocket-ACCEPT: {}", upgrade.accept);
        let right = ["Upgrade: WebSocket", "connection: keep-alive, Upgrade", &accept];
        let head = answer("101 Switching Protocols", &right);
        for length in 0..head.len() {
            assert_eq!(upgrade.check(&head[..length]), Ok(None));
        }
        let mut more = head.clone();
        more.extend(b"\x81\x00");
        assert_eq!(upgrade.check(&more), Ok(Some(head.len())));

        for (headers, word) in [
            (vec![right[0], right[1]], "Accept"),
            (vec![right[0], right[1], "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+"], "Accept"),
            (vec![right[0], right[1], &accept, &accept], "Accept"),
            (vec![right[0], &accept], "Connection"),
            (vec!["Upgrade: h2c", right[1], &accept], "Upgrade"),
            (vec![right[0], right[1], &accept, "Sec-WebSocket-Extensions: x"], "extensions"),
            (vec![right[0], right[1], &accept, "Sec-WebSocket-Protocol: x"], "protocol"),
        ] {
            let error = upgrade.check(&answer("101 x", &headers)).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
        let mut refusal = answer("403 Forbidden", &["Content-Length: 9"]);
        refusal.extend(b"not you\n");
        let error = upgrade.check(&refusal).expect_err("a refusal");
        assert_eq!(error, "refused with 403 Forbidden: not you");
        let error = upgrade.check(b"SSH-2.0-OpenSSH_9\r\n").expect_err("not HTTP");
        assert!(error.contains("not HTTP"), "{error}");
        assert!(upgrade.check(&[b'a'; 20_000]).is_err());
    }
}
