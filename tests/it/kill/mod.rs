//! The binary as a process, on real sockets: killed, stopped, refused its data
//! directory, out of disk, and without a provider.

mod backup;
mod caller;
mod crash;
mod crowd;
mod data_dir;
mod full_disk;
mod hooks;
mod load;
mod log;
mod master_key;
mod process;
mod provider;
mod proxied;
mod redacted;
mod stop;
mod unreachable;

use std::{future::Future, time::Duration};

/// How long anything may take that must happen. Not a measure of speed: it only
/// turns waiting for ever into a failure.
const PATIENCE: Duration = Duration::from_secs(100);

async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happens).await {
        Ok(happened) => happened,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}
