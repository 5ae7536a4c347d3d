//! A walk over JSON text that keeps every byte: it checks the grammar, hands
//! out raw slices, and never turns a value into something else.
//!
//! Accepted is what RFC 8259 calls JSON, as the providers' parsers read it:
//! numbers of any size (`1e400`), `\u0000` and lone surrogates (`\ud800`)
//! included. Nesting is bounded by [`MAX_DEPTH`].

use std::borrow::Cow;

/// The deepest nesting accepted, in containers; serde_json's default for the
/// same reason (the walk is recursive, stack is bounded).
pub const MAX_DEPTH: u32 = 127;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// Why a text is not JSON that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("expected {expected} at byte {at}")]
    Syntax { at: usize, expected: &'static str },
    #[error("nested deeper than {MAX_DEPTH} levels at byte {at}")]
    TooDeep { at: usize },
}

/// A position in a JSON text.
pub struct Walker<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// Bytes of insignificant white space passed so far.
    blank: usize,
}

impl<'a> Walker<'a> {
    pub fn new(text: &'a str) -> Self {
        Walker {
            text,
            at: 0,
            depth: 0,
            blank: 0,
        }
    }

    /// Bytes passed so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What the next value is, by its first byte; its grammar is not checked.
    #[inline]
    pub fn kind(&mut self) -> Result<Kind, Fault> {
        self.blanks();
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            _ => Err(self.fault("a value")),
        }
    }

    /// Checks one value and returns its raw text.
    pub fn value(&mut self) -> Result<&'a str, Fault> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Object => self.object(|walker, _| walker.value().map(drop))?,
            Kind::Array => self.array(|walker| walker.value().map(drop))?,
            Kind::String => self.string()?,
            Kind::Number => self.number()?,
            Kind::Bool if self.peek() == Some(b't') => self.literal("true")?,
            Kind::Bool => self.literal("false")?,
            Kind::Null => self.literal("null")?,
        }
        Ok(&self.text[start..self.at])
    }

    /// As [`Walker::value`], and whether it holds no white space between its
    /// tokens.
    pub fn value_and_compactness(&mut self) -> Result<(&'a str, bool), Fault> {
        self.blanks();
        let before = self.blank;
        let raw = self.value()?;
        Ok((raw, self.blank == before))
    }

    /// Walks an object. `field` gets each key as raw text with its quotes and
    /// must consume the value.
    pub fn object<E: From<Fault>>(
        &mut self,
        mut field: impl FnMut(&mut Self, &'a str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'{', "`{`")?;
        if self.close(b'}') {
            return Ok(());
        }
        loop {
            self.blanks();
            let start = self.at;
            self.string()?;
            let key = &self.text[start..self.at];
            self.token(b':', "`:`")?;
            field(self, key)?;
            if !self.more(b'}', "`,` or `}`")? {
                return Ok(());
            }
        }
    }

    /// Walks an array. `element` must consume one value.
    pub fn array<E: From<Fault>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'[', "`[`")?;
        if self.close(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if !self.more(b']', "`,` or `]`")? {
                return Ok(());
            }
        }
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.blanks();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("the end")),
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fault(&self, expected: &'static str) -> Fault {
        Fault::Syntax {
            at: self.at,
            expected,
        }
    }

    #[inline]
    fn blanks(&mut self) {
        if self.peek().is_some_and(|byte| byte <= b' ') {
            self.pass_blanks();
        }
    }

    fn pass_blanks(&mut self) {
        let start = self.at;
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
        self.blank += self.at - start;
    }

    fn token(&mut self, byte: u8, name: &'static str) -> Result<(), Fault> {
        self.blanks();
        if self.peek() != Some(byte) {
            return Err(self.fault(name));
        }
        self.at += 1;
        Ok(())
    }

    fn open(&mut self, byte: u8, name: &'static str) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::TooDeep { at: self.at });
        }
        self.token(byte, name)?;
        self.depth += 1;
        Ok(())
    }

    /// Passes a comma, or the end of the container.
    #[inline]
    fn more(&mut self, end: u8, names: &'static str) -> Result<bool, Fault> {
        self.blanks();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ => Err(self.fault(names)),
        }
    }

    #[inline]
    fn close(&mut self, byte: u8) -> bool {
        self.blanks();
        let closes = self.peek() == Some(byte);
        if closes {
            self.at += 1;
            self.depth -= 1;
        }
        closes
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.fault("a digit"));
        }
        self.at += count;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        if self.peek() != Some(b'"') {
            return Err(self.fault("a string"));
        }
        self.at += 1;
        loop {
            self.at = next_special(bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.fault("no control character inside a string")),
                None => return Err(self.fault("the end of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u')
                if rest.len() >= 5 && rest[1..5].iter().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                self.at += 6;
            }
            _ => return Err(self.fault("a valid escape")),
        }
        Ok(())
    }
}

/// The first `"`, `\` or control character at or after `at`, or the end.
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // A byte is found by the borrow that subtracting makes in its top bit. A
    // borrow only spoils bytes above a true find, so the lowest find is true.
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        let found = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash);
        let found = found & TOPS;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at.min(bytes.len())
}

/// A key or string value without its quotes and escapes; nothing where it
/// holds a lone surrogate, which no Rust string can.
pub fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// Appends valid JSON without the white space between its tokens, every other
/// byte as it is. Linear in the length of `raw`.
pub fn compact(raw: &str, out: &mut Vec<u8>) {
    let bytes = raw.as_bytes();
    let (mut kept, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = after_string(bytes, at),
            b' ' | b'\n' | b'\r' | b'\t' => {
                out.extend_from_slice(&bytes[kept..at]);
                at += 1;
                kept = at;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&bytes[kept..]);
}

fn after_string(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    loop {
        at = next_special(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

/// One field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// As written, with quotes.
    pub key: &'a str,
    /// Without quotes and escapes; empty where no Rust string can hold it.
    pub name: Cow<'a, str>,
    pub value: &'a str,
}

/// The fields of an object, raw, in order.
///
/// # Errors
/// Anything but one JSON object.
pub fn fields(raw: &str) -> Result<Vec<Field<'_>>, Fault> {
    let mut fields = Vec::new();
    let mut walker = Walker::new(raw);
    walker.object(|walker, key| {
        fields.push(Field {
            key,
            name: unquote(key).unwrap_or_default(),
            value: walker.value()?,
        });
        Ok::<(), Fault>(())
    })?;
    walker.end()?;
    Ok(fields)
}

/// The elements of an array, raw, in order.
///
/// # Errors
/// Anything but one JSON array.
pub fn elements(raw: &str) -> Result<Vec<&str>, Fault> {
    let mut elements = Vec::new();
    let mut walker = Walker::new(raw);
    walker.array(|walker| {
        elements.push(walker.value()?);
        Ok::<(), Fault>(())
    })?;
    walker.end()?;
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn special_bytes_are_found_at_every_offset() {
        for special in [b'"', b'\\', 0u8, 0x1f] {
            for length in 0..40 {
                for position in 0..length {
                    let mut bytes = vec![b'a'; length];
                    bytes[position] = special;
                    for byte in &mut bytes[position + 1..] {
                        *byte = b'!';
                    }
                    assert_eq!(next_special(&bytes, 0), position);
                    assert_eq!(next_special(&bytes, position + 1), length);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn special_bytes_are_found_in_any_text(bytes: Vec<u8>) {
            let slow = bytes
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
                .unwrap_or(bytes.len());
            prop_assert_eq!(next_special(&bytes, 0), slow);
        }

        #[test]
        fn compacting_any_text_ends(text: String) {
            let mut out = Vec::new();
            compact(&text, &mut out);
            prop_assert!(out.len() <= text.len());
        }
    }

    #[test]
    fn lists_fields_and_elements() {
        let walked = fields(r#" {"a" : [1, 2], "\u0062":"x","a":{}} "#).unwrap();
        let walked: Vec<_> = walked
            .iter()
            .map(|field| (field.key, &*field.name, field.value))
            .collect();
        assert_eq!(
            walked,
            [
                (r#""a""#, "a", "[1, 2]"),
                (r#""\u0062""#, "b", r#""x""#),
                (r#""a""#, "a", "{}")
            ]
        );
        assert_eq!(elements("[1 , {} ,\"a\"]").unwrap(), ["1", "{}", "\"a\""]);
        assert!(fields("{} x").is_err());
        assert!(elements("{}").is_err());
    }
}
