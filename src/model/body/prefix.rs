//! What a provider's prompt cache looks at: the beginning of the prompt.

use std::ops::Range;

use super::walk::{Walker, unquote};

/// Bytes that are compared. OpenAI caches prompts from 1,024 tokens on.
const COMPARED: usize = 8 * 1024;

/// Where the prompt stands in a compact body, in the order in which the model is
/// shown it: tools, instructions, then messages, input or prompt. Empty where there
/// is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt([Range<usize>; 3]);

impl Prompt {
    pub fn of(body: &str) -> Prompt {
        let mut parts: [Range<usize>; 3] = Default::default();
        let mut walker = Walker::new(body);
        let walked = walker.object(|walker, key| {
            let value = walker.value()?;
            let part = match unquote(key).as_deref() {
                Some("tools" | "functions") => 0,
                Some("instructions") => 1,
                Some("messages" | "input" | "prompt") => 2,
                _ => return Ok(()),
            };
            let end = walker.position();
            parts[part] = end - value.len()..end;
            Ok::<(), super::walk::Fault>(())
        });
        match walked {
            Ok(()) => Prompt(parts),
            Err(_) => Prompt::default(),
        }
    }

    /// What bodies are ordered by, so that those that begin alike stand together.
    pub fn begins<'a>(&self, body: &'a [u8]) -> [&'a [u8]; 3] {
        self.0.clone().map(|part| {
            let value = body.get(part).unwrap_or_default();
            &value[..value.len().min(COMPARED)]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_in_the_order_of_the_model() {
        let body = r#"{"model":"m","input":"c","n":1,"instructions":"b","tools":["a"]}"#;
        let begins = Prompt::of(body).begins(body.as_bytes());
        let expected: [&[u8]; 3] = [b"[\"a\"]", b"\"b\"", b"\"c\""];
        assert_eq!(begins, expected);
        for none in ["{}", "[1]", "{\"messages\":"] {
            assert_eq!(Prompt::of(none), Prompt::default(), "{none}");
        }
    }
}
