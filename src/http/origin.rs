//! [`Origins`]: the web pages whose scripts may open connections (RFC 6455 section 10.2).

/// Whose upgrades are granted. A request without `Origin` does not come from a page, and passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origins {
    /// Pages of the server's own host.
    #[default]
    Own,
    /// Pages of the server's own host, and these.
    Listed(Vec<Box<str>>),
    /// All pages.
    Any,
}

impl Origins {
    /// Adds an origin to those that are allowed.
    pub(crate) fn allow(&mut self, origin: &str) {
        match self {
            Self::Own => *self = Self::Listed(vec![origin.into()]),
            Self::Listed(origins) => origins.push(origin.into()),
            Self::Any => {}
        }
    }
}
