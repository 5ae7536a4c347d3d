//! The `[traces]` section, and what OpenTelemetry's own variables add to it.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use thiserror::Error;
use url::Url;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// None: nothing is told, unless the environment names a collector.
    #[serde(deserialize_with = "collector_or_none")]
    pub endpoint: Option<Collector>,
    /// `service.name`, which only the environment changes.
    #[serde(skip)]
    pub service: Option<String>,
    /// Of the requests whose callers sent no trace along, the share that is told of.
    #[serde(deserialize_with = "share")]
    pub sample_ratio: f64,
    /// The same of calls that pass through.
    #[serde(deserialize_with = "share")]
    pub passthrough_ratio: f64,
    /// For one try to send.
    #[serde(with = "crate::model::time::human")]
    pub timeout: Duration,
}

/// Where spans are sent: a URL to post to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(Url);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadCollector {
    #[error("expected a URL such as \"http://localhost:4318\", or \"\" for no traces")]
    NoUrl,
    #[error(
        "expected a URL without a user or a password: what the collector asks for goes into \
         the variable OTEL_EXPORTER_OTLP_HEADERS"
    )]
    Secret,
}

/// A variable of OpenTelemetry's that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadVariable {
    #[error("{0}: {1}")]
    Collector(&'static str, BadCollector),
    #[error(
        "{0} asks for another protocol than `http/protobuf`, which is the one that Offpeak \
         speaks. Unset it, or set traces.endpoint"
    )]
    Protocol(&'static str),
}

/// Where OTLP over HTTP takes spans, below a collector's base URL.
const PATH: &str = "v1/traces";

impl Settings {
    /// A collector named by the settings goes over one named by `variable`, which looks
    /// into the environment.
    ///
    /// # Errors
    /// For a collector that cannot be sent to.
    pub fn within(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, BadVariable> {
        let set = |name| variable(name).filter(|value| !value.trim().is_empty());
        self.service = set("OTEL_SERVICE_NAME");
        if self.endpoint.is_some() {
            return Ok(self);
        }
        let whole = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let named = match (set(whole), set(base)) {
            (Some(url), _) => (whole, Collector::whole(&url)),
            (None, Some(url)) => (base, url.parse()),
            (None, None) => return Ok(self),
        };
        // What others of this environment are told holds for us too.
        let is =
            |name, value: &str| set(name).is_some_and(|it| it.trim().eq_ignore_ascii_case(value));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(self);
        }
        let (name, collector) = named;
        self.endpoint = Some(collector.map_err(|bad| BadVariable::Collector(name, bad))?);
        let protocols = [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ];
        let asked = protocols
            .into_iter()
            .find_map(|name| Some((name, set(name)?)));
        match asked {
            Some((name, protocol)) if protocol.trim() != "http/protobuf" => {
                Err(BadVariable::Protocol(name))
            }
            _ => Ok(self),
        }
    }
}

impl Collector {
    /// A URL that is posted to as it stands.
    fn whole(text: &str) -> Result<Collector, BadCollector> {
        let url: Url = text.trim().parse().map_err(|_| BadCollector::NoUrl)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(BadCollector::NoUrl);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadCollector::Secret);
        }
        Ok(Collector(url))
    }

    /// As a log may show it: a path or a query may be a secret.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

impl FromStr for Collector {
    type Err = BadCollector;

    /// A base URL; one that ends as OTLP's URLs do is taken as it stands.
    fn from_str(text: &str) -> Result<Collector, BadCollector> {
        let Collector(mut url) = Collector::whole(text)?;
        let path = url.path().trim_end_matches('/');
        if !path.ends_with(PATH) {
            let path = format!("{path}/{PATH}");
            url.set_path(&path);
        }
        Ok(Collector(url))
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn collector_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Collector>, D::Error> {
    let text = String::deserialize(from)?;
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(D::Error::custom),
    }
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(from)?;
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err(D::Error::custom("expected a share, from 0.0 to 1.0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str) -> Settings {
        let text = format!(
            "endpoint = {endpoint:?}\nsample_ratio = 1.0\npassthrough_ratio = 0.0\n\
             timeout = \"1s\""
        );
        toml::from_str(&text).unwrap()
    }

    fn within(endpoint: &str, set: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variable = |name: &str| {
            let found = set.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match settings(endpoint).within(variable) {
            Ok(settings) => Ok(settings.endpoint.map(|it| it.to_string())),
            Err(bad) => Err(bad.to_string()),
        }
    }

    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const WHOLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    #[test]
    fn a_base_url_is_told_from_a_whole_one() {
        for (given, url) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://x.test/otlp", "https://x.test/otlp/v1/traces"),
            (
                "https://x.test/otlp/v1/traces",
                "https://x.test/otlp/v1/traces",
            ),
        ] {
            assert_eq!(given.parse::<Collector>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn what_cannot_be_posted_to_is_refused() {
        for (given, bad) in [
            ("collector:4318", BadCollector::NoUrl),
            ("collector", BadCollector::NoUrl),
            ("grpc://collector:4317", BadCollector::NoUrl),
            ("http://", BadCollector::NoUrl),
            ("http://me:pass@collector:4318", BadCollector::Secret),
        ] {
            assert_eq!(given.parse::<Collector>(), Err(bad), "{given}");
        }
    }

    #[test]
    fn the_settings_go_over_the_environment() {
        let url = |url: &str| Ok(Some(url.to_owned()));
        for (endpoint, set, found) in [
            ("", &[][..], Ok(None)),
            ("", &[(BASE, "")], Ok(None)),
            (
                "",
                &[(BASE, "http://b:4318")],
                url("http://b:4318/v1/traces"),
            ),
            (
                "",
                &[(BASE, "http://b"), (WHOLE, "http://w/x")],
                url("http://w/x"),
            ),
            ("http://s", &[(BASE, "http://b")], url("http://s/v1/traces")),
            (
                "",
                &[(BASE, "http://b"), ("OTEL_TRACES_EXPORTER", "none")],
                Ok(None),
            ),
            (
                "",
                &[(BASE, "http://b"), ("OTEL_SDK_DISABLED", "TRUE")],
                Ok(None),
            ),
        ] {
            assert_eq!(within(endpoint, set), found, "{endpoint:?}, {set:?}");
        }
    }

    #[test]
    fn variables_that_cannot_be_followed_are_named() {
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        for (set, says) in [
            (&[(BASE, "b:4318")][..], BASE),
            (
                &[(BASE, "http://b:4317"), grpc],
                "OTEL_EXPORTER_OTLP_PROTOCOL",
            ),
        ] {
            let error = within("", set).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let told = within("http://s", &[grpc]);
        assert!(told.is_ok(), "not asked: the settings name a collector");
    }
}
