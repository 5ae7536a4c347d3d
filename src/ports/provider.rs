//! A provider: files, batches and live calls, and what it says of them.

mod list;

pub use list::{Listed, Page, Since, back_to};

use std::{io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use thiserror::Error;

use super::Credential;
use crate::model::{attempt::Lane, endpoint::Endpoint, id::BatchId, time::Timestamp};

/// A provider's Files, Batches, live endpoints and background responses
/// (WIRE.md §1, §2).
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Uploads a batch input file as it is produced.
    async fn upload(&self, by: &Credential, upload: Upload) -> Result<String, ProviderError>;

    async fn create_batch(
        &self,
        by: &Credential,
        input_file: &str,
        endpoint: Endpoint,
        tag: BatchId,
    ) -> Result<RemoteBatch, ProviderError>;

    async fn batch(&self, by: &Credential, id: &str) -> Result<RemoteBatch, ProviderError>;

    /// Newest first, those after `after` in that order; [`back_to`] reads page after page.
    async fn batches(
        &self,
        by: &Credential,
        after: Option<&str>,
    ) -> Result<RemotePage, ProviderError>;

    async fn cancel_batch(&self, by: &Credential, id: &str) -> Result<(), ProviderError>;

    /// The lines of an output or error file, in the file's order.
    async fn results(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<ResultLine, ProviderError>>, ProviderError>;

    /// The `custom_id`s of an input file's lines, in order.
    async fn input_lines(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<String, ProviderError>>, ProviderError>;

    /// The input files that were uploaded under this name, among those since then.
    async fn files_named(
        &self,
        by: &Credential,
        name: &str,
        since: Since,
    ) -> Result<Vec<String>, ProviderError>;

    /// Deleting what is gone is a success.
    async fn delete_file(&self, by: &Credential, file: &str) -> Result<(), ProviderError>;

    /// `GET /v1/models/{model}`. Tells whose the credential is, where the answer does.
    async fn model(
        &self,
        by: &Credential,
        model: &str,
    ) -> Result<Option<Organization>, ProviderError>;

    /// One call that is answered while it is held, on the standard or the flex
    /// tier. Every HTTP status is a reply; errors are the transport's.
    async fn run(&self, by: &Credential, call: LiveCall) -> Result<LiveReply, ProviderError>;

    /// Queues a background response. There is no list to find one in whose reply
    /// was lost: it may run, and be billed, unseen.
    async fn create_response(
        &self,
        by: &Credential,
        call: BackgroundCall,
    ) -> Result<RemoteResponse, ProviderError>;

    async fn response(&self, by: &Credential, id: &str) -> Result<RemoteResponse, ProviderError>;

    /// Tells how it stands after the cancel: one that was done stays done, and is
    /// billed. Cancelling again changes nothing.
    async fn cancel_response(
        &self,
        by: &Credential,
        id: &str,
    ) -> Result<RemoteResponse, ProviderError>;
}

/// An organization's name (`openai-organization`): what it is limited by, all of its
/// credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization(pub String);

impl Organization {
    pub fn read(headers: &http::HeaderMap) -> Option<Organization> {
        let name = headers.get("openai-organization")?.to_str().ok()?;
        (!name.is_empty()).then(|| Organization(name.to_owned()))
    }
}

pub struct Upload {
    pub name: String,
    /// Exact bytes of `lines` together.
    pub length: u64,
    pub lines: BoxStream<'static, io::Result<Bytes>>,
}

/// A batch as the provider tells it. Only what we act on (WIRE.md §1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteBatch {
    pub id: String,
    pub status: RemoteStatus,
    /// The status in the provider's own word.
    pub status_text: String,
    pub tag: Option<BatchId>,
    pub created: Option<Timestamp>,
    pub input_file: Option<String>,
    pub output_file: Option<String>,
    pub error_file: Option<String>,
    pub errors: Vec<RemoteError>,
    /// Lines that are through, by the provider's own counts. A hint: settling goes
    /// by the files.
    pub finished: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteStatus {
    /// Anything that is not terminal, words we do not know included.
    #[default]
    Running,
    Cancelling,
    Completed,
    Failed,
    Expired,
    Cancelled,
}

impl RemoteStatus {
    pub const fn is_terminal(self) -> bool {
        !matches!(self, RemoteStatus::Running | RemoteStatus::Cancelling)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    pub code: Option<String>,
    /// 1-based line of the input file.
    pub line: Option<u32>,
    pub message: String,
    pub param: Option<String>,
}

pub type RemotePage = Page<RemoteBatch>;

impl Listed for RemoteBatch {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> Option<Timestamp> {
        self.created
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLine {
    pub custom_id: String,
    pub answer: LineAnswer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineAnswer {
    /// The endpoint's own status and body, byte for byte.
    Answered {
        status: u16,
        request: Option<String>,
        body: Bytes,
    },
    /// The provider did not run it (`batch_expired`, `batch_cancelled`), or
    /// reported it in a way that holds no answer.
    NotRun { code: String, message: String },
}

pub struct LiveCall {
    pub endpoint: Endpoint,
    /// `Standard` sends the body as it is; `Flex` sets the tier in it, whatever
    /// the caller had set. Other lanes are refused.
    pub lane: Lane,
    pub body: Bytes,
    /// How long to wait for the reply's head. A body may stream on.
    pub timeout: Duration,
}

pub struct LiveReply {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: BoxStream<'static, Result<Bytes, ProviderError>>,
}

/// A call to `/v1/responses` that is answered later.
pub struct BackgroundCall {
    /// `Background8h` or `Background2h`. Other lanes are refused.
    pub lane: Lane,
    /// The caller's; what would answer it in another way is replaced.
    pub body: Bytes,
    /// Sets `store: true`, which providers want for background responses, in the
    /// place of what the caller had set. False leaves that as it is.
    pub store: bool,
}

/// A background response as the provider tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteResponse {
    pub id: String,
    pub status: ResponseStatus,
    /// The status in the provider's own word.
    pub status_text: String,
    /// The `x-request-id` of the reply that told this.
    pub request: Option<String>,
    /// The whole object, byte for byte: the answer, once it is `Completed` or
    /// `Incomplete`.
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseStatus {
    /// Anything that is not terminal, words we do not know included.
    Running,
    Completed,
    /// It ended before its text did, at a limit of tokens or a filter: an answer.
    Incomplete,
    /// The error stands in the body.
    Failed,
    Cancelled,
}

impl ResponseStatus {
    pub const fn is_terminal(self) -> bool {
        !matches!(self, ResponseStatus::Running)
    }
}

#[derive(Clone, Debug, Error)]
pub enum ProviderError {
    /// Nothing was sent.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// Sent, and the reply was lost: it may have happened.
    #[error("the provider's reply was lost: {0}")]
    Lost(String),
    /// The provider answered with an error status.
    #[error("the provider answered {status}")]
    Refused {
        status: u16,
        body: Bytes,
        retry_after: Option<Duration>,
        should_retry: Option<bool>,
    },
    /// A success that cannot be read: it may have happened.
    #[error("the provider's reply cannot be read: {0}")]
    Malformed(String),
    /// Our own side of the call failed, such as reading the lines to upload.
    #[error("the call could not be made: {0}")]
    Local(String),
}

impl ProviderError {
    /// Whether the provider may have done what was asked.
    pub fn may_have_happened(&self) -> bool {
        match self {
            ProviderError::Unreachable(_) | ProviderError::Local(_) => false,
            ProviderError::Lost(_) | ProviderError::Malformed(_) => true,
            ProviderError::Refused { status, .. } => *status >= 500,
        }
    }

    /// Whether the same call could go well another time.
    pub fn is_transient(&self) -> bool {
        match self {
            ProviderError::Refused {
                status,
                should_retry,
                ..
            } => should_retry.unwrap_or(matches!(status, 408 | 409 | 429 | 500..)),
            _ => true,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ProviderError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
