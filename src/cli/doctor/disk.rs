//! How fast and how truly the data directory's disk syncs: every answer "202" waits for
//! it once.

use std::{fs::File, io::Write as _, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use super::report::{Check, millis, span};

/// A page of the database.
const BLOCK: [u8; 4096] = [0x5a; 4096];
const BLOCKS: usize = 200;
/// Slower disks are not tried for longer.
const LONGEST: Duration = Duration::from_secs(3);
/// Fewer syncs tell nothing of the slow ones.
const FEWEST: usize = 5;

/// Above it callers notice.
const SLOW: Duration = Duration::from_millis(20);
/// No disk, and no cache that survives a power cut, is as fast as this.
const UNBELIEVABLE: Duration = Duration::from_micros(50);

/// Writes and syncs blocks into `file`, and returns what each took. Blocks on the disk.
///
/// # Errors
/// The first write or sync that fails.
pub fn measure(mut file: File) -> std::io::Result<Vec<Duration>> {
    let started = Instant::now();
    let mut took = Vec::with_capacity(BLOCKS);
    while took.len() < BLOCKS && (started.elapsed() < LONGEST || took.len() < FEWEST) {
        let began = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// `took` holds one at least.
pub fn check(mut took: Vec<Duration>) -> Check {
    const NAME: &str = "disk";
    took.sort_unstable();
    let quantile = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    let (median, p99) = (quantile(50), quantile(99));
    let total: Duration = took.iter().sum();
    let rate = took.len() as f64 / total.as_secs_f64().max(f64::EPSILON);
    let says = format!(
        "A write that is synced takes {} (one in a hundred {}), {rate:.0} a second.",
        span(median),
        span(p99)
    );
    let check = match median {
        _ if median < UNBELIEVABLE => Check::warning(
            NAME,
            format!("{says} This disk seems not to sync: no disk is as fast as that."),
        )
        .advise(
            "A power cut may lose what callers were told is kept. Put the data directory on a \
             disk that syncs (no tmpfs, no `nobarrier`, no write cache without a battery).",
        ),
        _ if median > SLOW => Check::warning(NAME, says).advise(
            "Calls with a deadline wait for a sync each, many together: put the data \
             directory on an SSD.",
        ),
        _ => Check::ok(NAME, says),
    };
    check.measured(json!({
        "syncs": took.len(), "median_ms": millis(median), "p99_ms": millis(p99),
        "syncs_per_second": rate.round(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    #[test]
    fn the_median_tells() {
        let micros = |micros: u64| Duration::from_micros(micros);
        let mostly = |usual: u64, odd: u64| {
            let mut took = vec![micros(usual); 95];
            took.extend([micros(odd); 5]);
            took
        };
        for (took, verdict, says) in [
            (
                mostly(900, 3_000),
                Verdict::Ok,
                "900 µs (one in a hundred 3.0 ms)",
            ),
            (mostly(19_000, 400_000), Verdict::Ok, "19 ms"),
            (mostly(21_000, 30_000), Verdict::Warning, "21 ms"),
            (mostly(12, 90), Verdict::Warning, "seems not to sync"),
            (
                vec![micros(5_000)],
                Verdict::Ok,
                "5.0 ms (one in a hundred 5.0 ms), 200 a",
            ),
        ] {
            let check = check(took);
            assert_eq!(check.verdict, verdict, "{}", check.says);
            assert!(check.says.contains(says), "{}", check.says);
        }
    }

    #[test]
    fn what_is_measured_is_on_the_disk() {
        let file = tempfile::tempfile().unwrap();
        let took = measure(file.try_clone().unwrap()).unwrap();
        assert!(took.len() >= FEWEST && took.iter().all(|took| !took.is_zero()));
        let length = file.metadata().unwrap().len();
        assert_eq!(length, (took.len() * BLOCK.len()) as u64);
    }
}
