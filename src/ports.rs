//! What the engine needs of the world, in the engine's words.
//!
//! | port | what it is | adapter |
//! |---|---|---|
//! | [`Store`] | the durable truth | [`crate::store`] |
//! | [`Provider`] | files, batches, live calls and background responses | [`crate::provider`] |
//! | [`Deliver`] | one webhook attempt | [`crate::delivery`] |
//! | [`Vault`] | secrets at rest | [`crate::store::vault`] |
//! | [`Traces`] | spans, for whoever watches | [`crate::traces`] |
//! | [`Clock`] | time and chance | [`crate::app`] |

mod deliver;
mod provider;
mod store;
mod traces;
mod vault;

pub use self::{
    deliver::{Deliver, HookEvent, HookOutcome},
    provider::{
        BackgroundCall, LineAnswer, Listed, LiveCall, LiveReply, Organization, Page, Provider,
        ProviderError, RemoteBatch, RemoteError, RemotePage, RemoteResponse, RemoteStatus,
        ResponseStatus, ResultLine, Since, Upload, back_to,
    },
    store::{
        Admission, Admitted, Content, Delivery, DeliveryCounts, DeliveryStatus, Ending, FeedEntry,
        FeedPage, Head, Idempotent, Kept, KeyOwner, Learned, LearnedKey, LedgerEntry, LedgerRows,
        Outline, Relocation, Replan, Settled, Store, StoreError, Stored, TenantMove, Unbooked,
    },
    traces::{CallSpan, RequestSpan, SpanCounts, Traces},
    vault::{Credential, Unopened, Vault},
};

use crate::model::time::Timestamp;

/// Time and chance.
pub trait Clock: Send + Sync + 'static {
    /// Never jumps: what is decided here is decided by it.
    fn now(&self) -> Timestamp;

    /// What the machine's clock says, which somebody may have set: for those who hold it
    /// against theirs.
    fn wall(&self) -> Timestamp;

    /// Uniform in `0..=u128::MAX`, and not to be guessed: keys are made of it.
    fn random(&self) -> u128;
}
