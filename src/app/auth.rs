//! The `[auth]` section: whose keys callers present, and where the provider's are.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer, de::Error as _};
use thiserror::Error;

use crate::{
    config::{Config, ConfigError},
    edge::passthrough::Paths,
    engine::Upstreams,
    model::secret::Secret,
    ports::Credential,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub mode: Mode,
    /// What passes on with keys that we issue.
    #[serde(deserialize_with = "paths")]
    pub passthrough_paths: Paths,
    pub upstream: BTreeMap<String, Upstream>,
}

/// Whose keys callers present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The provider's, which do the work.
    PassThrough,
    /// Those that we issue.
    Keys,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The variable that holds the provider's key.
    pub key_env: String,
    /// `OpenAI-Organization`.
    pub organization: Option<String>,
    /// `OpenAI-Project`.
    pub project: Option<String>,
}

/// A provider's key that is named and cannot be used. Never says what it is.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum BadUpstreamKey {
    #[error(
        "auth.mode is \"keys\", and the variable {variable} is not set, which \
         [auth.upstream.{upstream}] names: set it to the provider's key"
    )]
    NotSet { upstream: String, variable: String },
    #[error(
        "the variable {variable}, which [auth.upstream.{upstream}] names, holds no key: there \
         are characters in it that cannot stand in a header"
    )]
    NoKey { upstream: String, variable: String },
}

impl Auth {
    /// # Errors
    /// What makes sense by itself, and not together.
    pub fn check(&self, config: &Config) -> Result<(), ConfigError> {
        if self.mode == Mode::Keys && self.upstream.is_empty() {
            let reason = "expected an upstream to call with, in [auth.upstream.default]: \
                          `key_env = \"OPENAI_API_KEY\"`";
            return Err(config.refuse("auth.mode", reason.into()));
        }
        for (name, upstream) in &self.upstream {
            let headers = [&upstream.organization, &upstream.project];
            let plain = |text: &String| !text.is_empty() && is_printable(text);
            if !headers.into_iter().flatten().all(plain) {
                let key = format!("auth.upstream.{name}");
                let reason = "expected an organization and a project of visible characters";
                return Err(config.refuse(&key, reason.into()));
            }
            if upstream.key_env.is_empty() {
                let key = format!("auth.upstream.{name}.key_env");
                return Err(config.refuse(&key, "expected the name of a variable".into()));
            }
        }
        Ok(())
    }

    /// The variables to read.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let upstreams = self.upstream.values().filter(|_| self.mode == Mode::Keys);
        upstreams.map(|upstream| upstream.key_env.as_str())
    }

    /// What does the work of issued keys; None where callers present the provider's.
    ///
    /// # Errors
    /// For a variable that is not set or holds no key.
    pub fn upstreams(
        &self,
        variables: &HashMap<String, Secret>,
    ) -> Result<Option<Upstreams>, BadUpstreamKey> {
        if self.mode == Mode::PassThrough {
            return Ok(None);
        }
        let upstreams = self.upstream.iter().map(|(name, upstream)| {
            let credential = upstream.credential(name, variables)?;
            Ok((name.clone(), credential))
        });
        upstreams.collect::<Result<_, _>>().map(Some)
    }
}

impl Upstream {
    fn credential(
        &self,
        name: &str,
        variables: &HashMap<String, Secret>,
    ) -> Result<Credential, BadUpstreamKey> {
        let (upstream, variable) = (name.to_owned(), self.key_env.clone());
        let key = variables.get(&self.key_env);
        let key = key.map(|key| key.expose().trim()).unwrap_or_default();
        if key.is_empty() {
            return Err(BadUpstreamKey::NotSet { upstream, variable });
        }
        if !is_printable(key) {
            return Err(BadUpstreamKey::NoKey { upstream, variable });
        }
        let mut headers = vec![("authorization".to_owned(), format!("Bearer {key}"))];
        let more = [
            ("openai-organization", &self.organization),
            ("openai-project", &self.project),
        ];
        for (name, value) in more {
            headers.extend(value.clone().map(|value| (name.to_owned(), value)));
        }
        Ok(Credential {
            headers,
            query: None,
        })
    }
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn paths<'de, D: Deserializer<'de>>(from: D) -> Result<Paths, D::Error> {
    let named = Vec::<String>::deserialize(from)?;
    Paths::read(&named).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> Result<Auth, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("offpeak.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file), [("", ""); 0], &[]).unwrap();
        let auth: Auth = config.section("auth")?;
        auth.check(&config)?;
        Ok(auth)
    }

    const KEYS: &str = "[auth]\nmode = \"keys\"\n[auth.upstream.default]\nkey_env = \"A_KEY\"\n\
                        organization = \"org-1\"\n[auth.upstream.eu]\nkey_env = \"EU_KEY\"\n";

    fn variables(set: &[(&str, &str)]) -> HashMap<String, Secret> {
        set.iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
            .collect()
    }

    #[test]
    fn every_named_variable_is_set_to_a_key() {
        let auth = auth(KEYS).unwrap();
        assert_eq!(auth.variables().collect::<Vec<_>>(), ["A_KEY", "EU_KEY"]);
        let set = variables(&[("A_KEY", " sk-a\n"), ("EU_KEY", "sk-eu")]);
        let upstreams = auth.upstreams(&set).unwrap().unwrap();
        let headers = |name: &str| upstreams[name].headers.clone();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let default = [
            pair("authorization", "Bearer sk-a"),
            pair("openai-organization", "org-1"),
        ];
        assert_eq!(headers("default"), default);
        assert_eq!(headers("eu"), [pair("authorization", "Bearer sk-eu")]);
        for (eu, says) in [
            (None, "EU_KEY is not set"),
            (Some("  "), "EU_KEY is not set"),
            (Some("sk two"), "EU_KEY, which"),
            (Some("sk-ü"), "EU_KEY, which"),
        ] {
            let mut set = variables(&[("A_KEY", "sk-a")]);
            set.extend(eu.map(|eu| ("EU_KEY".to_owned(), Secret::new(eu))));
            let error = auth.upstreams(&set).unwrap_err().to_string();
            assert!(
                error.contains(says) && error.contains("auth.upstream.eu"),
                "{error}"
            );
            assert!(!error.contains("sk"), "{error}");
        }
    }

    #[test]
    fn without_keys_nothing_is_read() {
        let off = auth(&KEYS.replace("\"keys\"", "\"pass-through\"")).unwrap();
        assert_eq!(off.variables().count(), 0);
        assert_eq!(off.upstreams(&HashMap::new()), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        for (text, says) in [
            ("[auth]\nmode = \"keys\"", "auth.upstream.default"),
            ("[auth]\nmode = \"jwt\"", "`auth.mode` is \"jwt\""),
            ("[auth]\npassthrough_paths = [\"v1\"]", "`v1` is no path"),
            ("[auth.upstream.x]\nkey = \"sk\"", "auth.upstream.x"),
            (
                "[auth.upstream.x]\nkey_env = \"\"",
                "auth.upstream.x.key_env",
            ),
            (
                "[auth.upstream.x]\nkey_env = \"A\"\nproject = \"a b\"",
                "auth.upstream.x",
            ),
        ] {
            let error = auth(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
