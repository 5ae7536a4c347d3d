//! After the report: a call now and then, so that the dashboard has something to show.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::calls::{Client, Kind};

/// Between two calls.
const PAUSE: Duration = Duration::from_secs(2);

/// Makes calls from number `first` on until `stop`.
pub async fn on(client: Client, first: usize, stop: &CancellationToken) {
    let client = Arc::new(client);
    let mut running = JoinSet::new();
    let mut ticks = tokio::time::interval(PAUSE);
    let mut number = first;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // What it brings is in the dashboard.
            Some(_) = running.join_next() => {}
            _ = ticks.tick() => {
                let client = client.clone();
                let this = number;
                running.spawn(async move { client.call(Kind::of(this), this).await });
                number += 1;
            }
        }
    }
}
