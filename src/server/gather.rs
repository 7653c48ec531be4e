//! From routers within routers to the flat lists that a shard serves: full paths, and for every
//! endpoint all that it inherits.
//!
//! Knows routers, endpoints and the tables that a shard serves. Must not know addresses, threads or
//! connections.

use std::collections::HashMap;

use super::router::Item;
use super::settings::Settings;
use super::{Endpoint, Router};
use crate::config::Limits;
use crate::error::Error;
use crate::handler::{Dependencies, Place, RequiredType, Values};
use crate::http::{Origins, Response};
use crate::hub::EndpointIndex;
use crate::routing::{Routes, names};
use crate::shard::{EndpointLimits, LimitTable, Page, ServedEndpoint};

/// What holds at some place, with all that is inherited.
#[derive(Clone)]
struct Inherited {
    values: Values,
    required: Vec<RequiredType>,
    limits: Limits,
    origins: Origins,
}

impl Inherited {
    /// What holds within, where these settings are nearer.
    fn with(&self, settings: Settings) -> Result<Self, Error> {
        let mut inner = self.clone();
        inner.values.overlay(settings.dependencies);
        inner.required.extend(settings.required);
        for adjust in settings.adjustments {
            adjust(&mut inner.limits);
        }
        if let Some(origins) = settings.origins {
            origins.validate()?;
            inner.origins = origins;
        }
        Ok(inner)
    }
}

/// All that a server serves.
pub(super) struct Gathered {
    pub(super) endpoints: Vec<ServedEndpoint>,
    pub(super) routes: Routes,
    pub(super) pages: Vec<Page>,
    /// The endpoints by their full path.
    pub(super) paths: HashMap<String, EndpointIndex>,
    pub(super) limits: LimitTable,
}

impl Gathered {
    /// Adds the page that tells whether the server is ready: its index, and what it says otherwise.
    pub(super) fn add_readiness(&mut self, path: &str) -> Result<(usize, Page), Error> {
        let page = |status, text| {
            let response = Response::new(status).with_text(text);
            Page::new(&response.with("Cache-Control", "no-store"))
        };
        let index = self.pages.len();
        self.routes.add_page(path, index)?;
        self.pages.push(page(200, "ready"));
        Ok((index, page(503, "shutting down")))
    }
}

/// Flattens what is served, and finds the mistakes in it.
pub(super) fn gather(root: Router, limits: Limits) -> Result<Gathered, Error> {
    if let Some(rule) = limits.broken_rule() {
        return Err(Error::Limits(rule));
    }
    let mut list = List {
        endpoints: Vec::new(),
        pages: Vec::new(),
        routes: Routes::default(),
        paths: HashMap::new(),
        limits: Vec::new(),
        server_limits: limits.clone(),
    };
    let outermost = Inherited {
        values: Values::default(),
        required: Vec::new(),
        limits,
        origins: Origins::default(),
    };
    list.add_router("", root, &outermost)?;
    Ok(Gathered {
        endpoints: list.endpoints,
        routes: list.routes,
        pages: list.pages,
        paths: list.paths,
        limits: LimitTable::new(list.limits, list.server_limits),
    })
}

/// What was gathered so far.
struct List {
    endpoints: Vec<ServedEndpoint>,
    pages: Vec<Page>,
    routes: Routes,
    paths: HashMap<String, EndpointIndex>,
    limits: Vec<Limits>,
    server_limits: Limits,
}

impl List {
    fn add_router(&mut self, prefix: &str, router: Router, outer: &Inherited) -> Result<(), Error> {
        let inherited = outer.with(router.settings)?;
        for (path, item) in router.items {
            let path = join(prefix, &path)?;
            match item {
                Item::Endpoint(endpoint) => self.add_endpoint(path, endpoint, &inherited)?,
                Item::Page(page) => self.add_page(&path, &page)?,
                Item::Router(router) => {
                    let prefix = path.strip_suffix('/').unwrap_or(&path);
                    self.add_router(prefix, router, &inherited)?;
                }
            }
        }
        Ok(())
    }

    fn add_page(&mut self, path: &str, page: &Response) -> Result<(), Error> {
        self.routes.add_page(path, self.pages.len())?;
        self.pages.push(Page::new(page));
        Ok(())
    }

    fn add_endpoint(
        &mut self,
        path: String,
        endpoint: Endpoint,
        outer: &Inherited,
    ) -> Result<(), Error> {
        let Endpoint { handler, settings, checks } = endpoint;
        let Inherited { values, required, limits, origins } = outer.with(settings)?;
        // The last index is that of connections without an endpoint.
        let index = match EndpointIndex::try_from(self.endpoints.len()) {
            Ok(index) if index < EndpointIndex::MAX => index,
            _ => {
                let problem = "there are too many endpoints".to_owned();
                return Err(Error::Path { path, problem });
            }
        };
        self.routes.add_endpoint(&path, index)?;
        let is_unknown = |name: &str| names(&path).all(|known| known != name);
        let mut in_path = checks.iter().filter(|check| check.place == Place::Path);
        if let Some(check) = in_path.find(|check| is_unknown(&check.name)) {
            let problem = format!("it has no parameter {:?}, which is required", check.name);
            return Err(Error::Path { path, problem });
        }
        if let Some(missing) = required.iter().find(|required| !values.holds(required)) {
            return Err(Error::Dependency { path, type_name: missing.name });
        }
        let unshared = "what counts for the server alone is not adjusted";
        let broken_rule = limits
            .broken_rule()
            .or_else(|| (!limits.is_same_server(&self.server_limits)).then_some(unshared));
        if let Some(rule) = broken_rule {
            return Err(Error::EndpointLimits { path, rule });
        }
        let dependencies = Dependencies::new(values);
        let endpoint_limits = EndpointLimits::new(&limits);
        self.endpoints.push(ServedEndpoint {
            handler,
            dependencies,
            endpoint_limits,
            checks,
            origins,
        });
        self.limits.push(limits);
        self.paths.insert(path, index);
        Ok(())
    }
}

/// The full path of what stands at `path` within `prefix`, which has no slash at its end. `/` is
/// the prefix itself.
fn join(prefix: &str, path: &str) -> Result<String, Error> {
    if !path.starts_with('/') {
        let problem = "it does not begin with a slash".to_owned();
        return Err(Error::Path { path: path.to_owned(), problem });
    }
    if path == "/" && !prefix.is_empty() {
        return Ok(prefix.to_owned());
    }
    Ok(format!("{prefix}{path}"))
}
