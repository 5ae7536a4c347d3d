//! All settings of a server, from the sections of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::{
    app::auth::Auth,
    config::{Config, ConfigError},
    delivery, edge, engine, provider, store,
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
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub listen: SocketAddr,
    /// Threads that serve connections; 0 is one a core.
    pub workers: usize,
    #[serde(with = "crate::model::time::human")]
    pub shutdown_grace: Duration,
    /// Where callers reach this server; empty: at `listen`.
    pub public_url: String,
}

impl Listen {
    fn public_url(&self) -> String {
        match self.public_url.trim_end_matches('/') {
            "" => format!("http://{}", self.listen),
            url => url.to_owned(),
        }
    }
}

impl Settings {
    /// # Errors
    /// Names the section and key that a module does not accept.
    pub fn read(config: &Config) -> Result<Settings, ConfigError> {
        let server: Listen = config.section("server")?;
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
                horizon: delivery.horizon,
                first_retry: delivery.first_retry,
                max_inline_bytes: delivery.max_inline_bytes as u64,
                public_url: server.public_url(),
            },
        };
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
            },
            provider: config.section("upstream")?,
            store: config.section("store")?,
            server,
            engine,
            delivery,
            auth,
        })
    }
}
