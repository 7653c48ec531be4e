//! [`Check`]: what an endpoint demands of a request before its handler is asked.

use std::borrow::Cow;
use std::str::FromStr;

use super::Request;
use crate::http::Response;

/// A parameter that must be there, and must be of its type.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) place: Place,
    pub(crate) name: Cow<'static, str>,
    parses: fn(&str) -> bool,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
}

impl Check {
    pub(crate) fn new<T: FromStr>(place: Place, name: Cow<'static, str>) -> Self {
        Self { place, name, parses: |text| text.parse::<T>().is_ok() }
    }

    /// Status 400 for a request that does not pass.
    pub(crate) fn refuse(&self, request: &Request<'_>) -> Option<Response> {
        let (place, value) = match self.place {
            Place::Path => ("path", request.param(&self.name)),
            Place::Query => ("query", request.query(&self.name)),
        };
        let fault = match value {
            Some(text) if (self.parses)(text) => return None,
            Some(_) => "malformed",
            None => "missing",
        };
        let text = format!("The {place} parameter {:?} is {fault}.", self.name);
        Some(Response::new(400).with_text(text))
    }
}
