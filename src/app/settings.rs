//! All settings of a server, from the sections of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    app::auth::Auth,
    config::{Config, ConfigError},
    delivery, edge, engine,
    ledger::Prices,
    provider, store, traces,
};

pub struct Settings {
    pub server: Listen,
    pub passthrough: edge::passthrough::Settings,
    pub edge: edge::Settings,
    pub engine: engine::Settings,
    pub provider: provider::Settings,
    pub store: store::Settings,
    pub delivery: delivery::Settings,
    pub auth: Auth,
    pub prices: Prices,
    pub traces: traces::Settings,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub listen: SocketAddr,
    /// Where operators are served, and nowhere else; none serves them at `listen`.
    #[serde(deserialize_with = "address_or_none")]
    pub admin_listen: Option<SocketAddr>,
    /// Threads that serve connections; 0 is one a core.
    pub workers: usize,
    #[serde(with = "crate::model::time::human")]
    pub shutdown_grace: Duration,
    /// Where callers reach this server; empty: at `listen`.
    pub public_url: String,
    pub max_connections: usize,
    /// Bytes.
    pub max_body_memory: u64,
    #[serde(with = "crate::model::time::human")]
    pub head_timeout: Duration,
    #[serde(with = "crate::model::time::human")]
    pub idle_timeout: Duration,
    #[serde(with = "crate::model::time::human")]
    pub write_timeout: Duration,
    #[serde(with = "crate::model::time::human")]
    pub body_idle_timeout: Duration,
    #[serde(with = "crate::model::time::human")]
    pub body_timeout: Duration,
}

fn address_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    match text.as_str() {
        "" => Ok(None),
        address => address.parse().map(Some).map_err(D::Error::custom),
    }
}

impl Listen {
    fn public_url(&self) -> String {
        match self.public_url.trim_end_matches('/') {
            "" => format!("http://{}", self.listen),
            url => url.to_owned(),
        }
    }

    /// What the edge's server is made from.
    pub fn server(&self) -> edge::server::Settings {
        edge::server::Settings {
            listen: self.listen,
            admin_listen: self.admin_listen,
            workers: self.workers,
            drain_grace: self.shutdown_grace,
            max_connections: self.max_connections,
            timeouts: edge::server::Timeouts {
                head: self.head_timeout,
                idle: self.idle_timeout,
                write: self.write_timeout,
                body_idle: self.body_idle_timeout,
            },
        }
    }

    /// A key that would let nobody in.
    fn closed(&self) -> Option<&'static str> {
        let timeouts = [
            ("server.head_timeout", self.head_timeout),
            ("server.idle_timeout", self.idle_timeout),
            ("server.write_timeout", self.write_timeout),
            ("server.body_idle_timeout", self.body_idle_timeout),
            ("server.body_timeout", self.body_timeout),
        ];
        let mut none = timeouts.iter().filter(|(_, timeout)| timeout.is_zero());
        let none = none.next().map(|(key, _)| *key);
        none.or((self.max_connections == 0).then_some("server.max_connections"))
    }
}

impl Settings {
    /// # Errors
    /// Names the section and key that a module does not accept.
    pub fn read(config: &Config) -> Result<Settings, ConfigError> {
        let server: Listen = config.section("server")?;
        if let Some(key) = server.closed() {
            let reason = "expected more than zero: nobody could be served".to_owned();
            return Err(config.refuse(key, reason));
        }
        let delivery: delivery::Settings = config.section("webhook")?;
        let engine = engine::Settings {
            admission: config.section("admission")?,
            ladder: config.section("ladder")?,
            packing: config.section("packing")?,
            submit: config.section("submit")?,
            watch: config.section("watch")?,
            rescue: config.section("rescue")?,
            live: config.section("live")?,
            retention: config.section("retention")?,
            shadow: config.section("shadow")?,
            webhook: engine::HookSettings {
                max_concurrent: u32::try_from(delivery.max_concurrent).unwrap_or(u32::MAX),
                max_per_endpoint: u32::try_from(delivery.max_per_endpoint).unwrap_or(u32::MAX),
                horizon: delivery.horizon,
                first_retry: delivery.first_retry,
                max_inline_bytes: delivery.max_inline_bytes as u64,
                public_url: server.public_url(),
            },
        };
        // A tenant has half of the memory at most.
        if server.max_body_memory / 2 < engine.admission.max_body_bytes {
            let least = engine.admission.max_body_bytes.saturating_mul(2);
            let reason = format!("expected twice admission.max_body_bytes or more, {least}");
            return Err(config.refuse("server.max_body_memory", reason));
        }
        let auth: Auth = config.section("auth")?;
        auth.check(config)?;
        let deadline: edge::deadline::Settings = config.section("deadline")?;
        if engine
            .shadow
            .deadline
            .is_some_and(|shadow| shadow > deadline.max)
        {
            let most = humantime::format_duration(deadline.max);
            let reason = format!("expected at most deadline.max, {most}: no call may ask for more");
            return Err(config.refuse("shadow.deadline", reason));
        }
        Ok(Settings {
            passthrough: config.section("passthrough")?,
            edge: edge::Settings {
                deadline,
                hold: config.section("hold")?,
                body_timeout: server.body_timeout,
                max_body_memory: server.max_body_memory,
                connections: server.max_connections,
                base_url: (!server.public_url.is_empty()).then(|| server.public_url()),
                operators_apart: server.admin_listen.is_some(),
            },
            provider: config.section("upstream")?,
            store: config.section("store")?,
            server,
            engine,
            delivery,
            auth,
            prices: super::prices(config)?,
            traces: config.section("traces")?,
        })
    }

    /// With what OpenTelemetry's own variables say; `variable` looks into the environment.
    ///
    /// # Errors
    /// Names a variable that cannot be followed.
    pub fn within(
        self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, traces::BadVariable> {
        let traces = self.traces.within(variable)?;
        Ok(Settings { traces, ..self })
    }
}
