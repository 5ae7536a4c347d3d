//! What the fuzz targets in `fuzz/` run, and the tests on the corpora that they left
//! there. Only in tests and under `cargo fuzz` (`--cfg fuzzing`).
//!
//! Each takes any bytes and panics where a rule is broken.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};

use crate::{
    edge::{
        prefer::Preference,
        replay::{self, Assembler},
    },
    model::{
        body::{self, Edit, Strip, walk},
        deadline,
        endpoint::Endpoint,
        time::Timestamp,
    },
    provider::jsonl,
    store::records,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const ENDPOINTS: [Endpoint; 5] = [
    Endpoint::ChatCompletions,
    Endpoint::Responses,
    Endpoint::Embeddings,
    Endpoint::Completions,
    Endpoint::Moderations,
];

/// A deadline is in the future and not too far, however it was spelt; `Prefer` is
/// read from anything and says itself again.
pub fn deadline_and_prefer(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let path = std::str::from_utf8(lines[0]).ok();
    let read = [
        deadline::resolve(lines.iter().copied(), path, NOW, MAX),
        deadline::resolve([], path, NOW, MAX),
    ];
    for deadline in read.into_iter().flatten().flatten() {
        assert!(NOW < deadline && NOW.until(deadline) <= MAX, "{deadline}");
    }
    let preference = Preference::parse(lines.iter().copied());
    let told = preference.to_string();
    assert_eq!(Preference::parse([told.as_bytes()]), preference);
}

/// What admission lets in becomes one line of JSON that says the same, field by field
/// and number for number, less what the lane leaves out.
pub fn body(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let endpoint = ENDPOINTS[usize::from(*first) % ENDPOINTS.len()];
    let scanned = body::scan(data, endpoint);
    for strip in [Strip::BATCH, Strip::STANDARD, Strip::STREAMED, Strip::TIER] {
        let edit = Edit::strip(strip);
        let mut line = Vec::new();
        if let Err(refused) = body::line_body(data, &edit, &mut line) {
            assert!(scanned.is_err(), "{refused:?}");
            assert!(line.is_empty());
            continue;
        }
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let mut again = Vec::new();
        body::line_body(&line, &edit, &mut again).expect("what was written reads");
        assert_eq!(again, line, "it is compact already");
        let (before, after) = (text(data), text(&line));
        let fields = walk::fields(before).expect("it was read");
        let kept: Vec<(&str, Vec<u8>)> = walk::fields(after)
            .expect("it reads")
            .iter()
            .map(|field| (field.key, field.value.as_bytes().to_vec()))
            .collect();
        let mut rest = kept.iter();
        for field in &fields {
            let mut value = Vec::new();
            walk::compact(field.value, &mut value);
            let is_kept = rest.clone().next() == Some(&(field.key, value));
            match is_kept {
                true => drop(rest.next()),
                false => assert!(LEFT_OUT.contains(&&*field.name), "{} is gone", field.key),
            }
        }
        assert_eq!(rest.next(), None, "a field that nobody sent");
        // serde_json stops at 128 levels; what it reads is JSON here, too.
        match serde_json::from_slice::<serde::de::IgnoredAny>(&line) {
            Ok(_) => {}
            Err(error) => assert!(error.to_string().contains("recursion limit"), "{error}"),
        }
    }
}

const LEFT_OUT: [&str; 4] = ["stream", "stream_options", "background", "service_tier"];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it was read as text")
}

/// A result file says the same in whatever pieces it comes, and every answer in it is
/// the JSON that stood there.
pub fn harvest(data: &[u8]) {
    let Some((size, data)) = data.split_first() else {
        return;
    };
    let whole = lines_of(data, data.len().max(1));
    let pieces = lines_of(data, usize::from(*size).max(1));
    assert_eq!(whole, pieces, "pieces of {size}");
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(whole.len() <= lines);
    for line in whole {
        if let Some(crate::ports::LineAnswer::Answered { status, body, .. }) =
            line.map(|line| line.answer)
        {
            assert!((100..=599).contains(&status));
            serde_json::from_slice::<serde::de::IgnoredAny>(&body).expect("an answer is JSON");
        }
    }
}

/// None where the file was cut.
fn lines_of(data: &[u8], size: usize) -> Vec<Option<crate::ports::ResultLine>> {
    let pieces: Vec<_> = data
        .chunks(size)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let lines = jsonl::results(stream::iter(pieces).boxed(), "fuzz".to_owned(), false);
    let read = pin!(lines.map(Result::ok).collect());
    read.now_or_never().expect("all is there")
}

/// Any bytes in a store are an error or a value, and the value is written as it was.
pub fn store_values(data: &[u8]) {
    records::fuzz(data);
}

/// An answer that can be told as events is told so that it can be put together again;
/// and events say the same in whatever pieces they come.
pub fn stream_replay(data: &[u8]) {
    let [first, size, data @ ..] = data else {
        return;
    };
    let endpoint = ENDPOINTS[usize::from(*first) % ENDPOINTS.len()];
    let size = usize::from(*size).max(1);
    if let Ok(events) = replay::replay(endpoint, data, first.is_multiple_of(2)) {
        let told = assembled(endpoint, &events, events.len().max(1));
        assert!(told.is_ok() || tells_nothing(data), "{told:?}");
        assert_eq!(told, assembled(endpoint, &events, size));
    }
    let whole = assembled(endpoint, data, data.len().max(1));
    assert_eq!(whole, assembled(endpoint, data, size), "pieces of {size}");
    if let Ok(answer) = whole {
        serde_json::from_slice::<serde::de::IgnoredAny>(&answer)
            .map_err(|error| error.to_string())
            .or_else(|error| match error.contains("recursion limit") {
                true => Ok(serde::de::IgnoredAny),
                false => Err(error),
            })
            .expect("an answer is JSON");
    }
    if let Ok(events) = replay::failure(data) {
        assert!(events.starts_with(b"event: error\n"));
    }
}

/// Of no choices at all there is nothing to tell.
fn tells_nothing(answer: &[u8]) -> bool {
    let fields = std::str::from_utf8(answer).ok().map(walk::fields);
    let fields = fields.and_then(Result::ok).unwrap_or_default();
    let choices = fields.iter().rfind(|field| field.name == "choices");
    choices.is_some_and(|choices| walk::elements(choices.value).is_ok_and(|all| all.is_empty()))
}

fn assembled(endpoint: Endpoint, events: &[u8], size: usize) -> Result<Vec<u8>, replay::Broken> {
    let mut assembler = Assembler::new(endpoint);
    for piece in events.chunks(size) {
        assembler.push(piece);
    }
    assembler.finish()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Everything that fuzzing has found worth keeping, and what it has broken.
    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(target)).unwrap() {
            run(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "no corpus of {target}");
        run(&[]);
    }

    #[test]
    fn deadlines_and_preferences() {
        replay("deadline_and_prefer", super::deadline_and_prefer);
    }

    #[test]
    fn bodies() {
        replay("body", super::body);
    }

    #[test]
    fn result_files() {
        replay("harvest", super::harvest);
    }

    #[test]
    fn values_in_the_store() {
        replay("store_values", super::store_values);
    }

    #[test]
    fn streams() {
        replay("stream_replay", super::stream_replay);
    }
}
