//! [`Query`]: the parameters behind a path's `?`.

use std::borrow::Cow;
use std::fmt;

/// The query parameters of a request, decoded as HTML forms encode them: percent-decoding, `+` as
/// space, repeated names kept in order. Nothing is parsed before it is asked for.
///
/// It is an iterator over all name-value pairs.
///
/// ```
/// use peregrine::Query;
///
/// let query = Query::new("name=J%C3%BCrgen+B&tag=a&tag=b");
/// assert_eq!(query.first("name").as_deref(), Some("Jürgen B"));
/// assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b"]);
/// assert_eq!(query.first("missing"), None);
/// assert_eq!(query.count(), 3);
/// ```
#[derive(Clone, Copy)]
pub struct Query<'q> {
    pairs: form_urlencoded::Parse<'q>,
}

impl<'q> Query<'q> {
    /// Parses what stands behind the `?`. Anything is a query: there are no errors.
    #[must_use]
    pub fn new(text: &'q str) -> Self {
        Self { pairs: form_urlencoded::parse(text.as_bytes()) }
    }

    /// The first value of that name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<Cow<'q, str>> {
        self.all(name).next()
    }

    /// All values of that name, in order.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = Cow<'q, str>> + use<'q, 'n> {
        self.pairs.filter(move |(key, _)| key == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(*self).finish()
    }
}

impl<'q> Iterator for Query<'q> {
    type Item = (Cow<'q, str>, Cow<'q, str>);

    fn next(&mut self) -> Option<Self::Item> {
        self.pairs.next()
    }
}
