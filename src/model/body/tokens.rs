//! How many prompt tokens a body has, as a provider counts them against what may
//! be enqueued: text by the model's own encoding, escapes decoded; images and
//! other attachments by rule, never as the base64 that carries them.

use bpe_openai::{Tokenizer, cl100k_base, o200k_base};

use super::walk::{Fault, Kind, Walker, unquote};

/// Bytes of a body's text that are tokenized, some 6 ms of work; the rest is taken
/// to be like them.
const COUNTED: usize = 256 * 1024;
/// What frames a message, and what starts the answer (OpenAI's cookbook, "How to
/// count tokens with tiktoken").
const MESSAGE: u64 = 3;
const ANSWER: u64 = 3;
/// Characters of base64 to a token of a file or a sound: a page of a PDF is some
/// 50 kB and 1,500 tokens, a second of speech some 20 kB and 10.
const BASE64_PER_TOKEN: u64 = 32;
/// A file that is named rather than sent.
const NAMED_FILE: u64 = 1_500;

/// Prompt tokens of a body that [`super::scan`] has taken.
pub fn prompt_tokens(body: &[u8], model: &str) -> u64 {
    let counted = std::str::from_utf8(body).ok().and_then(|text| {
        let mut meter = Meter::of(model);
        meter.body(text).ok()?;
        Some(meter.total())
    });
    counted.unwrap_or_else(|| estimate(body.len() as u64))
}

/// Tokens of so many bytes that nobody has counted.
pub const fn estimate(bytes: u64) -> u64 {
    bytes.div_ceil(4)
}

struct Meter {
    tokenizer: &'static Tokenizer,
    image: Image,
    /// Bytes that may still be tokenized.
    left: usize,
    seen: u64,
    tokens: u64,
    /// Bytes of text beyond what may be tokenized.
    skipped: u64,
    /// Tokens that are not text.
    other: u64,
}

/// The most that one image costs, by its `detail` (OpenAI's vision guide: 85 and
/// 170 a tile of at most eight, 2,833 and 5,667 for gpt-4o-mini; 1,536 patches by
/// 1.62 or 2.46 for the small models after it). Its size would have to be decoded.
#[derive(Clone, Copy)]
struct Image {
    low: u64,
    high: u64,
}

impl Image {
    fn of(model: &str) -> Image {
        let (low, high) = match model {
            _ if model.starts_with("gpt-4o-mini") => (2_833, 48_169),
            _ if model.contains("-nano") => (3_779, 3_779),
            _ if model.contains("-mini") => (2_489, 2_489),
            _ => (85, 1_445),
        };
        Image { low, high }
    }
}

type Step = Result<(), Fault>;

impl Meter {
    fn of(model: &str) -> Meter {
        let model = model.strip_prefix("ft:").unwrap_or(model);
        Meter {
            tokenizer: tokenizer(model),
            image: Image::of(model),
            left: COUNTED,
            seen: 0,
            tokens: 0,
            skipped: 0,
            other: 0,
        }
    }

    fn total(&self) -> u64 {
        let skipped = match self.seen {
            0 => estimate(self.skipped),
            seen => (self.skipped * self.tokens).div_ceil(seen),
        };
        (self.tokens + skipped + self.other).max(1)
    }

    fn body(&mut self, text: &str) -> Step {
        let mut walker = Walker::new(text);
        walker.object(|walker, key| match unquote(key).as_deref() {
            Some("messages") => {
                self.other += ANSWER;
                self.items(walker)
            }
            Some("input" | "prompt") => self.items(walker),
            Some("instructions" | "suffix") => self.value(walker),
            // The model is shown them about as they are written, keys included.
            Some("tools" | "functions" | "response_format" | "text") => {
                let raw = walker.value()?;
                self.text(raw);
                Ok(())
            }
            _ => walker.value().map(drop),
        })
    }

    /// Messages, texts, or token ids.
    fn items(&mut self, walker: &mut Walker<'_>) -> Step {
        if walker.kind()? != Kind::Array {
            return self.value(walker);
        }
        walker.array(|walker| match walker.kind()? {
            Kind::Object => {
                self.other += MESSAGE;
                self.object(walker, false)
            }
            _ => self.value(walker),
        })
    }

    fn value(&mut self, walker: &mut Walker<'_>) -> Step {
        match walker.kind()? {
            Kind::String => {
                self.string(walker.value()?);
                Ok(())
            }
            Kind::Array => walker.array(|walker| self.value(walker)),
            Kind::Object => self.object(walker, false),
            Kind::Number => {
                self.other += 1;
                walker.value().map(drop)
            }
            Kind::Bool | Kind::Null => walker.value().map(drop),
        }
    }

    fn object(&mut self, walker: &mut Walker<'_>, mut is_image: bool) -> Step {
        let mut low = false;
        walker.object(|walker, key| {
            let name = unquote(key);
            let name = name.as_deref().unwrap_or_default();
            match (name, walker.kind()?) {
                ("image_url", Kind::Object) => return self.object(walker, true),
                ("image_url", Kind::String) => is_image = true,
                ("detail", Kind::String) => {
                    low = walker.value()? == "\"low\"";
                    return Ok(());
                }
                ("data" | "file_data" | "b64_json" | "encrypted_content", Kind::String) => {
                    self.attachment(walker.value()?);
                    return Ok(());
                }
                ("file_id" | "file_url", Kind::String) => self.other += NAMED_FILE,
                // Part of what frames a message.
                ("type" | "role" | "id" | "call_id" | "tool_call_id" | "status", Kind::String) => {}
                ("url", Kind::String) if is_image => {}
                _ => return self.value(walker),
            }
            walker.value().map(drop)
        })?;
        if is_image {
            self.other += if low { self.image.low } else { self.image.high };
        }
        Ok(())
    }

    fn string(&mut self, raw: &str) {
        let head = &raw[..raw.floor_char_boundary(128)];
        if head.starts_with("\"data:") && head.contains(";base64,") {
            match head.starts_with("\"data:image/") {
                true => self.other += self.image.high,
                false => self.attachment(raw),
            }
            return;
        }
        match unquote(raw) {
            Some(text) => self.text(&text),
            None => self.text(raw),
        }
    }

    fn attachment(&mut self, raw: &str) {
        self.other += (raw.len() as u64).div_ceil(BASE64_PER_TOKEN);
    }

    fn text(&mut self, text: &str) {
        let counted = &text[..text.floor_char_boundary(self.left)];
        self.left -= counted.len();
        self.seen += counted.len() as u64;
        self.skipped += (text.len() - counted.len()) as u64;
        self.tokens += self.tokenizer.count(counted) as u64;
    }
}

/// cl100k_base for the models before gpt-4o and for embeddings, o200k_base for all
/// others, unknown ones included.
fn tokenizer(model: &str) -> &'static Tokenizer {
    let model = model.rsplit('/').next().unwrap_or(model);
    let older = ["gpt-3.5", "gpt-35", "gpt-4-", "text-embedding-"];
    if model == "gpt-4" || older.iter().any(|prefix| model.starts_with(prefix)) {
        cl100k_base()
    } else {
        o200k_base()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(body: serde_json::Value) -> u64 {
        prompt_tokens(body.to_string().as_bytes(), "gpt-4o")
    }

    fn said(content: serde_json::Value) -> u64 {
        count(json!({"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}))
    }

    const FRAME: u64 = MESSAGE + ANSWER;

    #[test]
    fn text_is_counted_by_the_models_encoding() {
        assert_eq!(said(json!("Hello, world!")), FRAME + 4);
        let word = json!({"input": "你好世界,你好世界"}).to_string();
        let tokens = |model| prompt_tokens(word.as_bytes(), model);
        assert_eq!(tokens("unheard-of"), tokens("gpt-5"));
        assert!(tokens("text-embedding-3-small") > tokens("gpt-5"));
        assert_eq!(tokens("gpt-4-turbo"), tokens("ft:gpt-3.5-turbo:me::1"));
        assert_eq!(tokens("gpt-4o-mini"), tokens("gpt-4.1"));
    }

    #[test]
    fn escapes_are_decoded_before_they_are_counted() {
        let plain = r#"{"input":"你好,世界"}"#;
        let escaped = r#"{"input":"\u4f60\u597d\uff0c\u4e16\u754c"}"#.replace("\\uff0c", ",");
        let tokens = |body: &str| prompt_tokens(body.as_bytes(), "gpt-4o");
        assert_eq!(tokens(plain), tokens(&escaped));
        let half = r#"{"input":"\ud800"}"#;
        assert!(tokens(half) > 0, "half of a pair has no text");
    }

    #[test]
    fn images_and_files_are_never_counted_as_text() {
        let image = |url: &str, detail: &str| {
            let url = json!({"url": url, "detail": detail});
            said(json!([{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": url}]))
        };
        let data = format!("data:image/png;base64,{}", "iVBORw0KGgo".repeat(10_000));
        assert_eq!(image(&data, "low"), FRAME + 1 + 85);
        assert_eq!(image(&data, "auto"), FRAME + 1 + 1_445);
        assert_eq!(image("https://a.example/b.png", "high"), FRAME + 1 + 1_445);
        let input = json!([{"role": "user", "content": [
            {"type": "input_image", "image_url": data, "detail": "low"}]}]);
        assert_eq!(count(json!({"input": input})), MESSAGE + 85);
        let sound = json!([{"type": "input_audio",
            "input_audio": {"data": "A".repeat(32_000), "format": "wav"}}]);
        assert!((1_000..1_020).contains(&(said(sound) - FRAME)));
        let file =
            json!({"file_data": format!("data:application/pdf;base64,{}", "A".repeat(64_000))});
        let file = said(json!([{"type": "file", "file": file}])) - FRAME;
        assert!((2_000..2_020).contains(&file), "{file}");
        assert_eq!(said(json!(data)), FRAME + 1_445);
    }

    #[test]
    fn what_else_stands_in_a_prompt() {
        for (body, tokens) in [
            (json!({"input": ["a", "b", "c"]}), 3),
            (json!({"input": [1, 22, 333]}), 3),
            (json!({"input": [[1, 2], [3]]}), 3),
            (json!({"prompt": "a b"}), 2),
            (
                json!({"instructions": "a", "input": "b", "metadata": {"x": "long ".repeat(99)}}),
                2,
            ),
            (json!({"input": []}), 1),
        ] {
            assert_eq!(count(body.clone()), tokens, "{body}");
        }
        let tool = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
        assert!(count(json!({"input": "a", "tools": tool})) > 10);
        let call = json!([{"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]);
        assert_eq!(count(json!({"messages": call})), FRAME + 2);
    }

    #[test]
    fn a_very_long_text_is_counted_by_its_beginning() {
        let text = "word ".repeat(400_000);
        let tokens = said(json!(text)) - FRAME;
        assert!(tokens.abs_diff(400_000) < 1_000, "{tokens}");
        assert_eq!(prompt_tokens(b"\xff", "gpt-4o"), 1);
        assert_eq!(prompt_tokens(&[b'['; 400], "gpt-4o"), 100);
    }
}
