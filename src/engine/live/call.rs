//! One call whose connection is held open until its answer is there, flex or
//! ordinary.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    fails_late,
    reply::{Reply, read_reply},
    scopes::Permit,
};
use crate::{
    engine::{Engine, taps::Spout},
    model::{
        attempt::Lane,
        body,
        request::{Request, Shape},
    },
    policy::throttle::RateLimits,
    ports::{LiveCall, Organization, ProviderError},
};

impl Engine {
    /// `tap` is whom a success is passed on to as it comes, if its call streams.
    pub(super) async fn call(
        &self,
        request: &Request,
        body: &Bytes,
        (lane, timeout): (Lane, Duration),
        tap: Option<&Spout>,
        permit: &mut Permit,
    ) -> Reply {
        let credential = match self.credential(request.credential).await {
            Ok(credential) => credential,
            Err(error) => return Reply::Failed(error),
        };
        let streams = tap.is_some() && matches!(request.shape, Shape::Stream { .. });
        let strip = match streams {
            true => body::Strip::STREAMED,
            false => body::Strip::STANDARD,
        };
        let body = match stripped(body, strip) {
            Ok(body) => body,
            Err(refusal) => return Reply::Failed(ProviderError::Local(refusal.message())),
        };
        let call = LiveCall {
            endpoint: request.endpoint,
            lane,
            body,
            timeout,
        };
        let began = Instant::now();
        let reply = match self.provider.run(&credential, call).await {
            Ok(reply) => {
                if let Some(Organization(name)) = Organization::read(&reply.headers) {
                    self.learn_organization(request.credential, &name).await;
                }
                let limits = RateLimits::read(&reply.headers);
                permit.told(self.now(), &limits);
                read_reply(reply, tap.filter(|_| streams)).await
            }
            Err(error) => Reply::Failed(error),
        };
        self.count_call(request, reply.error(), began.elapsed());
        reply
    }

    pub(super) fn timeout(&self, request: &Request) -> Duration {
        let timeout = self.settings.live.timeout;
        match fails_late(request) {
            // Nobody wants what comes later.
            true => self.now().until(request.deadline).min(timeout),
            false => timeout,
        }
    }
}

/// What the caller sent, less what would answer it in another way.
fn stripped(body: &[u8], strip: body::Strip) -> Result<Bytes, body::Refusal> {
    let mut out = Vec::with_capacity(body.len());
    let edit = body::Edit::strip(strip);
    body::line_body(body, &edit, &mut out)?;
    Ok(out.into())
}
