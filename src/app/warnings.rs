//! Settings that work, and that may not be meant: told in the log at the start.

use std::net::SocketAddr;

use url::Url;

use super::Settings;

impl Settings {
    /// One sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let upstream = self.provider.base_url.parse().ok();
        let upstream = upstream.and_then(|url| without_path(&url));
        let admin = self.server.admin_listen.and_then(admin_beyond_loopback);
        [upstream, beyond_loopback(self.server.listen), admin]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Some providers take calls at the root, so it is not refused; but as a rule a
/// base URL without a path is one whose `/v1` was forgotten, and every batch would
/// fail there.
fn without_path(upstream: &Url) -> Option<String> {
    if upstream.path() != "/" {
        return None;
    }
    let shown = upstream.as_str().trim_end_matches('/');
    let host = upstream.host_str().unwrap_or_default();
    let openai = host == "api.openai.com" || host.ends_with(".api.openai.com");
    Some(match openai {
        true => format!(
            "upstream.base_url is {shown}, where OpenAI answers no calls: set it to {shown}/v1"
        ),
        false => format!(
            "upstream.base_url is {shown}, without a path: most OpenAI-compatible APIs \
             stand below /v1. If calls fail with 404, set it to {shown}/v1"
        ),
    })
}

/// Callers bring keys of their own and only operators have a token, so that nothing
/// is refused: but the keys come in the clear, and where the upstream asks for none
/// there is no lock at all.
fn beyond_loopback(listen: SocketAddr) -> Option<String> {
    (!listen.ip().is_loopback()).then(|| {
        format!(
            "server.listen is {listen}, which is not loopback: callers' keys cross the \
             network unencrypted unless TLS ends in front of it, and whoever reaches it \
             can call the upstream, without a key if that asks for none"
        )
    })
}

fn admin_beyond_loopback(listen: SocketAddr) -> Option<String> {
    (!listen.ip().is_loopback()).then(|| {
        format!(
            "server.admin_listen is {listen}, which is not loopback: the admin token crosses \
             the network unencrypted unless TLS ends in front of it, and whoever reaches it \
             reads /metrics"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_without_a_path() {
        for (url, says) in [
            ("https://api.openai.com", Some("OpenAI answers no calls")),
            (
                "https://eu.api.openai.com/",
                Some("OpenAI answers no calls"),
            ),
            ("http://127.0.0.1:8090/", Some("http://127.0.0.1:8090/v1")),
            ("https://api.deepseek.com", Some("If calls fail with 404")),
            ("https://api.openai.com/v1", None),
            ("https://host/v1beta/openai", None),
        ] {
            let warning = without_path(&url.parse().unwrap());
            match (&warning, says) {
                (Some(warning), Some(says)) => assert!(warning.contains(says), "{warning}"),
                (warning, says) => assert_eq!(warning.as_deref(), says, "{url}"),
            }
        }
    }

    #[test]
    fn an_address_that_others_reach() {
        for (listen, warned) in [
            ("127.0.0.1:8080", false),
            ("127.9.9.9:8080", false),
            ("[::1]:8080", false),
            ("0.0.0.0:8080", true),
            ("[::]:8080", true),
            ("10.0.0.1:8080", true),
        ] {
            let warning = beyond_loopback(listen.parse().unwrap());
            assert_eq!(warning.is_some(), warned, "{listen}");
            assert!(warning.is_none_or(|warning| warning.contains(listen)));
            let admin = admin_beyond_loopback(listen.parse().unwrap());
            assert_eq!(admin.is_some(), warned, "{listen}");
        }
    }
}
