//! From a path to what is served there.
//!
//! Knows paths; must not know connections.

mod query;

use matchit::{InsertError, Router};

pub use self::query::Query;
use crate::error::Error;
use crate::hub::EndpointIndex;

/// What is served at one path: an endpoint, a page, or both (a page for those who do not upgrade).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Route {
    pub(crate) endpoint: Option<EndpointIndex>,
    /// The index of the page.
    pub(crate) page: Option<usize>,
}

/// All routes of a server.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    router: Router<Route>,
}

impl Routes {
    pub(crate) fn add_endpoint(&mut self, path: &str, index: EndpointIndex) -> Result<(), Error> {
        self.add(path, |route| &mut route.endpoint, index)
    }

    pub(crate) fn add_page(&mut self, path: &str, index: usize) -> Result<(), Error> {
        self.add(path, |route| &mut route.page, index)
    }

    /// Puts `index` into the `place` of the route at `path`, unless that is taken.
    fn add<T>(
        &mut self,
        path: &str,
        place: impl FnOnce(&mut Route) -> &mut Option<T>,
        index: T,
    ) -> Result<(), Error> {
        let refuse = |problem: String| Error::Path { path: path.to_owned(), problem };
        if !path.starts_with('/') {
            return Err(refuse("it does not begin with a slash".to_owned()));
        }
        if path.contains(['{', '}', '?', '#']) {
            return Err(refuse("it holds one of the characters {, }, ?, #".to_owned()));
        }
        if let Ok(found) = self.router.at_mut(path) {
            let place = place(found.value);
            if place.is_some() {
                return Err(refuse("it is taken".to_owned()));
            }
            *place = Some(index);
            return Ok(());
        }
        let mut route = Route::default();
        *place(&mut route) = Some(index);
        self.router.insert(path, route).map_err(|error: InsertError| refuse(error.to_string()))
    }

    pub(crate) fn find(&self, path: &str) -> Option<Route> {
        self.router.at(path).ok().map(|found| *found.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_serves_one_endpoint_and_one_page() {
        let mut routes = Routes::default();
        assert!(routes.add_endpoint("/chat", 0).is_ok());
        assert!(routes.add_page("/chat", 0).is_ok());
        assert!(matches!(routes.add_endpoint("/chat", 1), Err(Error::Path { .. })));
        assert!(matches!(routes.add_page("/chat", 1), Err(Error::Path { .. })));
        let route = routes.find("/chat").expect("a route");
        assert_eq!((route.endpoint, route.page), (Some(0), Some(0)));
        assert!(routes.find("/chat/").is_none() && routes.find("/Chat").is_none());
    }

    #[test]
    fn malformed_paths_are_refused() {
        let mut routes = Routes::default();
        for path in ["", "chat", "/a?b", "/{id}", "/a#b"] {
            assert!(matches!(routes.add_page(path, 0), Err(Error::Path { .. })), "{path:?}");
        }
    }
}
