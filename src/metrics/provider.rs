//! Calls to the provider: whatever the engine asks of it, timed until the head of the
//! answer is there.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::family::Family,
    registry::{Registry, Unit},
};
use tokio::time::Instant;

use super::{Metrics, timing::Timing};
use crate::{
    model::{endpoint::Endpoint, id::BatchId},
    ports::{
        BackgroundCall, Credential, LiveCall, LiveReply, Organization, Provider, ProviderError,
        RemoteBatch, RemotePage, RemoteResponse, ResultLine, Since, Upload,
    },
};

pub struct Calls(Family<Call, Timing, fn() -> Timing>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    outcome: &'static str,
}

impl Calls {
    pub fn new(registry: &mut Registry) -> Calls {
        let calls = Family::new_with_constructor(Timing::of_a_call as fn() -> Timing);
        registry.register_with_unit(
            "offpeak_provider_call_duration",
            "Calls to the provider until the head of its answer, or until it was given up",
            Unit::Seconds,
            calls.clone(),
        );
        Calls(calls)
    }

    async fn time<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, ProviderError>>,
        outcome: impl FnOnce(&T) -> &'static str,
    ) -> Result<T, ProviderError> {
        let began = Instant::now();
        let result = call.await;
        let outcome = result.as_ref().map_or_else(failure, outcome);
        let call = Call { operation, outcome };
        self.0.get_or_create(&call).add(began.elapsed());
        result
    }
}

/// What became of a call that has no answer to hand on.
pub fn failure(error: &ProviderError) -> &'static str {
    match error {
        ProviderError::Refused { status, .. } => class(*status),
        ProviderError::Unreachable(_) => "unreachable",
        ProviderError::Lost(_) => "lost",
        ProviderError::Malformed(_) => "malformed",
        ProviderError::Local(_) => "not_sent",
    }
}

/// 429 stands by itself: it asks for less, and means nothing is wrong.
pub const fn class(status: u16) -> &'static str {
    match status {
        429 => "429",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => "other",
    }
}

/// A provider, and how its calls go.
pub struct CountedProvider {
    provider: Arc<dyn Provider>,
    metrics: Arc<Metrics>,
}

impl CountedProvider {
    pub fn new(provider: Arc<dyn Provider>, metrics: Arc<Metrics>) -> Self {
        CountedProvider { provider, metrics }
    }

    async fn time<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let done = |_: &T| "2xx";
        self.metrics.provider.time(operation, call, done).await
    }
}

#[async_trait]
impl Provider for CountedProvider {
    async fn upload(&self, by: &Credential, upload: Upload) -> Result<String, ProviderError> {
        self.time("upload", self.provider.upload(by, upload)).await
    }

    async fn create_batch(
        &self,
        by: &Credential,
        input_file: &str,
        endpoint: Endpoint,
        tag: BatchId,
    ) -> Result<RemoteBatch, ProviderError> {
        let call = self.provider.create_batch(by, input_file, endpoint, tag);
        self.time("create_batch", call).await
    }

    async fn batch(&self, by: &Credential, id: &str) -> Result<RemoteBatch, ProviderError> {
        self.time("get_batch", self.provider.batch(by, id)).await
    }

    async fn batches(
        &self,
        by: &Credential,
        after: Option<&str>,
    ) -> Result<RemotePage, ProviderError> {
        let call = self.provider.batches(by, after);
        self.time("list_batches", call).await
    }

    async fn cancel_batch(&self, by: &Credential, id: &str) -> Result<(), ProviderError> {
        let call = self.provider.cancel_batch(by, id);
        self.time("cancel_batch", call).await
    }

    async fn results(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<ResultLine, ProviderError>>, ProviderError> {
        let call = self.provider.results(by, file);
        self.time("read_results", call).await
    }

    async fn input_lines(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<String, ProviderError>>, ProviderError> {
        let call = self.provider.input_lines(by, file);
        self.time("read_input", call).await
    }

    async fn files_named(
        &self,
        by: &Credential,
        name: &str,
        since: Since,
    ) -> Result<Vec<String>, ProviderError> {
        let call = self.provider.files_named(by, name, since);
        self.time("list_files", call).await
    }

    async fn delete_file(&self, by: &Credential, file: &str) -> Result<(), ProviderError> {
        let call = self.provider.delete_file(by, file);
        self.time("delete_file", call).await
    }

    async fn model(
        &self,
        by: &Credential,
        model: &str,
    ) -> Result<Option<Organization>, ProviderError> {
        self.time("get_model", self.provider.model(by, model)).await
    }

    async fn run(&self, by: &Credential, call: LiveCall) -> Result<LiveReply, ProviderError> {
        let calls = &self.metrics.provider;
        let status = |reply: &LiveReply| class(reply.status);
        calls
            .time("live", self.provider.run(by, call), status)
            .await
    }

    async fn create_response(
        &self,
        by: &Credential,
        call: BackgroundCall,
    ) -> Result<RemoteResponse, ProviderError> {
        let call = self.provider.create_response(by, call);
        self.time("create_response", call).await
    }

    async fn response(&self, by: &Credential, id: &str) -> Result<RemoteResponse, ProviderError> {
        let call = self.provider.response(by, id);
        self.time("get_response", call).await
    }

    async fn cancel_response(
        &self,
        by: &Credential,
        id: &str,
    ) -> Result<RemoteResponse, ProviderError> {
        let call = self.provider.cancel_response(by, id);
        self.time("cancel_response", call).await
    }
}
