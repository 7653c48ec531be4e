//! From a path to what is served there.
//!
//! Knows paths; must not know connections.

mod params;
mod pattern;
mod query;

use std::collections::HashMap;

use matchit::{InsertError, Router};

pub(crate) use self::params::{Params, names};
pub use self::query::Query;
use crate::error::Error;
use crate::hub::EndpointIndex;

/// What is served at one path: an endpoint, a page, or both (the page is for requests without an
/// upgrade).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Route {
    pub(crate) endpoint: Option<EndpointIndex>,
    /// The index of the page.
    pub(crate) page: Option<usize>,
}

/// All routes of a server, by pattern: `/rooms/{room}`, `/files/{*path}`, braces doubled where they
/// are meant.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// From a path, in the form that is compared, to the index of its route.
    router: Router<usize>,
    routes: Vec<Route>,
    /// In the same form.
    patterns: HashMap<String, usize>,
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
        let refuse = |problem: &str| Error::Path { path: path.to_owned(), problem: problem.into() };
        let pattern = pattern::canonical_pattern(path).map_err(|problem| refuse(&problem))?;
        let route = match self.patterns.get(&pattern) {
            Some(&route) => route,
            None => {
                let route = self.routes.len();
                self.router
                    .insert(&*pattern, route)
                    .map_err(|error: InsertError| refuse(&error.to_string()))?;
                self.patterns.insert(pattern, route);
                self.routes.push(Route::default());
                route
            }
        };
        let place = place(&mut self.routes[route]);
        if place.is_some() {
            return Err(refuse("it is taken"));
        }
        *place = Some(index);
        Ok(())
    }

    /// What is served at a path, and the parameters that it holds if an endpoint is.
    pub(crate) fn find(&self, path: &str) -> Option<(Route, Params)> {
        let path = pattern::canonical(path);
        let found = self.router.at(&path).ok()?;
        let route = self.routes[*found.value];
        let params = match route.endpoint {
            Some(_) if !found.params.is_empty() => Params::new(&found.params),
            _ => Params::default(),
        };
        Some((route, params))
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_serves_one_endpoint_and_one_page() {
        let mut routes = Routes::default();
        for path in ["/chat", "/rooms/{room}", "/{{literal}}"] {
            assert!(routes.add_endpoint(path, 0).is_ok());
            assert!(routes.add_page(path, 0).is_ok());
            assert!(matches!(routes.add_endpoint(path, 1), Err(Error::Path { .. })));
            assert!(matches!(routes.add_page(path, 1), Err(Error::Path { .. })));
        }
        for path in ["/chat", "/rooms/7", "/{literal}"] {
            let (route, _) = routes.find(path).expect("a route");
            assert_eq!((route.endpoint, route.page), (Some(0), Some(0)), "{path}");
        }
        assert!(routes.find("/chat/").is_none() && routes.find("/Chat").is_none());
    }

    #[test]
    fn what_is_literal_goes_before_what_is_a_parameter() {
        let mut routes = Routes::default();
        for (index, path) in ["/{*rest}", "/rooms/{room}", "/rooms/lobby"].iter().enumerate() {
            let index = EndpointIndex::try_from(index).expect("few endpoints");
            assert!(routes.add_endpoint(path, index).is_ok(), "{path}");
        }
        for (path, index, name, value) in [
            ("/rooms/lobby", 2, "room", None),
            ("/rooms/a%20b", 1, "room", Some("a b")),
            ("/rooms/%FF", 1, "room", Some("\u{FFFD}")),
            ("/rooms/a/b", 0, "rest", Some("rooms/a/b")),
            ("/elsewhere", 0, "rest", Some("elsewhere")),
        ] {
            let (route, params) = routes.find(path).expect("a route");
            assert_eq!(route.endpoint, Some(index), "{path}");
            assert_eq!(params.find(name), value, "{path}");
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        let mut routes = Routes::default();
        for path in
            ["", "chat", "/a?b", "/{", "/{}", "/{a}-{b}", "/{*a}/b", "/{a}/{a}", "/{a/b}", "/a#b"]
        {
            assert!(matches!(routes.add_page(path, 0), Err(Error::Path { .. })), "{path:?}");
        }
    }

    #[test]
    fn two_names_for_one_place_are_refused() {
        let mut routes = Routes::default();
        assert!(routes.add_endpoint("/rooms/{room}", 0).is_ok());
        for path in ["/rooms/{id}", "/rooms/{*rest}"] {
            assert!(matches!(routes.add_page(path, 0), Err(Error::Path { .. })), "{path:?}");
        }
    }
}
