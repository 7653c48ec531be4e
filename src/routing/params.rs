//! [`Params`]: what stood in a path's places, and the names of these places.

use percent_encoding::percent_decode_str;

/// The parameters of a request's path, percent-decoded (RFC 3986 section 2.1). What is not UTF-8
/// then is replaced by U+FFFD.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    pairs: Box<[(Box<str>, Box<str>)]>,
}

impl Params {
    pub(super) fn new(found: &matchit::Params<'_, '_>) -> Self {
        let decoded = |value| percent_decode_str(value).decode_utf8_lossy();
        let pairs = found.iter().map(|(name, value)| (name.into(), decoded(value).into()));
        Self { pairs: pairs.collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The value of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(key, _)| **key == *name)?;
        Some(value)
    }
}

/// The names of a pattern's parameters, in order. Doubled braces are literal.
pub(crate) fn names(pattern: &str) -> impl Iterator<Item = &str> {
    let mut rest = pattern;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('{')?;
            if let Some(literal) = after.strip_prefix('{') {
                rest = literal;
                continue;
            }
            let (name, after) = after.split_once('}')?;
            rest = after;
            return Some(name.strip_prefix('*').unwrap_or(name));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_between_single_braces() {
        let names_of = |pattern| names(pattern).collect::<Vec<_>>();
        assert_eq!(names_of("/rooms/{room}/files/{*path}"), ["room", "path"]);
        assert_eq!(names_of("/{{not}}/{{{a}}}/{b}.json"), ["a", "b"]);
        assert!(names_of("/plain").is_empty() && names_of("/{open").is_empty());
    }
}
