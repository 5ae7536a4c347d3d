//! The descriptors that the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, which needs no rights, and
/// returns what holds then. Shells often give 1,024 of what may be a million.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors for all but callers and their calls' upstream connections: the store's
/// files, batch and live calls, operators, listeners.
const OTHERS: u64 = 256;

/// The most connections of callers, where so many descriptors may be open: each may
/// pass a call through, which takes another one to the upstream.
pub fn connections(wanted: usize, limit: u64) -> usize {
    // Where there are hardly more than those, a quarter.
    let most = (limit.saturating_sub(OTHERS) / 2).max(limit / 4);
    let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
    if most < wanted {
        tracing::info!(
            "server.max_connections is {wanted}, but only {limit} files may be open: \
             {most} connections are taken"
        );
    }
    wanted.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.current.unwrap_or(u64::MAX));
    }

    #[test]
    fn every_caller_can_have_an_upstream_connection() {
        assert_eq!(connections(100_000, 20_000), 9_872);
        assert_eq!(connections(100_000, 4_096), 1_920);
        assert_eq!(connections(100_000, 64), 16);
        assert_eq!(connections(100, 20_000), 100);
        assert_eq!(connections(100_000, u64::MAX), 100_000);
    }
}
