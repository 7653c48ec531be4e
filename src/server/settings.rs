//! [`Settings`]: what a router or an endpoint says about itself and all within it.
//!
//! Knows dependencies, limits and origins. Must not know routers, endpoints or paths.

use crate::config::Limits;
use crate::handler::{RequiredType, Values};
use crate::http::Origins;

type Adjust = dyn FnOnce(&mut Limits) + Send;

/// What a router or an endpoint says about itself and all within it.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) dependencies: Values,
    pub(super) required: Vec<RequiredType>,
    pub(super) adjustments: Vec<Box<Adjust>>,
    /// `None`: as outside.
    pub(super) origins: Option<Origins>,
}

impl Settings {
    pub(super) fn allow_origin(&mut self, origin: String) {
        self.origins.get_or_insert_default().allow(origin);
    }
}
