//! The simulated provider in the test's own process, with traps that strike at
//! one exact step of a call.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::Method;
use offpeak::{
    app::SystemClock,
    simulator::{Settings, Simulator},
};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};

pub const SEED: u64 = 11;

/// A hundred times faster than real time: a batch takes about a second.
pub fn quick() -> Settings {
    let mut settings = Settings {
        seed: SEED,
        speed: 100.0,
        ..Settings::default()
    };
    settings.latency.turnaround_median = Duration::from_secs(80);
    settings.latency.turnaround_sigma = 0.6;
    settings.latency.stalled_share = 0.0;
    settings.latency.cancel = Duration::from_secs(40);
    settings.latency.live_median = Duration::from_secs(15);
    settings.cache.share = 0.3;
    settings.limits.batch_creates_per_hour = 10_000_000;
    settings.limits.uploads_per_minute = 10_000_000;
    settings
}

pub struct Provider {
    pub simulator: Arc<Simulator>,
    pub trap: Arc<Trap>,
    address: SocketAddr,
    serving: Mutex<JoinSet<()>>,
}

impl Provider {
    pub async fn start(settings: Settings) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Provider {
            simulator: Simulator::new(settings, SystemClock::new().now()),
            trap: Arc::default(),
            address: listener.local_addr().unwrap(),
            serving: Mutex::default(),
        };
        provider.serve(listener);
        Arc::new(provider)
    }

    pub fn upstream(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    fn serve(&self, listener: TcpListener) {
        let watched = middleware::from_fn_with_state(self.trap.clone(), watch);
        let router = self.simulator.router().layer(watched);
        self.serving.lock().spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
    }

    /// Closes the port.
    pub async fn die(&self) {
        let mut serving = std::mem::take(&mut *self.serving.lock());
        serving.shutdown().await;
    }

    /// The port answers again, by a provider that knows all it knew.
    pub async fn revive(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    /// Waits until what the provider saw or did fulfils `condition`; it is asked
    /// again after every step.
    pub async fn until(&self, what: &str, mut condition: impl FnMut(&Simulator) -> bool) {
        let simulator = self.simulator.clone();
        let fulfilled = async {
            loop {
                let step = self.trap.steps.notified();
                if condition(&simulator) {
                    return;
                }
                step.await;
            }
        };
        super::soon(what, fulfilled).await;
    }
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Upload,
    Create,
    List,
    Poll,
    Content,
    Delete,
    Cancel,
    Live,
    Other,
}

impl Step {
    fn of(method: &Method, path: &str) -> Self {
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", ["files"]) => Step::Upload,
            ("POST", ["batches"]) => Step::Create,
            ("GET", ["batches"]) => Step::List,
            ("GET", ["batches", _]) => Step::Poll,
            ("GET", ["files", _, "content"]) => Step::Content,
            ("DELETE", ["files", _]) => Step::Delete,
            ("POST", ["batches", _, "cancel"]) => Step::Cancel,
            ("POST", _) => Step::Live,
            _ => Step::Other,
        }
    }
}

/// Where a process may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The provider has the call, and nothing was done yet.
    Before(Step),
    /// It was done, and not answered yet.
    After(Step),
    /// A caller has read a 202.
    Acknowledged,
    /// A caller has read a part of a held answer.
    Dripped,
    /// A caller has read an answer to its end.
    Answered,
    /// A webhook has arrived and is not answered yet.
    Hooked,
}

impl Point {
    /// Every step whose loss means something.
    pub const ALL: [Point; 16] = [
        Point::Before(Step::Upload),
        Point::After(Step::Upload),
        Point::Before(Step::Create),
        Point::After(Step::Create),
        Point::After(Step::Poll),
        Point::Before(Step::Content),
        Point::After(Step::Content),
        Point::Before(Step::Delete),
        Point::After(Step::Delete),
        Point::After(Step::Cancel),
        Point::Before(Step::Live),
        Point::After(Step::Live),
        Point::Acknowledged,
        Point::Dripped,
        Point::Answered,
        Point::Hooked,
    ];
}

/// Kills a process at a point that it names.
#[derive(Default)]
pub struct Trap {
    armed: Mutex<Option<Armed>>,
    sprung: Notify,
    steps: Notify,
}

struct Armed {
    point: Point,
    /// Passes of the point that are let through.
    spare: u32,
    /// Passes of any point until it strikes anyway.
    patience: u32,
    pid: Pid,
}

impl Trap {
    pub fn arm(&self, point: Point, spare: u32, patience: u32, pid: Pid) {
        *self.armed.lock() = Some(Armed {
            point,
            spare,
            patience,
            pid,
        });
    }

    /// Waits until it has struck.
    pub async fn sprung(&self) {
        super::soon("the trap", self.sprung.notified()).await;
    }

    pub fn disarm(&self) {
        *self.armed.lock() = None;
    }

    pub fn pass(&self, point: Point) {
        let mut armed = self.armed.lock();
        let strikes = armed.as_mut().is_some_and(|armed| {
            let here = armed.point == point;
            let due = here && armed.spare == 0 || armed.patience == 0;
            armed.patience = armed.patience.saturating_sub(1);
            armed.spare = armed.spare.saturating_sub(u32::from(here));
            due
        });
        if let Some(armed) = armed.take_if(|_| strikes) {
            kill_process(armed.pid, Signal::KILL).unwrap();
            self.sprung.notify_one();
        }
        drop(armed);
        self.steps.notify_waiters();
    }
}

async fn watch(State(trap): State<Arc<Trap>>, request: Request, next: Next) -> Response {
    let step = Step::of(request.method(), request.uri().path());
    trap.pass(Point::Before(step));
    let response = next.run(request).await;
    trap.pass(Point::After(step));
    response
}
