//! Where a call goes: the upstream's base URL and the mapping of paths onto it.

use bytes::Bytes;
use http::{HeaderValue, Uri, uri::PathAndQuery};
use url::Url;

/// An upstream's base URL, as one would set it in `OPENAI_BASE_URL`.
///
/// The caller's base is `http://us/v1`, so `/v1` stands for the base path:
///
/// | base URL | `/v1/x` goes to | `/other` goes to |
/// |---|---|---|
/// | `https://host/v1` | `/v1/x` | `/other` |
/// | `https://host/openai/v1` | `/openai/v1/x` | `/openai/other` |
/// | `https://host/v1beta/openai` | `/v1beta/openai/x` | `/v1beta/openai/other` |
/// | `https://host` | `/x` | `/other` |
///
/// In words: `/v1` and what lies under it is put under the base path; every
/// other path is put under the base path less its final `/v1`. Nothing is
/// decoded, normalised or re-encoded, and the query is kept as it came.
#[derive(Debug, Clone)]
pub struct Target {
    /// Scheme and authority, for the connector.
    origin: Uri,
    host: HeaderValue,
    /// Without a final `/`; empty for the root.
    base: String,
    /// `base` less its final `/v1`.
    root: String,
}

/// Why a URL cannot be an upstream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadBase {
    #[error("the upstream `{0}` is neither http nor https")]
    Scheme(String),
    #[error("the upstream `{0}` has a user name, a query or a fragment")]
    Extra(String),
    #[error("the upstream `{0}` cannot be called: {1}")]
    Uri(String, String),
}

impl Target {
    pub fn new(base_url: &Url) -> Result<Target, BadBase> {
        let shown = || base_url.to_string();
        if !matches!(base_url.scheme(), "http" | "https") {
            return Err(BadBase::Scheme(shown()));
        }
        let extra = !base_url.username().is_empty()
            || base_url.password().is_some()
            || base_url.query().is_some()
            || base_url.fragment().is_some();
        if extra {
            return Err(BadBase::Extra(base_url.host_str().unwrap_or("").to_owned()));
        }
        let authority = base_url.authority();
        let bad = |error: http::Error| BadBase::Uri(shown(), error.to_string());
        let origin = Uri::builder()
            .scheme(base_url.scheme())
            .authority(authority)
            .path_and_query("/")
            .build()
            .map_err(bad)?;
        let base = base_url.path().trim_end_matches('/').to_owned();
        let root = base.strip_suffix("/v1").unwrap_or(&base).to_owned();
        Ok(Target {
            origin,
            host: HeaderValue::from_str(authority).map_err(|error| bad(error.into()))?,
            base,
            root,
        })
    }

    /// Scheme and authority: what to connect to.
    pub fn origin(&self) -> &Uri {
        &self.origin
    }

    /// The `Host` that the upstream is called by.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The request target to send in place of `uri`, in origin form. `None`
    /// when `uri` is already it, as it is for the common base `https://host/v1`
    /// and for `*`.
    ///
    /// # Errors
    /// When `uri` has no path (CONNECT), or the joined path is longer than a
    /// URI may be (64 KB).
    pub fn map(&self, uri: &Uri) -> Result<Option<Uri>, http::Error> {
        let path = uri.path();
        if path == "*" {
            return Ok(None);
        }
        let (prefix, rest) = match path.strip_prefix("/v1") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => (&self.base, rest),
            _ => (&self.root, path),
        };
        let unchanged = prefix.len() + rest.len() == path.len() && path.starts_with(&**prefix);
        if unchanged && uri.scheme().is_none() && uri.authority().is_none() {
            return Ok(None);
        }
        let query = uri.query();
        let mut joined = String::with_capacity(
            1 + prefix.len() + rest.len() + query.map_or(0, |query| query.len() + 1),
        );
        joined.push_str(prefix);
        joined.push_str(rest);
        if joined.is_empty() {
            joined.push('/');
        }
        if let Some(query) = query {
            joined.push('?');
            joined.push_str(query);
        }
        Ok(Some(
            PathAndQuery::from_maybe_shared(Bytes::from(joined))?.into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(base: &str) -> Target {
        Target::new(&Url::parse(base).unwrap()).unwrap()
    }

    #[test]
    fn puts_v1_under_the_base_path() {
        let table = [
            ("https://h/v1", "/v1/models", "/v1/models"),
            ("https://h/v1/", "/v1/models", "/v1/models"),
            ("https://h/v1", "/v1", "/v1"),
            ("https://h/v1", "/v1/", "/v1/"),
            ("https://h/v1", "/v1//models", "/v1//models"),
            ("https://h/v1", "/v1beta/x", "/v1beta/x"),
            ("https://h/v1", "/v2/x", "/v2/x"),
            ("https://h/v1", "/", "/"),
            ("https://h/v1", "/v1/a/../b/%2e%2F", "/v1/a/../b/%2e%2F"),
            ("https://h/v1", "/v1/x?", "/v1/x?"),
            (
                "https://h/v1",
                "/v1/x?a=%20+b&&c[]=é|'{}`^\\?/:@",
                "/v1/x?a=%20+b&&c[]=é|'{}`^\\?/:@",
            ),
            ("https://h/v1", "http://us/v1/x?q", "/v1/x?q"),
            ("https://h/v1", "*", "*"),
            ("https://h/openai/v1", "/v1/x?a=1", "/openai/v1/x?a=1"),
            ("https://h/openai/v1", "/v2/x", "/openai/v2/x"),
            ("https://h/openai/v1", "/openai/v1/x", "/openai/openai/v1/x"),
            ("https://h/v1beta/openai", "/v1/x", "/v1beta/openai/x"),
            ("https://h/v1beta/openai", "/x", "/v1beta/openai/x"),
            ("https://h", "/v1/x", "/x"),
            ("https://h", "/v1", "/"),
            ("https://h", "/v1?q", "/?q"),
            ("https://h", "/x", "/x"),
            ("https://h/api", "/v1", "/api"),
        ];
        for (base, sent, expected) in table {
            let uri: Uri = sent.parse().unwrap();
            let mapped = target(base).map(&uri).unwrap().unwrap_or(uri);
            assert_eq!(mapped.to_string(), expected, "{base} {sent}");
        }
    }

    #[test]
    fn leaves_the_common_case_alone() {
        let uri: Uri = "/v1/chat/completions?x=1".parse().unwrap();
        assert_eq!(target("https://h/v1").map(&uri).unwrap(), None);
    }

    #[test]
    fn calls_the_upstream_by_its_own_name() {
        assert_eq!(target("https://api.openai.com/v1").host(), "api.openai.com");
        assert_eq!(target("http://127.0.0.1:8080/v1").host(), "127.0.0.1:8080");
        assert_eq!(target("http://[::1]:80/v1").host(), "[::1]");
    }

    #[test]
    fn refuses_what_is_no_base_url() {
        for bad in [
            "ftp://h/v1",
            "https://u:p@h/v1",
            "https://h/v1?key=1",
            "https://h/v1#x",
        ] {
            assert!(Target::new(&Url::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
