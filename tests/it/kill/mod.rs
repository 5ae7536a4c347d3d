//! The binary as a process, on real sockets: killed, stopped, refused its data
//! directory, out of disk, and without a provider.

mod backup;
pub mod caller;
mod crash;
mod crowd;
mod data_dir;
pub mod disk;
mod full_disk;
pub mod hooks;
pub mod load;
mod log;
mod master_key;
pub mod process;
pub mod provider;
mod proxied;
mod redacted;
mod resident;
mod starting;
mod stop;
mod unreachable;

use std::{future::Future, time::Duration};

/// How long anything may take that must happen. Not a measure of speed: it only
/// turns waiting for ever into a failure.
pub const PATIENCE: Duration = Duration::from_secs(100);

pub async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happens).await {
        Ok(happened) => happened,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Runs what blocks on a thread of its own. Unlike tokio's, it does not keep a test that has
/// failed from ending.
pub async fn apart<T: Send + 'static>(
    what: &str,
    blocks: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, doing) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(blocks()).ok());
    soon(what, doing).await.expect("its thread ends well")
}

/// A number in the environment.
pub fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

pub fn pico_usd(text: &str) -> u64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(fraction.len() <= 12, "{text}");
    format!("{whole}{fraction:0<12}").parse().unwrap()
}
