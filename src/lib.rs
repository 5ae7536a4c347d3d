//! Offpeak: your ordinary LLM call, half the price, by the time you said.
//!
//! A proxy in front of OpenAI-compatible APIs. A call without a deadline passes
//! straight through; a call with one is answered by the cheapest lane that still
//! meets it, usually the provider's Batch API. This page is the map; the walks
//! through it are in ARCHITECTURE.md.
//!
//! ```text
//!  edge ──► engine ──► ports ◄── store, provider, delivery
//!             │          ▲
//!             ▼          │
//!      policy, ledger ─► model          app wires all of it together
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`model`] | ids, time, money, deadlines; requests, attempts and batches with their state machines. Pure |
//! | [`policy`] | what to do and why: lanes, packing, rescue, retries, polling. Pure |
//! | [`ledger`] | what was paid and what it would have cost. Pure |
//! | [`ports`] | what the engine needs of the world |
//! | [`engine`] | the use cases and the reconcilers that carry them out |
//! | [`store`] | the durable truth: sled, and memory for tests |
//! | [`provider`] | files, batches and live calls on OpenAI's wire |
//! | [`delivery`] | one webhook attempt: sign, guard, send |
//! | [`traces`] | spans for an OpenTelemetry collector |
//! | [`metrics`] | what is counted of all that is done, for Prometheus |
//! | [`edge`] | HTTP in: pass-through, admission, holding, polling, streams |
//! | [`dashboard`] | the operators' page |
//! | [`backtest`] | policies played on a trace in virtual time, and what they are measured against |
//! | [`simulator`] | a faithful provider with faults and virtual time |
//! | [`config`], [`app`], [`cli`] | settings, wiring, commands |

pub mod app;
pub mod backtest;
pub mod cli;
pub mod config;
pub mod dashboard;
pub mod delivery;
pub mod edge;
pub mod engine;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod policy;
pub mod ports;
pub mod provider;
pub mod simulator;
pub mod store;
pub mod traces;
