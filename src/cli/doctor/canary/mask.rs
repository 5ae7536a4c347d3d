//! What must not be in a transcript that somebody attaches to an issue.

use serde_json::Value;

pub const MASKED: &str = "[masked]";

/// Names and shapes of what tells who somebody is.
#[derive(Clone, Debug)]
pub struct Mask {
    /// To be left out wherever they stand.
    secrets: Vec<String>,
}

/// Shorter ones stand in words that have nothing to do with them.
const SHORTEST: usize = 6;

/// Fields whose text is somebody's.
const FIELDS: [&str; 13] = [
    "organization",
    "organization_id",
    "org_id",
    "project",
    "project_id",
    "account",
    "account_id",
    "user",
    "user_id",
    "owner",
    "created_by",
    "safety_identifier",
    "prompt_cache_key",
];

/// How ids of accounts and keys begin, as OpenAI makes them.
const PREFIXES: [&str; 8] = [
    "sk-", "sess-", "org-", "proj_", "proj-", "user-", "user_", "key_",
];

impl Mask {
    pub fn new(secrets: &[String]) -> Self {
        let mut mask = Mask {
            secrets: Vec::new(),
        };
        secrets.iter().for_each(|secret| mask.learn(secret));
        mask
    }

    /// From here on `secret` is left out.
    pub fn learn(&mut self, secret: &str) {
        let is_known = self.secrets.iter().any(|known| known == secret);
        if secret.len() >= SHORTEST && secret != MASKED && !is_known {
            self.secrets.push(secret.to_owned());
        }
    }

    pub fn text(&self, text: &str) -> String {
        let secrets = self.secrets.iter();
        let known = secrets.fold(text.to_owned(), |text, it| text.replace(it, MASKED));
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*');
        let mut masked = String::with_capacity(known.len());
        let mut rest = known.as_str();
        while let Some(start) = rest.find(is_part) {
            let (between, from) = rest.split_at(start);
            let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
            masked.push_str(between);
            match PREFIXES.iter().find(|it| word.starts_with(**it)) {
                Some(prefix) if word.len() > prefix.len() => {
                    masked.push_str(prefix);
                    masked.push_str(MASKED);
                }
                _ => masked.push_str(word),
            }
            rest = after;
        }
        masked + rest
    }

    pub fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => {
                let masked = fields.iter().map(|(name, value)| {
                    let value = match value {
                        Value::String(_) if FIELDS.contains(&name.as_str()) => MASKED.into(),
                        value => self.json(value),
                    };
                    (self.text(name), value)
                });
                Value::Object(masked.collect())
            }
            plain => plain.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nobody_is_named() {
        let mut mask = Mask::new(&["topsecretkey".into(), "x".into()]);
        mask.learn("acme-corp");
        for (text, masked) in [
            (
                "Incorrect API key: topsecretkey.",
                "Incorrect API key: [masked].",
            ),
            ("key sk-proj-abc_DEF-123, ok", "key sk-[masked], ok"),
            ("sk-abc***xyz", "sk-[masked]"),
            (
                "in organization org-4FaB on tokens",
                "in organization org-[masked] on tokens",
            ),
            ("(proj_1a2b)", "(proj_[masked])"),
            ("of acme-corp", "of [masked]"),
            (
                "an x-ray in Köln, sk- and task-1",
                "an x-ray in Köln, sk- and task-1",
            ),
            ("", ""),
        ] {
            assert_eq!(mask.text(text), masked);
        }
        let value = json!({
            "user": "bob", "project_id": null, "n": 1, "list": ["user-1234"],
            "in": {"organization": "acme", "key_9f": true},
        });
        let masked = json!({
            "user": "[masked]", "project_id": null, "n": 1, "list": ["user-[masked]"],
            "in": {"organization": "[masked]", "key_[masked]": true},
        });
        assert_eq!(mask.json(&value), masked);
    }
}
