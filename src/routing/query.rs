//! [`Query`]: the parameters behind a path's `?`.
//!
//! Knows how HTML forms encode names and values. Must not know requests.

use std::fmt;

/// The query parameters of a request, decoded as HTML forms encode them: percent-decoding, `+` as
/// space. Repeated names stay, in order.
///
/// ```
/// use peregrine::Query;
///
/// let query = Query::new("name=J%C3%BCrgen+B&tag=a&tag=b");
/// assert_eq!(query.get("name"), Some("Jürgen B"));
/// assert_eq!(query.get_all("tag").collect::<Vec<_>>(), ["a", "b"]);
/// assert_eq!(query.get("missing"), None);
/// assert_eq!(query.iter().last(), Some(("tag", "b")));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// All names and values, decoded, each with [`END`] behind it. `None` if there are none.
    parts: Option<Box<[u8]>>,
}

/// Ends a name or a value. No text holds this byte, because UTF-8 does not.
const END: u8 = 0xFF;

impl Query {
    pub(crate) const EMPTY: &'static Self = &Self { parts: None };

    /// Decodes what stands behind the `?`. Anything is a query: there are no errors.
    ///
    /// Cost: two allocations, none if there are no parameters.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            // As long as the text, and one byte more, unless it has bytes that are no UTF-8.
            parts.reserve_exact((text.len() + 1).saturating_sub(parts.len()));
            for part in [name, value] {
                parts.extend_from_slice(part.as_bytes());
                parts.push(END);
            }
        }
        Self { parts: (!parts.is_empty()).then(|| parts.into()) }
    }

    /// The first value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// All values of that name, in order.
    pub fn get_all<'q>(&'q self, name: &str) -> impl Iterator<Item = &'q str> {
        self.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All names with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.parts.as_deref().unwrap_or_default().split(|&byte| byte == END);
        let mut part = move || str::from_utf8(parts.next()?).ok();
        // Behind the last value stands an empty part without a value.
        std::iter::from_fn(move || Some((part()?, part()?)))
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_none()
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
