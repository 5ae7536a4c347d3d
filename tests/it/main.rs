//! The integration tests: one binary, one module a subject.

// What only the torture run uses is used in debug builds only.
#![cfg_attr(not(debug_assertions), allow(dead_code))]

mod app;
mod cli;
mod dashboard;
mod docs;
mod doctor;
mod edge;
mod engine;
mod issuing;
mod kill;
mod layout;
mod metrics;
mod namespace;
mod sdk;
mod settings;
mod simulate;
mod simulator;
mod suite;
// Its hooks are in debug builds only.
#[cfg(debug_assertions)]
mod torture;
mod traces;
mod wire;
mod workloads;
