//! The integration tests: one binary, one module a subject.

mod kill;
mod layout;
mod settings;
