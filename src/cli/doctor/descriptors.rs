//! The files that a server may open beside the connections that it is to take.

use rustix::process::{Resource, getrlimit};
use serde_json::json;

use super::report::Check;
use crate::app::Settings;

pub fn look(settings: &Settings) -> Check {
    let limit = getrlimit(Resource::Nofile).maximum;
    let taken = settings.server.server().connections();
    check(settings.server.max_connections, taken, limit)
}

/// `taken`: the connections that are taken where `limit` files may be open; no limit is
/// none.
fn check(wanted: usize, taken: usize, limit: Option<u64>) -> Check {
    const NAME: &str = "open files";
    let files = limit.map_or("any number of".to_owned(), |limit| limit.to_string());
    let measured = json!({"limit": limit, "connections": taken, "max_connections": wanted});
    match taken < wanted {
        false => Check::ok(
            NAME,
            format!("{files} files may be open, enough for {wanted} connections."),
        ),
        true => Check::warning(
            NAME,
            format!(
                "{files} files may be open, so that {taken} connections are taken and not \
                 {wanted} (server.max_connections)."
            ),
        )
        .advise(
            "Raise the hard limit (`LimitNOFILE=` of systemd, `--ulimit nofile=` of a \
             container, /etc/security/limits.conf), or lower server.max_connections.",
        ),
    }
    .measured(measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    #[test]
    fn fewer_than_wanted_is_told() {
        let low = check(100_000, 384, Some(1_024));
        assert_eq!(low.verdict, Verdict::Warning);
        assert!(low.says.contains("384 connections"), "{}", low.says);
        assert_eq!(check(100, 100, Some(1_024)).verdict, Verdict::Ok);
        let unlimited = check(100_000, 100_000, None);
        assert!(
            unlimited.says.starts_with("any number"),
            "{}",
            unlimited.says
        );
    }
}
