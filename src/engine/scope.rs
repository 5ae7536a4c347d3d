//! What a provider limits together, and is learned together: here a credential and
//! a model.

use crate::model::{
    batch::Batch,
    id::CredentialId,
    request::{Destination, Request},
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ScopeKey {
    pub credential: CredentialId,
    pub model: String,
}

impl From<&Destination> for ScopeKey {
    fn from(destination: &Destination) -> Self {
        ScopeKey {
            credential: destination.credential,
            model: destination.model.clone(),
        }
    }
}

impl From<&Request> for ScopeKey {
    fn from(request: &Request) -> Self {
        ScopeKey {
            credential: request.credential,
            model: request.model.clone(),
        }
    }
}

impl From<&Batch> for ScopeKey {
    fn from(batch: &Batch) -> Self {
        ScopeKey {
            credential: batch.credential,
            model: batch.model.clone(),
        }
    }
}
