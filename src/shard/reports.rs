//! [`Reports`]: what the log says about clients, and about handlers that serve them. A client could
//! repeat any of it at will. So each [`Kind`] gets one line at once, and then at most one line in
//! ten seconds, which gives the last example and says how many there were.
//!
//! Knows kinds, texts and times. Must not know connections.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use log::Level;

use crate::error::Refusal;
use crate::hub::EndpointIndex;

/// The shortest time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(10);
/// The longest example, in bytes. What a client chooses stands at its end, or is a [`Quote`].
const EXAMPLE_BYTES: usize = 512;
/// The most of a request that is quoted, in bytes.
const QUOTE_BYTES: usize = 128;

/// What is reported. Each kind has lines of its own; there are so many kinds as there are endpoints
/// and reasons, whatever clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) enum Kind {
    /// The server refused a request.
    Refused(Refusal),
    /// A page of another origin asked for an upgrade to this endpoint.
    Origin(EndpointIndex),
    /// The handler of this endpoint rejected an upgrade.
    Rejected(EndpointIndex),
    /// A connection had no place, not even one over the limit.
    Dropped,
    /// The listener rests, because descriptors or memory have run out.
    Rests,
    /// A socket could not be accepted.
    NotAccepted,
    /// A handler of this endpoint panicked.
    Panicked(EndpointIndex),
    /// `on_upgrade` of this endpoint panicked.
    UpgradePanicked(EndpointIndex),
    /// What belongs to a connection of this endpoint panicked when it was dropped.
    DropPanicked(EndpointIndex),
    /// What offloaded work returned panicked when it was dropped.
    OffloadPanicked,
    /// A handler of this endpoint kept its shard for long.
    Slow(EndpointIndex),
    /// The pool for offloaded work had no room for this endpoint's.
    PoolFull(EndpointIndex),
    /// The handler of this endpoint named a subprotocol that the client had not offered.
    NotOffered(EndpointIndex),
    /// `on_upgrade` of this endpoint handed on a header that cannot be sent.
    BadHeader(EndpointIndex),
    /// Work that a handler of this endpoint had left to be done was cut.
    Cancelled(EndpointIndex),
    /// `Hub::subscribe` found a connection of this endpoint with too many topics.
    TooManyTopics(EndpointIndex),
    /// The server closed a connection of this endpoint with this code.
    Closed(EndpointIndex, u16),
}

impl Kind {
    fn level(self) -> Level {
        match self {
            Self::Panicked(_)
            | Self::UpgradePanicked(_)
            | Self::DropPanicked(_)
            | Self::OffloadPanicked
            | Self::NotOffered(_)
            | Self::BadHeader(_) => Level::Error,
            Self::Origin(_)
            | Self::Dropped
            | Self::Rests
            | Self::Slow(_)
            | Self::Cancelled(_)
            | Self::PoolFull(_)
            | Self::TooManyTopics(_) => Level::Warn,
            // A server that lacks something; else the client's fault, which any scanner commits.
            Self::Refused(refusal) if matches!(refusal.status().0, 429 | 503) => Level::Warn,
            Self::Refused(_) => Level::Info,
            Self::Rejected(_) | Self::NotAccepted | Self::Closed(..) => Level::Debug,
        }
    }
}

/// What has happened and is not in the log yet.
#[derive(Debug, Default)]
pub(in crate::shard) struct Reports(BTreeMap<Kind, Unreported>);

/// The cases of one kind since its last line.
#[derive(Debug)]
struct Unreported {
    reported_at: Instant,
    count: u64,
    /// The last case; empty while there is none.
    example: String,
}

impl Reports {
    /// Reports one case, at once or in a summary. Returns when the summary is due, which
    /// [`summarise`](Self::summarise) writes.
    #[must_use]
    pub(in crate::shard) fn add(
        &mut self,
        now: Instant,
        kind: Kind,
        case: fmt::Arguments<'_>,
    ) -> Option<Instant> {
        let level = kind.level();
        if !log::log_enabled!(level) {
            return None;
        }
        let Some(unreported) = self.0.get_mut(&kind) else {
            let mut example = String::new();
            Example(&mut example).set(case);
            log::log!(level, "{example}");
            example.clear();
            self.0.insert(kind, Unreported { reported_at: now, count: 0, example });
            // Then this entry is dropped, or a summary written.
            return Some(now + INTERVAL);
        };
        unreported.count += 1;
        Example(&mut unreported.example).set(case);
        Some(unreported.reported_at + INTERVAL)
    }

    /// Writes the summaries that are due. Returns when the next one is.
    pub(in crate::shard) fn summarise(&mut self, now: Instant) -> Option<Instant> {
        self.0.retain(|kind, unreported| {
            if now < unreported.reported_at + INTERVAL {
                return true;
            }
            let is_over = unreported.count == 0;
            unreported.report(*kind, now);
            !is_over
        });
        self.0.values().map(|unreported| unreported.reported_at + INTERVAL).min()
    }

    /// Writes all summaries, due or not: nothing more will happen.
    pub(in crate::shard) fn finish(&mut self, now: Instant) {
        for (kind, mut unreported) in std::mem::take(&mut self.0) {
            unreported.report(kind, now);
        }
    }
}

impl Unreported {
    fn report(&mut self, kind: Kind, now: Instant) {
        let Self { reported_at, count, example } = self;
        let seconds = now.saturating_duration_since(*reported_at).as_secs_f64();
        match *count {
            0 => {}
            1 => log::log!(kind.level(), "{example}"),
            count => {
                log::log!(kind.level(), "{example} (the last of {count} in {seconds:.0} s)");
            }
        }
        (*reported_at, *count) = (now, 0);
        example.clear();
    }
}

/// An example as it is written: bounded, and without control characters.
struct Example<'e>(&'e mut String);

impl Example<'_> {
    fn set(&mut self, case: fmt::Arguments<'_>) {
        self.0.clear();
        if self.write_fmt(case).is_err() {
            self.0.push('…');
        }
    }
}

impl Write for Example<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() + c.len_utf8() > EXAMPLE_BYTES {
                return Err(fmt::Error);
            }
            self.0.push(if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
        }
        Ok(())
    }
}

/// The beginning of what a client has sent, or the path that it asked for: escaped, of bounded
/// length, without what may be a secret: the query, a fragment, and a user with a password.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Quote<'b>(pub(in crate::shard) &'b [u8]);

impl fmt::Display for Quote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.trim_ascii_start();
        let end = bytes.iter().position(|byte| b"?#\r\n".contains(byte)).unwrap_or(bytes.len());
        let end = user_at(&bytes[..end]).unwrap_or(end);
        let quoted = &bytes[..end.min(QUOTE_BYTES)];
        let more = if quoted.len() < end { "…" } else { "" };
        write!(f, "\"{}{more}\"", quoted.escape_ascii())
    }
}

/// Where a user stands, perhaps with a password, in a target such as `ws://user:password@host/`.
fn user_at(line: &[u8]) -> Option<usize> {
    let start = line.windows(3).position(|bytes| bytes == b"://")? + 3;
    let authority = line[start..].split(|byte| b"/ ".contains(byte)).next()?;
    authority.contains(&b'@').then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_escaped_cut_and_without_its_query() {
        let long = format!("/{}", "x".repeat(QUOTE_BYTES));
        for (said, quoted) in [
            ("/chat", "\"/chat\""),
            ("/chat?token=secret", "\"/chat\""),
            ("/chat#token=secret", "\"/chat\""),
            ("GET /chat?token=secret HTTP/1.1\r\nHost: a\r\n", "\"GET /chat\""),
            ("\r\n\r\nGET / HTTP/1.1\r\n", "\"GET / HTTP/1.1\""),
            ("GET ws://ann:secret@host/ HTTP/1.1\r\n", "\"GET ws://\""),
            ("GET ws://host/@ann HTTP/1.1\r\n", "\"GET ws://host/@ann HTTP/1.1\""),
            ("\x16\x03\x01\"", r#""\x16\x03\x01\"""#),
            ("", "\"\""),
            (&long, &format!("\"{}…\"", &long[..QUOTE_BYTES])),
        ] {
            assert_eq!(Quote(said.as_bytes()).to_string(), quoted, "{said:?}");
        }
    }

    #[test]
    fn an_example_is_bounded_and_holds_no_control_characters() {
        let mut example = String::new();
        Example(&mut example).set(format_args!("a\r\nb\u{85}c{}", "é".repeat(EXAMPLE_BYTES)));
        assert!(example.starts_with("a\u{fffd}\u{fffd}b\u{fffd}cé") && example.ends_with("é…"));
        assert!(example.len() <= EXAMPLE_BYTES + '…'.len_utf8() && !example.contains('\n'));
    }
}
