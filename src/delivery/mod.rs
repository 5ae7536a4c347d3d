//! One webhook attempt: guard the target, sign the body, send it, name the
//! outcome. When to try again is `policy::backoff`'s decision; remembering it
//! is the engine's.

pub mod courier;
pub mod guard;
pub mod send;
pub mod settings;
pub mod sign;

pub use courier::Courier;
pub use guard::{BadAllowEntry, Guard, Refused};
pub use send::{Attempt, BadSender, Failure, Outcome, Sender};
pub use settings::{BadTarget, Endpoint, Settings, Target};
pub use sign::{BadSecret, SigningKey};
