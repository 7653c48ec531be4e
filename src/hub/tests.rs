//! What threads share, in every order (the loom models), and against plain models.

#[cfg(loom)]
mod loom_models;
mod mailbox;
