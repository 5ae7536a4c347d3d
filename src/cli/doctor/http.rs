//! Calls of the checks, and what is read of the answers.

use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;

use super::{PATIENCE, clock::Exchange};
use crate::{
    app::{Mode, Secrets, Settings, SystemClock},
    cli::{Failure, remote},
};

/// As a server calls: without a proxy from the environment, following no redirect.
pub fn client() -> Result<reqwest::Client, Failure> {
    // reqwest wants a TLS provider to be there.
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("offpeak-doctor/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .timeout(PATIENCE)
        .build()
        .map_err(|error| Failure::Other(format!("no HTTP client: {error}")))
}

/// A key of the provider's.
#[derive(Clone)]
pub struct Key {
    /// The variable that holds it.
    pub variable: String,
    pub headers: HeaderMap,
    /// What must not be shown: the key itself, organization and project.
    pub secrets: Vec<String>,
}

impl Key {
    /// Those that calls of this server are made with: with issued keys the server's own,
    /// else the one that this command was given as any SDK is.
    pub fn all(settings: &Settings, secrets: &Secrets) -> Vec<Key> {
        if settings.auth.mode == Mode::PassThrough {
            return Key::of_environment().into_iter().collect();
        }
        let upstreams = settings.auth.upstreams(&secrets.upstream_keys);
        let upstreams = upstreams.ok().flatten().unwrap_or_default();
        let named = settings.auth.upstream.iter().filter_map(|(name, it)| {
            let credential = upstreams.get(name)?;
            let headers = credential.headers.iter();
            let headers = headers.map(|(name, value)| (name.as_str(), value.clone()));
            Some(Key::new(&it.key_env, headers))
        });
        named.collect()
    }

    /// What the SDKs read.
    fn of_environment() -> Option<Key> {
        let set = |name| std::env::var(name).ok().filter(|it| !it.trim().is_empty());
        let key = set("OPENAI_API_KEY")?;
        let headers = [
            ("authorization", Some(format!("Bearer {}", key.trim()))),
            ("openai-organization", set("OPENAI_ORG_ID")),
            ("openai-project", set("OPENAI_PROJECT_ID")),
        ];
        let headers = headers.into_iter();
        let headers = headers.filter_map(|(name, value)| Some((name, value?)));
        Some(Key::new("OPENAI_API_KEY", headers))
    }

    fn new<'a>(variable: &str, headers: impl Iterator<Item = (&'a str, String)>) -> Key {
        let mut key = Key {
            variable: variable.to_owned(),
            headers: HeaderMap::new(),
            secrets: Vec::new(),
        };
        for (name, value) in headers {
            let bare = value.strip_prefix("Bearer ").unwrap_or(&value);
            key.secrets.push(bare.trim().to_owned());
            let name = http::HeaderName::try_from(name);
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::try_from(value.as_str())) {
                value.set_sensitive(true);
                key.headers.insert(name, value);
            }
        }
        key
    }

    /// What a provider may quote of it is left out.
    pub fn mask(&self, text: &str) -> String {
        let secrets = self.secrets.iter().filter(|it| !it.is_empty());
        secrets.fold(text.to_owned(), |text, it| text.replace(it, "[masked]"))
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Said {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null where it is no JSON.
    pub body: Value,
    pub text: String,
    pub exchange: Exchange,
}

impl Said {
    /// `error.message`, or how the answer begins.
    pub fn message(&self) -> String {
        let error = &self.body["error"];
        let message = error["message"].as_str().or(error.as_str());
        let message = message.unwrap_or(self.text.trim());
        message.chars().take(200).collect()
    }

    /// Whether it is as lists are at OpenAI.
    pub fn is_list(&self) -> bool {
        self.body["data"].is_array()
    }

    pub fn code(&self) -> Option<&str> {
        self.body["error"]["code"].as_str()
    }

    /// What a restricted key lacks, as OpenAI names it: with 401 as often as with 403.
    pub fn missing_scopes(&self) -> Vec<String> {
        if !matches!(self.status, 401 | 403) {
            return Vec::new();
        }
        let message = self.message();
        let Some((_, scopes)) = message.split_once("Missing scopes:") else {
            return Vec::new();
        };
        let is_scope = |word: &&str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
            word.contains('.') && word.chars().all(plain)
        };
        let words = scopes.split([' ', ',']).filter(|word| !word.is_empty());
        words
            .map(|word| word.trim_end_matches('.'))
            .take_while(is_scope)
            .map(str::to_owned)
            .collect()
    }
}

/// One call, with its times on this machine's clock.
///
/// # Errors
/// Why there is no whole answer.
pub async fn ask(
    http: &reqwest::Client,
    method: Method,
    url: &str,
    headers: &HeaderMap,
    body: Option<&Value>,
) -> Result<Said, String> {
    let clock = SystemClock::new();
    let mut call = http.request(method, url).headers(headers.clone());
    if let Some(body) = body {
        call = call.json(body);
    }
    let sent = clock.now();
    let failed = |error: reqwest::Error| match error.is_timeout() {
        true => format!("nothing came within {} s", PATIENCE.as_secs()),
        false => remote::root_cause(&error),
    };
    let reply = call.send().await.map_err(failed)?;
    let exchange = Exchange {
        sent,
        answered: clock.now(),
    };
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    let text = reply.text().await.map_err(failed)?;
    Ok(Said {
        status,
        headers,
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
        exchange,
    })
}

/// `Authorization: Bearer KEY`; nothing for what no header can hold.
pub fn bearer(key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {key}")) {
        value.set_sensitive(true);
        headers.insert(http::header::AUTHORIZATION, value);
    }
    headers
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    pub fn said(status: u16, text: &str) -> Said {
        Said {
            status,
            headers: HeaderMap::new(),
            body: serde_json::from_str(text).unwrap_or_default(),
            text: text.to_owned(),
            exchange: Exchange {
                sent: Timestamp::ZERO,
                answered: Timestamp::ZERO,
            },
        }
    }

    #[test]
    fn scopes_that_a_restricted_key_lacks() {
        let all = "You have insufficient permissions for this operation. Missing scopes: \
                   api.files.read, api.files.write. Check that you have the correct role.";
        for (status, message, scopes) in [
            (401, all, vec!["api.files.read", "api.files.write"]),
            (
                403,
                "Missing scopes: api.model.read",
                vec!["api.model.read"],
            ),
            (
                403,
                "Missing scopes: api.a.b model.request",
                vec!["api.a.b", "model.request"],
            ),
            (401, "Incorrect API key provided.", vec![]),
            (400, all, vec![]),
        ] {
            let text = serde_json::json!({"error": {"message": message}}).to_string();
            assert_eq!(said(status, &text).missing_scopes(), scopes, "{message}");
        }
        let flat = said(403, r#"{"error": "Missing scopes: api.model.read. Check"}"#);
        assert_eq!(flat.missing_scopes(), ["api.model.read"]);
        assert_eq!(said(502, "<html>").message(), "<html>");
    }

    #[test]
    fn what_a_provider_quotes_of_a_key_is_left_out() {
        let headers = [("authorization", "Bearer sk-secret".to_owned())];
        let key = Key::new("OPENAI_API_KEY", headers.into_iter());
        assert_eq!(key.mask("Incorrect: sk-secret."), "Incorrect: [masked].");
        assert!(!format!("{:?}", key.headers).contains("secret"));
    }
}
