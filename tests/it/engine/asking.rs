//! Calls, as the edge would hand them to the engine.

use std::time::Duration;

use offpeak::{
    engine::{Call, Engine},
    model::{
        body,
        endpoint::Endpoint,
        line,
        request::{OnLate, Shape},
    },
    ports::Credential,
};
use serde_json::json;

pub const HOUR: Duration = Duration::from_secs(3600);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const SECOND: Duration = Duration::from_secs(1);

/// One call, to be changed field by field.
#[derive(Clone, Debug)]
pub struct Ask {
    pub text: String,
    /// The simulator's steering words.
    pub sim: String,
    pub key: String,
    pub model: String,
    pub within: Duration,
    pub on_late: OnLate,
    pub held: bool,
    pub retry: u32,
    pub stream: bool,
    pub webhook: Option<String>,
    pub idempotency: Option<String>,
    /// Sent as it is, in place of a chat body.
    pub body: Option<String>,
    pub endpoint: Endpoint,
}

/// A chat call that has six hours.
pub fn ask(text: impl Into<String>) -> Ask {
    Ask {
        text: text.into(),
        sim: String::new(),
        key: "sk-test".into(),
        model: "gpt-4o-mini".into(),
        within: 6 * HOUR,
        on_late: OnLate::Rescue,
        held: false,
        retry: 0,
        stream: false,
        webhook: None,
        idempotency: None,
        body: None,
        endpoint: Endpoint::ChatCompletions,
    }
}

impl Ask {
    pub fn within(self, within: Duration) -> Self {
        Ask { within, ..self }
    }

    pub fn sim(self, words: &str) -> Self {
        Ask {
            sim: words.into(),
            ..self
        }
    }

    pub fn key(self, key: &str) -> Self {
        Ask {
            key: key.into(),
            ..self
        }
    }

    pub fn on_late(self, on_late: OnLate) -> Self {
        Ask { on_late, ..self }
    }

    pub fn held(self) -> Self {
        Ask { held: true, ..self }
    }

    pub fn webhook(self) -> Self {
        self.webhook_to("https://hooks.example/offpeak")
    }

    pub fn webhook_to(self, target: &str) -> Self {
        Ask {
            webhook: Some(target.into()),
            ..self
        }
    }

    pub fn idempotent(self, key: &str) -> Self {
        Ask {
            idempotency: Some(key.into()),
            ..self
        }
    }

    /// The same of the Responses API.
    pub fn response(self) -> Self {
        let body = json!({"model": self.model, "input": self.text,
            "metadata": {"sim": self.sim}});
        Ask {
            endpoint: Endpoint::Responses,
            body: Some(body.to_string()),
            ..self
        }
    }

    pub fn body(&self) -> String {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": self.text}],
            "metadata": {"sim": self.sim},
        });
        if self.stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
        body.to_string()
    }

    pub fn call(&self, engine: &Engine) -> Call {
        let body = self.body();
        let mut in_line = Vec::new();
        body::batch_body(body.as_bytes(), &mut in_line).unwrap();
        let shape = match self.stream {
            true => Shape::Stream {
                include_usage: true,
            },
            false => Shape::Plain,
        };
        Call {
            caller: engine.identify(credential(&self.key)).unwrap(),
            endpoint: self.endpoint,
            model: self.model.clone(),
            line_bytes: line::line_length(self.endpoint, in_line.len()) as u32,
            inputs: 1,
            shape,
            store: body::scan(body.as_bytes(), self.endpoint)
                .ok()
                .and_then(|scan| scan.store),
            deadline: engine.now() + self.within,
            on_late: self.on_late,
            tag: None,
            webhook: self.webhook.clone(),
            idempotency_key: self.idempotency.clone(),
            held: self.held,
            retry: self.retry,
            live_only: None,
            strict: false,
            trace: None,
            body: body.into(),
        }
    }
}

pub fn credential(key: &str) -> Credential {
    Credential {
        headers: vec![("authorization".into(), format!("Bearer {key}"))],
        query: None,
    }
}

/// A few; `OFFPEAK_TEST_SEEDS=7..500` for a night.
pub fn seeds(few: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let given = std::env::var("OFFPEAK_TEST_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    match range {
        Some((from, to)) => (from.parse().unwrap()..to.parse().unwrap()).collect(),
        None => few.into_iter().collect(),
    }
}
