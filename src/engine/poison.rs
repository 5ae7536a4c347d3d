//! A batch that failed validation: the lines that made it fail get their answer,
//! and the others go on.

use std::{collections::HashMap, sync::Arc};

use futures_util::StreamExt;
use serde_json::json;

use crate::{
    model::batch::Batch,
    ports::{Credential, LineAnswer, RemoteBatch, RemoteError, ResultLine},
};

use super::{
    Engine,
    harvester::{Harvest, provider},
};

impl Engine {
    /// A batch that failed validation loses its bad lines: each gets the
    /// provider's error as its answer. True where nobody can tell which line was
    /// bad, so that each has to go by itself.
    pub(super) async fn part_poison(
        self: &Arc<Self>,
        batch: &Batch,
        remote: &RemoteBatch,
        credential: &Credential,
    ) -> Harvest<bool> {
        let named: HashMap<u32, &RemoteError> = remote
            .errors
            .iter()
            .filter_map(|error| error.line.map(|line| (line, error)))
            .collect();
        for error in &remote.errors {
            tracing::warn!(batch = %batch.id, code = ?error.code, line = ?error.line, "the batch failed");
        }
        let (Some(file), false) = (&batch.input_file, named.is_empty()) else {
            return Ok(Ok(true));
        };
        let mut ids = provider!(self.provider.input_lines(credential, file).await);
        let mut line = 0;
        let mut bad = Vec::new();
        while let Some(id) = ids.next().await {
            line += 1;
            let id = provider!(id);
            if let Some(error) = named.get(&line) {
                bad.push(ResultLine {
                    custom_id: id,
                    answer: refusal(error),
                });
            }
        }
        // Lines that the file does not have tell nobody anything.
        let unknown = bad.is_empty();
        self.settle_lines(batch, bad).await?;
        Ok(Ok(unknown))
    }
}

/// The provider's own words, in the shape of the endpoint's errors.
fn refusal(error: &RemoteError) -> LineAnswer {
    let body = json!({"error": {
        "message": error.message,
        "type": "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }});
    LineAnswer::Answered {
        status: 400,
        request: None,
        body: body.to_string().into(),
    }
}
