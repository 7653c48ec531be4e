//! What a shard reports about its connections and their handlers, each within the bounds of
//! [`Reports`](crate::shard::reports::Reports).
//!
//! Knows connections and the words of the log. Must not know how often a line is written.

use std::fmt;

use log::Level;

use super::Shard;
use crate::error::HeaderError;
use crate::hub::Slot;
use crate::message::{Close, ClosedBy};
use crate::panics::discard;
use crate::shard::reports::Kind;

impl Shard {
    /// Reports one case.
    #[cold]
    pub(in crate::shard) fn report(&mut self, kind: Kind, case: fmt::Arguments<'_>) {
        if let Some(due) = self.reports.add(self.now, kind, case) {
            self.wheel.look_at(due);
        }
    }

    /// Writes the summaries that are due. The wheel has expired at this time.
    pub(super) fn summarise(&mut self) {
        if let Some(due) = self.reports.summarise(self.now) {
            self.wheel.look_at(due);
        }
    }

    /// Writes the last summaries: the shard has ended.
    pub(in crate::shard) fn finish_reports(&mut self) {
        self.reports.finish(self.now);
    }

    /// The path of the endpoint that serves the connection, or is asked to.
    pub(in crate::shard) fn path_for(&self, slot: Slot) -> String {
        self.hub.path_of(self.connections[slot].asked()).to_owned()
    }

    /// `on_upgrade` panicked; the connection gets status 500.
    pub(in crate::shard) fn report_upgrade_panic(&mut self, slot: Slot) {
        let connection = &self.connections[slot];
        let (endpoint, client) = (connection.asked(), connection.client_ip());
        let path = self.path_for(slot);
        self.report(
            Kind::UpgradePanicked(endpoint),
            format_args!("on_upgrade of {path} panicked; the request of {client} gets 500"),
        );
    }

    /// The handler has named a subprotocol that the client had not offered.
    pub(in crate::shard) fn report_not_offered(&mut self, slot: Slot, name: &str) {
        let (kind, path) = (Kind::NotOffered(self.connections[slot].asked()), self.path_for(slot));
        self.report(
            kind,
            format_args!(
                "on_upgrade of {path} named a subprotocol that the client had not offered, so it \
                 is not answered: {name:?}"
            ),
        );
    }

    /// `on_upgrade` has handed on a header that cannot be sent; the connection gets status 500.
    pub(in crate::shard) fn report_failed_upgrade(&mut self, slot: Slot, error: &HeaderError) {
        let (kind, path) = (Kind::BadHeader(self.connections[slot].asked()), self.path_for(slot));
        self.report(kind, format_args!("on_upgrade of {path}: {error}; the request gets 500"));
    }

    /// Work that a handler has left to be done is cut: its time is over.
    pub(in crate::shard) fn report_cancelled(&mut self, slot: Slot) {
        let (kind, path) =
            (Kind::Cancelled(self.connections[slot].endpoint()), self.path_for(slot));
        let id = self.id(slot);
        self.report(
            kind,
            format_args!(
                "work that a handler of {path} left to be done was cut: connection {id} has ended \
                 and the time for the work is over"
            ),
        );
    }

    /// The pool for offloaded work is full; the connection is closed, or its upgrade refused.
    pub(in crate::shard) fn report_full_pool(&mut self, slot: Slot) {
        let connection = &self.connections[slot];
        let (endpoint, client) = (connection.asked(), connection.client_ip());
        let fate = if connection.has_opened() { "is closed with 1013" } else { "gets 503" };
        let path = self.path_for(slot);
        self.report(
            Kind::PoolFull(endpoint),
            format_args!("the pool for offloaded work is full; {client} at {path} {fate}"),
        );
    }

    /// The server closes a connection, for what its client has done or left undone.
    pub(in crate::shard) fn report_close(&mut self, slot: Slot, close: &Close) {
        if close.by() != ClosedBy::Server || !log::log_enabled!(Level::Debug) {
            return;
        }
        let connection = &self.connections[slot];
        let (endpoint, client) = (connection.endpoint(), connection.client_ip());
        let (id, path, code) = (self.id(slot), self.path_for(slot), u16::from(close.code()));
        let reason = close.reason();
        self.report(
            Kind::Closed(endpoint, code),
            format_args!("connection {id} of {client} to {path} is closed with {code}: {reason}"),
        );
    }

    /// Drops what belongs to a connection, whose destructor may panic.
    pub(in crate::shard) fn discard<T>(&mut self, slot: Slot, value: T) {
        if discard(value) {
            let (kind, path) =
                (Kind::DropPanicked(self.connections[slot].asked()), self.path_for(slot));
            self.report(kind, format_args!("a value of a connection to {path} panicked in drop"));
        }
    }
}
