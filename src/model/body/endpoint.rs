//! The endpoints that a batch may target and that we defer.

use serde::{Deserialize, Serialize};

/// A deferrable endpoint (WIRE.md §1). Its serialised form is its path.
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

    /// The path, as a batch line's `url` and the batch's `endpoint` carry it.
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

    /// The `object` of this endpoint's answers. Moderations answer without
    /// one; `moderation` there is our word.
    pub const fn object(self) -> &'static str {
        match self {
            Endpoint::ChatCompletions => "chat.completion",
            Endpoint::Responses => "response",
            Endpoint::Embeddings => "list",
            Endpoint::Completions => "text_completion",
            Endpoint::Moderations => "moderation",
        }
    }

    /// Whether `stream:true` means anything here.
    pub const fn streams(self) -> bool {
        match self {
            Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Completions => true,
            Endpoint::Embeddings | Endpoint::Moderations => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_its_path() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::from_path(endpoint.path()), Some(endpoint));
            let text = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(text, format!("\"{}\"", endpoint.path()));
            assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
        }
        assert_eq!(Endpoint::from_path("/v1/models"), None);
    }
}
