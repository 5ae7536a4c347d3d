//! The integration tests: one binary, one module a subject.

mod layout;
mod namespace;
mod settings;
