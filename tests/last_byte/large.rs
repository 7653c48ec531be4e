//! Messages that are larger than an outbox.
