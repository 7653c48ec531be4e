//! [`Dependencies`]: the values that an endpoint's handler finds by their type.
//!
//! Knows types and their values. Must not know handlers, endpoints or shards.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// At most one value of each type.
#[derive(Clone, Default)]
pub(crate) struct Values(BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("count", &self.0.len()).finish_non_exhaustive()
    }
}

impl Values {
    /// Adds a value, in place of any other of its type.
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// Adds those of `nearer`, in place of any of the same types.
    pub(crate) fn overlay(&mut self, nearer: Self) {
        self.0.extend(nearer.0);
    }

    pub(crate) fn holds(&self, required: &RequiredType) -> bool {
        self.0.contains_key(&required.id)
    }

    fn find<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// What the handler of one endpoint can find.
#[derive(Debug)]
pub(crate) struct Dependencies {
    /// The nearest value of each type, the server's included.
    values: Values,
}

impl Dependencies {
    pub(crate) fn new(values: Values) -> Self {
        Self { values }
    }

    pub(crate) fn find<T: 'static>(&self) -> Option<&T> {
        self.values.find()
    }

    /// The nearest value of the type; panics if there is none.
    pub(crate) fn expect<T: 'static>(&self) -> &T {
        self.values.find().unwrap_or_else(|| {
            let name = type_name::<T>();
            panic!(
                "there is no dependency of the type {name}: give one with `dependency`; with \
                 `requires::<{name}>()` the server would not have started"
            )
        })
    }
}

/// A type of which there must be a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequiredType {
    id: TypeId,
    pub(crate) name: &'static str,
}

impl RequiredType {
    pub(crate) fn of<T: 'static>() -> Self {
        Self { id: TypeId::of::<T>(), name: type_name::<T>() }
    }
}
