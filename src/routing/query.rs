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
    /// All names and values, decoded, one behind another.
    text: String,
    /// Where each name ends in the text, and where its value ends.
    ends: Vec<(usize, usize)>,
}

impl Query {
    pub(crate) const EMPTY: &'static Self = &Self { text: String::new(), ends: Vec::new() };

    /// Decodes what stands behind the `?`. Anything is a query: there are no errors.
    ///
    /// Cost: two allocations, none if the text is empty.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let (mut decoded, mut ends) = (String::with_capacity(text.len()), Vec::new());
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            decoded.push_str(&name);
            let name_end = decoded.len();
            decoded.push_str(&value);
            ends.push((name_end, decoded.len()));
        }
        Self { text: decoded, ends }
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
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let pair = (&self.text[start..name_end], &self.text[name_end..end]);
            start = end;
            pair
        })
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
