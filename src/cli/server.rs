//! The running server that a command asks, and the keys that it shows there.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;

use super::{Failure, remote};

#[derive(clap::Args)]
pub struct Server {
    /// The running server.
    #[arg(
        long,
        value_name = "URL",
        global = true,
        default_value = "http://127.0.0.1:8080"
    )]
    url: String,
    /// Where to find the admin token if OFFPEAK_ADMIN_TOKEN is not set: `admin.token`.
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        default_value = "offpeak-data"
    )]
    data_dir: PathBuf,
    /// Print the server's answer as it is.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Whose word a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Who calls with OPENAI_API_KEY.
    Caller,
    /// Who has the admin token.
    Operator,
}

impl Who {
    pub fn all(all: bool) -> Who {
        match all {
            true => Who::Operator,
            false => Who::Caller,
        }
    }
}

impl Server {
    /// `path` at the server; it begins with a slash.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base())
    }

    pub fn base(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    /// The JSON that the server answers with.
    ///
    /// # Errors
    /// No key, no server, or its refusal.
    pub async fn ask(
        &self,
        who: Who,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let key = self.key(who)?;
        remote::ask(method, &self.at(path), &key, body).await
    }

    pub async fn get(&self, who: Who, path: &str) -> Result<Value, Failure> {
        self.ask(who, Method::GET, path, None).await
    }

    /// # Errors
    /// Where there is none, with the place to look for it.
    pub fn key(&self, who: Who) -> Result<String, Failure> {
        match who {
            Who::Caller => caller_key(),
            Who::Operator => self.admin_token(),
        }
    }

    fn admin_token(&self) -> Result<String, Failure> {
        if let Ok(token) = std::env::var("OFFPEAK_ADMIN_TOKEN") {
            return Ok(token);
        }
        let file = self.data_dir.join("admin.token");
        let token = std::fs::read_to_string(&file).map_err(|error| {
            Failure::Other(format!(
                "OFFPEAK_ADMIN_TOKEN is not set, and {}: {error} (the server wrote its token \
                 there: --data-dir)",
                file.display()
            ))
        })?;
        Ok(token.trim().to_owned())
    }
}

fn caller_key() -> Result<String, Failure> {
    match std::env::var("OPENAI_API_KEY") {
        Ok(key) if !key.is_empty() => Ok(key),
        _ => Err(Failure::Other(
            "OPENAI_API_KEY is not set: the key that you call with".into(),
        )),
    }
}
