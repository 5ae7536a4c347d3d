//! One worker thread, and the connections that it serves.

use std::{
    convert::Infallible,
    pin::{self, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, Version};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tracing::Instrument;

use super::{
    Desk, For,
    activity::{Activity, Answering, Patience, Verdict},
    crowd::Seat,
    refusal, span,
    watched::Watched,
};
use crate::edge::{
    passthrough::{Body, Passthrough, Upload},
    route::{Route, route},
};

/// A connection on its way to its worker.
pub struct Accepted {
    pub stream: std::net::TcpStream,
    pub seat: Seat,
    pub whom: For,
}

/// What one thread serves with.
pub struct Worker {
    pub passthrough: Arc<Passthrough>,
    pub desk: Arc<Desk>,
    pub stop: CancellationToken,
    pub grace: Duration,
    pub patience: Patience,
    pub body_idle: Duration,
}

/// The least time between two looks for old upstream connections.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The longest head, in bytes, and the longest trailers of a chunked body. nginx
/// takes heads of 32 KB, Node of 16 KB. A head has at most 100 fields (hyper's bound).
/// More is answered with 431.
const MAX_HEAD: usize = 64 * 1024;

impl Worker {
    /// Returns when no more connections come and those there are have ended
    /// or had their grace. The runtime's end then cuts what is left.
    pub async fn run(self, mut accepted: mpsc::Receiver<Accepted>) {
        let worker = Arc::new(self);
        let connections = TaskTracker::new();
        let mut sweep = interval(worker.passthrough.idle_timeout().max(SWEEP_PAUSE));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = accepted.recv() => match next {
                    Some(Accepted { stream, seat, whom }) => match TcpStream::from_std(stream) {
                        Ok(stream) => {
                            connections.spawn(worker.clone().serve(stream, seat, whom));
                        }
                        Err(error) => tracing::error!(%error, "cannot serve a connection"),
                    },
                    None => break,
                },
                _ = sweep.tick() => worker.passthrough.sweep(),
            }
        }
        connections.close();
        if timeout(worker.grace, connections.wait()).await.is_err() {
            tracing::warn!(
                count = connections.len(),
                "cutting connections still in use"
            );
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, seat: Seat, whom: For) {
        let activity = &seat.activity;
        let unframed = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (worker, unframed, activity) = (self.clone(), unframed.clone(), activity.clone());
            move |request: Request<Incoming>| {
                if request.version() == Version::HTTP_10 {
                    unframed.store(true, Ordering::Relaxed);
                }
                worker.clone().answer(request, whom, activity.clone())
            }
        });
        let io = TokioIo::new(Watched::new(stream, activity.clone()));
        let mut connection = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .serve_connection(io, service);
        let mut look = pin!(sleep(self.patience.shortest()));
        let mut leaving = false;
        let ending = loop {
            let leaves = tokio::select! {
                biased;
                ended = &mut connection => break Ending::Over(ended),
                () = self.stop.cancelled(), if !leaving => true,
                () = activity.told_to_leave(), if !leaving => true,
                () = &mut look => match activity.verdict(&self.patience) {
                    Verdict::LookAgain(at) => {
                        look.as_mut().reset(at);
                        false
                    }
                    Verdict::Leave if !leaving => {
                        look.as_mut().reset(Instant::now() + self.patience.shortest());
                        true
                    }
                    Verdict::Leave => break Ending::Left,
                    Verdict::SlowHead => break Ending::SlowHead,
                    Verdict::Stuck => break Ending::Stuck,
                },
            };
            if leaves {
                leaving = true;
                pin::Pin::new(&mut connection).graceful_shutdown();
            }
        };
        let stream = || connection.into_parts().io.into_inner().into_inner();
        match ending {
            Ending::Over(Ok(())) | Ending::Left => {}
            Ending::Over(Err(error)) => {
                tracing::debug!(%error, "a caller's connection broke");
                if unframed.load(Ordering::Relaxed) {
                    reset(&stream());
                }
            }
            Ending::SlowHead => {
                tracing::debug!("a request's head took too long");
                // Boxed, so that not every connection has the room for it.
                Box::pin(refusal::refuse(stream(), &refusal::slow_head())).await;
            }
            Ending::Stuck => {
                tracing::debug!("a caller does not read its answer");
                reset(&stream());
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        whom: For,
        activity: Arc<Activity>,
    ) -> Result<Response<Answering>, Infallible> {
        let busy = activity.busy();
        let request = request.map(|body| Upload::new(body, self.body_idle));
        let routers = self.desk.routers();
        let response = match (whom, route(&request)) {
            (For::Callers, Route::Passthrough) => {
                let span = span::passing(&request);
                self.passthrough.forward(request).instrument(span).await
            }
            (For::Callers, Route::Deferred) => self.routed(request, &routers.callers).await?,
            (For::Operators, _) => self.routed(request, &routers.operators).await?,
        };
        Ok(response.map(|body| Answering::new(body, busy)))
    }

    async fn routed(
        &self,
        mut request: Request<Upload>,
        router: &axum::Router,
    ) -> Result<Response<Body>, Infallible> {
        request.extensions_mut().insert(self.passthrough.clone());
        let span = span::answering(&request);
        let response = router.clone().oneshot(request).instrument(span).await?;
        Ok(response.map(Body::from))
    }
}

/// How serving a connection ends.
enum Ending {
    Over(hyper::Result<()>),
    /// It was asked to leave and did not.
    Left,
    SlowHead,
    Stuck,
}

/// Ends a connection with a reset. To HTTP/1.0, which nginx speaks to what is
/// behind it unless told otherwise, an ordinary end is how a whole answer ends; and
/// what a caller does not take is not kept for it by the kernel.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a broken answer ends like a whole one");
    }
}
