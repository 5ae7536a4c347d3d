//! What a lane sends: the caller's bytes, compact, less the fields that the
//! lane does not take (DESIGN.md §2, §4.6).

use super::{
    Refusal, text_of,
    walk::{Walker, compact, unquote},
};

/// The top-level fields that a lane leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strip(&'static [&'static str]);

impl Strip {
    pub const NOTHING: Strip = Strip(&[]);
    /// A batch line: no streaming, no background mode, no other tier.
    pub const BATCH: Strip = Strip(&["stream", "stream_options", "background", "service_tier"]);
    /// A live call whose answer we keep: the provider takes `stream_options`
    /// only with `stream`.
    pub const STANDARD: Strip = Strip(&["stream", "stream_options", "background"]);
    /// A live call that streams to the caller.
    pub const STREAMED: Strip = Strip(&["background"]);
    /// A lane that sets its own tier.
    pub const TIER: Strip = Strip(&["service_tier"]);
    /// A background lane, which sets both background fields itself and runs on the
    /// standard tier.
    pub const BACKGROUND: Strip = Strip(&[
        "stream",
        "stream_options",
        "background",
        "background_options",
        "service_tier",
    ]);
    /// As [`Strip::BACKGROUND`], where the lane says that the answer is stored.
    pub const BACKGROUND_STORED: Strip = Strip(&[
        "stream",
        "stream_options",
        "background",
        "background_options",
        "service_tier",
        "store",
    ]);
}

/// What to change in a body.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    pub strip: Strip,
    /// The provider's id in the place of the caller's `previous_response_id`.
    pub previous_response_id: Option<&'a str>,
    /// Fields to append, values as raw JSON. A field set here must be
    /// stripped too, or it stands twice.
    pub set: &'a [(&'static str, &'a str)],
}

impl Edit<'_> {
    pub const fn strip(strip: Strip) -> Self {
        Edit {
            strip,
            previous_response_id: None,
            set: &[],
        }
    }
}

/// Appends `body` to `out` as one line of compact JSON, edited; every other
/// byte, key order, number and escape stay as the caller wrote them. Linear.
///
/// # Errors
/// A body that [`super::scan`] would refuse as not being a JSON object; `out`
/// is then as it was.
pub fn line_body(body: &[u8], edit: &Edit<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let start = out.len();
    let written = write(text_of(body)?, edit, out);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// [`line_body`] with [`Strip::BATCH`] and nothing else.
///
/// # Errors
/// As [`line_body`].
pub fn batch_body(body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    line_body(body, &Edit::strip(Strip::BATCH), out)
}

fn write(text: &str, edit: &Edit<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    out.reserve(text.len());
    out.push(b'{');
    let mut first = true;
    let mut separate = |out: &mut Vec<u8>| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
    };
    let mut walker = Walker::new(text);
    walker.object(|walker, key| {
        let (value, is_compact) = walker.value_and_compactness()?;
        let name = unquote(key);
        let name = name.as_deref().unwrap_or_default();
        if edit.strip.0.contains(&name) {
            return Ok::<(), Refusal>(());
        }
        separate(out);
        out.extend_from_slice(key.as_bytes());
        out.push(b':');
        match edit.previous_response_id {
            Some(id) if name == "previous_response_id" => quote(id, out),
            _ if is_compact => out.extend_from_slice(value.as_bytes()),
            _ => compact(value, out),
        }
        Ok(())
    })?;
    walker.end()?;
    for (name, value) in edit.set {
        separate(out);
        quote(name, out);
        out.push(b':');
        compact(value, out);
    }
    out.push(b'}');
    Ok(())
}

fn quote(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
}
