//! The integration tests: one binary, one module a subject.

mod app;
mod edge;
mod engine;
mod issuing;
mod kill;
mod layout;
mod namespace;
mod sdk;
mod settings;
mod simulate;
mod simulator;
mod torture;
mod wire;
mod workloads;
