//! Files, batches, live calls and background responses on OpenAI's wire (WIRE.md §1, §2, §5), as
//! [`crate::ports::Provider`].
//!
//! | file | what it holds |
//! |---|---|
//! | `openai` | the calls: what is asked, and what an answer means |
//! | `transport` | one HTTP exchange: time limits, and whose fault a failure is |
//! | [`connect`] | how a connection is made; tests plug another way in there |
//! | `upload` | an input file as a multipart body, streamed |
//! | `jsonl` | result files, line by line |
//! | `lanes` | how a lane is asked for in the body of a call |
//! | `remote` | the provider's batch and response objects, read tolerantly |
//! | [`settings`] | where the provider is, and how long it may be silent |

pub mod connect;
pub mod settings;

pub(crate) mod jsonl;
mod lanes;
mod openai;
mod remote;
mod transport;
mod upload;

#[cfg(test)]
mod tests;

pub use openai::OpenAi;
pub use settings::Settings;
