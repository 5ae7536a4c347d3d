//! The calls of WIRE.md §1 and §2: what is asked, and what an answer means.

mod models;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use http::{Method, Response, header::TRANSFER_ENCODING};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::{
    connect::{Connector, Dial, Tcp},
    jsonl, lanes, remote,
    settings::{Invalid, Settings},
    transport::{self, Call, FOREVER, Transport, empty, from_now, full},
    upload,
};
use crate::{
    model::{endpoint::Endpoint, id::BatchId},
    ports::{
        BackgroundCall, Credential, LiveCall, LiveReply, Organization, Page, Provider,
        ProviderError, RemoteBatch, RemotePage, RemoteResponse, ResultLine, Since, Upload, back_to,
    },
};

/// RFC 3986's unreserved characters stay as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The most batches that one page may hold.
const PAGE: usize = 100;
/// The same of files: OpenAI's bound is 10,000, others have less.
const FILES: usize = 100;
const JSON: &str = "application/json";

/// A provider that speaks OpenAI's wire.
///
/// Nothing is retried here, but for calls that hyper hands back unsent because a
/// pooled connection had closed. Neither credentials nor bodies are logged.
pub struct OpenAi<D> {
    transport: Transport<D>,
    upload_timeout: Duration,
    input_expires_after: Duration,
    output_expires_after: Duration,
}

impl OpenAi<Tcp> {
    pub fn over_tcp(settings: &Settings) -> Result<Self, Invalid> {
        let tls = settings.check()?.starts_with("https:");
        OpenAi::new(settings, Tcp::new(tls)?)
    }
}

impl<D: Dial> OpenAi<D> {
    /// Over connections that `dial` makes; see [`super::connect`].
    pub fn new(settings: &Settings, dial: D) -> Result<Self, Invalid> {
        let connector = Connector {
            dial,
            timeout: settings.connect_timeout,
        };
        Ok(OpenAi {
            transport: Transport::new(settings.check()?, connector, settings.read_timeout),
            upload_timeout: settings.upload_timeout.min(FOREVER),
            input_expires_after: settings.input_expires_after,
            output_expires_after: settings.output_expires_after,
        })
    }

    async fn content(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<Response<Incoming>, ProviderError> {
        let path = format!("/files/{}/content", segment(file)?);
        self.transport.control(by, get(path)).await
    }
}

#[async_trait]
impl<D: Dial> Provider for OpenAi<D> {
    async fn upload(&self, by: &Credential, upload: Upload) -> Result<String, ProviderError> {
        let (body, sending) = upload::multipart(upload, self.input_expires_after);
        let call = Call {
            content_type: Some(upload::CONTENT_TYPE),
            body: body.boxed_unsync(),
            ..post("/files".to_owned())
        };
        let deadline = || sending.progress() + self.upload_timeout;
        let response = match self.transport.head(by, call, deadline).await {
            Ok(response) => self.transport.accept(response).await?,
            Err(error) => {
                return Err(match sending.end() {
                    Some(Err(reason)) => ProviderError::Local(reason),
                    _ => error,
                });
            }
        };
        if sending.end() != Some(Ok(())) {
            let early = "the file was taken before all of it was sent";
            return Err(ProviderError::Malformed(early.to_owned()));
        }
        remote::file_id(&self.transport.body(response).await?)
    }

    async fn create_batch(
        &self,
        by: &Credential,
        input_file: &str,
        endpoint: Endpoint,
        tag: BatchId,
    ) -> Result<RemoteBatch, ProviderError> {
        let body = serde_json::json!({
            "input_file_id": input_file,
            "endpoint": endpoint.path(),
            "completion_window": "24h",
            "metadata": { (remote::TAG): tag },
            "output_expires_after": {
                "anchor": "created_at",
                "seconds": self.output_expires_after.as_secs(),
            },
        });
        let call = Call {
            content_type: Some(JSON),
            body: full(body.to_string()),
            ..post("/batches".to_owned())
        };
        let response = self.transport.control(by, call).await?;
        remote::batch(&self.transport.body(response).await?)
    }

    async fn batch(&self, by: &Credential, id: &str) -> Result<RemoteBatch, ProviderError> {
        let call = get(format!("/batches/{}", segment(id)?));
        let response = self.transport.control(by, call).await?;
        remote::batch(&self.transport.body(response).await?)
    }

    async fn batches(
        &self,
        by: &Credential,
        after: Option<&str>,
    ) -> Result<RemotePage, ProviderError> {
        let call = Call {
            query: Some(following(format!("limit={PAGE}"), after)),
            ..get("/batches".to_owned())
        };
        self.page(by, call, remote::page).await
    }

    /// 409 says that the batch has already ended.
    async fn cancel_batch(&self, by: &Credential, id: &str) -> Result<(), ProviderError> {
        let call = post(format!("/batches/{}/cancel", segment(id)?));
        self.settled(by, call, 409).await
    }

    async fn results(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<ResultLine, ProviderError>>, ProviderError> {
        let response = self.content(by, file).await?;
        let framed = response.body().size_hint().exact().is_some()
            || response.headers().contains_key(TRANSFER_ENCODING);
        let pieces = self.transport.pieces(response.into_body());
        Ok(jsonl::results(pieces, file.to_owned(), framed).boxed())
    }

    async fn input_lines(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<String, ProviderError>>, ProviderError> {
        let response = self.content(by, file).await?;
        Ok(jsonl::input_lines(self.transport.pieces(response.into_body())).boxed())
    }

    async fn files_named(
        &self,
        by: &Credential,
        name: &str,
        since: Since,
    ) -> Result<Vec<String>, ProviderError> {
        let files = back_to(since, |after| self.files(by, after));
        let named = files.try_filter_map(async |file| {
            let is_named = file.name.as_deref() == Some(name);
            Ok(is_named.then_some(file.id))
        });
        named.try_collect().await
    }

    async fn delete_file(&self, by: &Credential, file: &str) -> Result<(), ProviderError> {
        let call = Call {
            method: Method::DELETE,
            ..get(format!("/files/{}", segment(file)?))
        };
        self.settled(by, call, 404).await
    }

    async fn model(
        &self,
        by: &Credential,
        model: &str,
    ) -> Result<Option<Organization>, ProviderError> {
        self.look_up(by, model).await
    }

    async fn run(&self, by: &Credential, call: LiveCall) -> Result<LiveReply, ProviderError> {
        let path = call.endpoint.path();
        let limit = from_now(call.timeout);
        let call = Call {
            content_type: Some(JSON),
            body: full(lanes::live(&call)?),
            ..post(path.strip_prefix("/v1").unwrap_or(path).to_owned())
        };
        let response = self.transport.head(by, call, move || limit).await?;
        let (head, body) = response.into_parts();
        Ok(LiveReply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: self.transport.pieces(body),
        })
    }

    async fn create_response(
        &self,
        by: &Credential,
        call: BackgroundCall,
    ) -> Result<RemoteResponse, ProviderError> {
        let call = Call {
            content_type: Some(JSON),
            body: full(lanes::background(&call)?),
            ..post("/responses".to_owned())
        };
        self.stored(by, call).await
    }

    async fn response(&self, by: &Credential, id: &str) -> Result<RemoteResponse, ProviderError> {
        self.stored(by, get(format!("/responses/{}", segment(id)?)))
            .await
    }

    async fn cancel_response(
        &self,
        by: &Credential,
        id: &str,
    ) -> Result<RemoteResponse, ProviderError> {
        self.stored(by, post(format!("/responses/{}/cancel", segment(id)?)))
            .await
    }
}

impl<D: Dial> OpenAi<D> {
    /// Newest first, those after `after` in that order.
    async fn files(
        &self,
        by: &Credential,
        after: Option<String>,
    ) -> Result<Page<remote::File>, ProviderError> {
        let query = format!("purpose=batch&order=desc&limit={FILES}");
        let call = Call {
            query: Some(following(query, after.as_deref())),
            ..get("/files".to_owned())
        };
        self.page(by, call, remote::files).await
    }

    async fn page<T>(
        &self,
        by: &Credential,
        call: Call,
        read: impl FnOnce(&[u8]) -> Result<Page<T>, ProviderError>,
    ) -> Result<Page<T>, ProviderError> {
        let began = Instant::now();
        let response = self.transport.control(by, call).await?;
        let told = transport::date(response.headers());
        let asked = told.map(|told| told - began.elapsed());
        let page = read(&self.transport.body(response).await?)?;
        Ok(Page { asked, ..page })
    }

    /// A call that is answered with a stored response as it stands.
    async fn stored(&self, by: &Credential, call: Call) -> Result<RemoteResponse, ProviderError> {
        let response = self.transport.control(by, call).await?;
        let request = response.headers().get("x-request-id");
        let request = request.and_then(|id| id.to_str().ok()).map(str::to_owned);
        remote::response(self.transport.answer(response).await?, request)
    }

    /// A call of which only the success matters, and `also` counts as one.
    async fn settled(&self, by: &Credential, call: Call, also: u16) -> Result<(), ProviderError> {
        match self.transport.control(by, call).await {
            Ok(response) => {
                self.transport.drain(response).await;
                Ok(())
            }
            Err(ProviderError::Refused { status, .. }) if status == also => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The query of a list's page, behind this item of it.
fn following(query: String, after: Option<&str>) -> String {
    match after {
        Some(after) => format!("{query}&after={}", utf8_percent_encode(after, ESCAPED)),
        None => query,
    }
}

fn get(path: String) -> Call {
    Call {
        method: Method::GET,
        path,
        query: None,
        content_type: None,
        body: empty(),
    }
}

fn post(path: String) -> Call {
    Call {
        method: Method::POST,
        ..get(path)
    }
}

/// A name as one segment of a path. Dots alone would climb out of it.
fn segment(name: &str) -> Result<String, ProviderError> {
    match name {
        "" | "." | ".." => Err(ProviderError::Local(format!("`{name}` names nothing"))),
        name => Ok(utf8_percent_encode(name, ESCAPED).to_string()),
    }
}
