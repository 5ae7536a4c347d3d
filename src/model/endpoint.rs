//! The endpoints whose calls a Batch API takes.

use serde::{Deserialize, Serialize};

/// WIRE.md §1 lists what a batch may target; images and videos are not deferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Endpoint {
    #[serde(rename = "/v1/chat/completions")]
    ChatCompletions,
    #[serde(rename = "/v1/responses")]
    Responses,
    #[serde(rename = "/v1/embeddings")]
    Embeddings,
    #[serde(rename = "/v1/completions")]
    Completions,
    #[serde(rename = "/v1/moderations")]
    Moderations,
}

impl Endpoint {
    pub const ALL: [Endpoint; 5] = [
        Endpoint::ChatCompletions,
        Endpoint::Responses,
        Endpoint::Embeddings,
        Endpoint::Completions,
        Endpoint::Moderations,
    ];

    /// The path on the wire and the `url` of a batch line.
    pub const fn path(self) -> &'static str {
        match self {
            Endpoint::ChatCompletions => "/v1/chat/completions",
            Endpoint::Responses => "/v1/responses",
            Endpoint::Embeddings => "/v1/embeddings",
            Endpoint::Completions => "/v1/completions",
            Endpoint::Moderations => "/v1/moderations",
        }
    }

    pub fn from_path(path: &str) -> Option<Endpoint> {
        Endpoint::ALL
            .into_iter()
            .find(|endpoint| endpoint.path() == path)
    }

    /// OpenTelemetry's `gen_ai.operation.name`: one that is well known where there is one.
    pub const fn operation(self) -> &'static str {
        match self {
            Endpoint::ChatCompletions | Endpoint::Responses => "chat",
            Endpoint::Completions => "text_completion",
            Endpoint::Embeddings => "embeddings",
            Endpoint::Moderations => "moderation",
        }
    }

    /// The `object` of the endpoint's answers.
    pub const fn object(self) -> &'static str {
        match self {
            Endpoint::ChatCompletions => "chat.completion",
            Endpoint::Responses => "response",
            Endpoint::Embeddings => "list",
            Endpoint::Completions => "text_completion",
            Endpoint::Moderations => "moderation",
        }
    }
}
