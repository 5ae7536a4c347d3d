use proptest::prelude::*;
use serde_json::{Value, value::RawValue};

use super::{
    walk::{Fault, MAX_DEPTH, elements, fields},
    *,
};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

fn chat(body: &str) -> Result<Scan, Refusal> {
    scan(body.as_bytes(), Endpoint::ChatCompletions)
}

fn line(body: &str, edit: Edit<'_>) -> String {
    let mut out = Vec::new();
    line_body(body.as_bytes(), &edit, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn batch(body: &str) -> String {
    line(body, Edit::strip(Strip::BATCH))
}

#[test]
fn what_a_scan_reads() {
    let plain = chat(CHAT).unwrap();
    assert_eq!(
        plain,
        Scan {
            names_model: true,
            model: "m".to_owned(),
            stream: false,
            include_usage: false,
            background: false,
            store: None,
            service_tier: None,
            previous_response_id: None,
            inputs: 1,
            n: 1,
        }
    );
    let full = scan(
        br#" { "mod\u0065l" : "gpt\u002d4o", "input":"x", "stream":true, "background":true,
            "stream_options":{"x":1,"include_usage":true}, "store":false, "n":null,
            "previous_response_id":"op_1", "service_tier":"flex", "metadata":{"a":"b"} } "#,
        Endpoint::Responses,
    )
    .unwrap();
    assert_eq!(
        full,
        Scan {
            names_model: true,
            model: "gpt-4o".to_owned(),
            stream: true,
            include_usage: true,
            background: true,
            store: Some(false),
            service_tier: Some("flex".to_owned()),
            previous_response_id: Some("op_1".to_owned()),
            inputs: 1,
            n: 1,
        }
    );
    let nulls = r#"{"stream":null,"store":null,"background":null,"stream_options":null,
        "service_tier":null,"metadata":null,"n":3,"model":"m","messages":[{}]}"#;
    let scanned = chat(nulls).unwrap();
    assert_eq!((scanned.n, scanned.store), (3, None));
}

#[test]
fn embedding_inputs_are_counted() {
    let table = [
        (r#""one""#, Ok(1)),
        (r#"["a","b","c"]"#, Ok(3)),
        ("[1,2,3,4]", Ok(1)),
        ("[[1,2],[3],[4]]", Ok(3)),
        ("[]", Err(Some("empty_value"))),
        (r#"["a",1]"#, Err(Some("invalid_type"))),
        ("[null]", Err(Some("invalid_type"))),
        ("[{}]", Err(Some("invalid_type"))),
        ("7", Err(Some("invalid_type"))),
        ("null", Err(Some("missing_required_parameter"))),
    ];
    for (input, inputs) in table {
        let body = format!(r#"{{"model":"m","input":{input}}}"#);
        let scanned = scan(body.as_bytes(), Endpoint::Embeddings);
        assert_eq!(
            scanned
                .map(|scan| scan.inputs)
                .map_err(|refusal| refusal.code()),
            inputs,
            "{input}"
        );
    }
}

#[test]
fn accepted_bodies() {
    use Endpoint::*;
    let table = [
        (Responses, r#"{"model":"m","input":"x"}"#),
        (Responses, r#"{"model":"m","input":[{"role":"user"}]}"#),
        (Responses, r#"{"model":"m","prompt":{"id":"p"}}"#),
        (
            Responses,
            r#"{"model":"m","previous_response_id":"resp_1"}"#,
        ),
        (Responses, r#"{"model":"m","conversation":"conv_1"}"#),
        (Completions, r#"{"model":"m","prompt":"x"}"#),
        (Completions, r#"{"model":"m","prompt":["x","y"]}"#),
        (Moderations, r#"{"model":"m","input":"x"}"#),
        (Moderations, r#"{"input":[{"type":"text","text":"x"}]}"#),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":"m","x":1,"x":2}"#,
        ),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":"m","input":7,"prompt":7}"#,
        ),
        (
            ChatCompletions,
            r#"{"messages":[{"content":"\ud800\u0000"}],"model":"m"}"#,
        ),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":"m","seed":1e400}"#,
        ),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":"m","\ud800":1}"#,
        ),
    ];
    for (endpoint, body) in table {
        let scanned = scan(body.as_bytes(), endpoint);
        assert!(scanned.is_ok(), "{endpoint:?} {body}: {scanned:?}");
    }
    let moderation = scan(br#"{"input":"x"}"#, Moderations).unwrap();
    assert_eq!(moderation.model, DEFAULT_MODERATION_MODEL);
    assert!(!moderation.names_model);
}

#[test]
fn refused_bodies() {
    use Endpoint::*;
    const NOT_JSON: (Option<&str>, Option<&str>) = (None, None);
    let missing = |param| (Some("missing_required_parameter"), Some(param));
    let twice = |param| (Some("duplicate_parameter"), Some(param));
    let typed = |param| (Some("invalid_type"), Some(param));
    let value = |param| (Some("invalid_value"), Some(param));
    let empty = |param| (Some("empty_value"), Some(param));
    let table = [
        (ChatCompletions, "", NOT_JSON),
        (ChatCompletions, "hello", NOT_JSON),
        (ChatCompletions, "{", NOT_JSON),
        (ChatCompletions, r#"{"model":"m","messages":[{}]"#, NOT_JSON),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}]}x"#,
            NOT_JSON,
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],}"#,
            NOT_JSON,
        ),
        (
            ChatCompletions,
            r#"{'model':"m","messages":[{}]}"#,
            NOT_JSON,
        ),
        (
            ChatCompletions,
            "{\"model\":\"m\",\"messages\":[{}],\"x\":\"a\nb\"}",
            NOT_JSON,
        ),
        (
            ChatCompletions,
            "\u{feff}{\"model\":\"m\",\"messages\":[{}]}",
            NOT_JSON,
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"x":NaN}"#,
            NOT_JSON,
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"x":01}"#,
            NOT_JSON,
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"x":"\x"}"#,
            NOT_JSON,
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"x":"\u12g4"}"#,
            NOT_JSON,
        ),
        (ChatCompletions, "[]", (Some("invalid_type"), None)),
        (ChatCompletions, "\"x\"", (Some("invalid_type"), None)),
        (ChatCompletions, "{}", missing("model")),
        (ChatCompletions, r#"{"messages":[{}]}"#, missing("model")),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":null}"#,
            missing("model"),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":""}"#,
            empty("model"),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":7}"#,
            typed("model"),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":"\ud800"}"#,
            value("model"),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{}],"model":"a\nb"}"#,
            value("model"),
        ),
        (ChatCompletions, r#"{"model":"m"}"#, missing("messages")),
        (
            ChatCompletions,
            r#"{"model":"m","messages":null}"#,
            missing("messages"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[]}"#,
            empty("messages"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":"x"}"#,
            typed("messages"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":{}}"#,
            typed("messages"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{},"x"]}"#,
            typed("messages"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","model":"m","messages":[{}]}"#,
            twice("model"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","mod\u0065l":"m","messages":[{}]}"#,
            twice("model"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"messages":[{}]}"#,
            twice("messages"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"stream":false,"stream":true}"#,
            twice("stream"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"service_tier":"auto","service_tier":"priority"}"#,
            twice("service_tier"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"stream":"yes"}"#,
            typed("stream"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"stream_options":true}"#,
            typed("stream_options"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"stream_options":{"include_usage":1}}"#,
            typed("stream_options.include_usage"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"n":0}"#,
            value("n"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"n":1.5}"#,
            value("n"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"n":"2"}"#,
            typed("n"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"store":1}"#,
            typed("store"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"metadata":[]}"#,
            typed("metadata"),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"service_tier":"priority"}"#,
            (Some("unsupported_value"), Some("service_tier")),
        ),
        (
            ChatCompletions,
            r#"{"model":"m","messages":[{}],"service_tier":"prior\u0069ty"}"#,
            (Some("unsupported_value"), Some("service_tier")),
        ),
        (Responses, r#"{"model":"m"}"#, missing("input")),
        (Responses, r#"{"model":"m","input":{}}"#, typed("input")),
        (
            Responses,
            r#"{"model":"m","input":"x","background":"yes"}"#,
            typed("background"),
        ),
        (
            Responses,
            r#"{"model":"m","previous_response_id":7}"#,
            typed("previous_response_id"),
        ),
        (Responses, r#"{"input":"x"}"#, missing("model")),
        (Embeddings, r#"{"model":"m"}"#, missing("input")),
        (
            Embeddings,
            r#"{"model":"m","input":"x","stream":true}"#,
            (Some("unknown_parameter"), Some("stream")),
        ),
        (Completions, r#"{"model":"m"}"#, missing("prompt")),
        (Completions, r#"{"model":"m","prompt":{}}"#, typed("prompt")),
        (Moderations, r#"{"model":"m"}"#, missing("input")),
    ];
    for (endpoint, body, (code, param)) in table {
        let refusal = scan(body.as_bytes(), endpoint).expect_err(body);
        assert_eq!((refusal.code(), refusal.param()), (code, param), "{body}");
        assert!(refusal.message().ends_with('.'), "{refusal}");
    }
    let long = format!(r#"{{"messages":[{{}}],"model":"{}"}}"#, "m".repeat(257));
    assert_eq!(chat(&long).unwrap_err().code(), Some("invalid_value"));
    let refusal = scan(b"{\"model\":\"\xff\"}", Endpoint::Moderations).unwrap_err();
    assert_eq!(refusal, Refusal::NotUtf8 { at: 10 });
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"model":"m","messages":[{{}}],"x":{open}{close}}}"#)
    };
    // The body itself is one level.
    assert!(chat(&nested(MAX_DEPTH as usize - 1)).is_ok());
    assert_eq!(chat(&nested(MAX_DEPTH as usize)), Err(Refusal::TooDeep));
    assert_eq!(chat(&nested(1_000_000)), Err(Refusal::TooDeep));
    assert_eq!(chat(&"[".repeat(1_000_000)), Err(Refusal::TooDeep));
}

#[test]
fn nasty_bodies_keep_their_bytes() {
    let table = [
        (
            r#"{"a":1e400,"b":0.100000000000000000000000000001,"c":-0,"d":1E+2,"e":-0.0e-0}"#,
            None,
        ),
        (r#"{"s":"\u0000\ud800\udc00\ud800x\/é\"\\"}"#, None),
        ("{\"s\":\"\u{2028}\u{2029}\u{7f}😀\"}", None),
        (
            r#"{"a":1,"a":2,"z":0,"b":{"stream":true,"background":1}}"#,
            None,
        ),
        ("{ }", Some("{}")),
        (
            "{\r\n\t\"a\" : [ 1 , { \"b c\" : \" x  y \" } , [ ] ] \n}\n",
            Some(r#"{"a":[1,{"b c":" x  y "},[]]}"#),
        ),
        (r#"{"stream":true}"#, Some("{}")),
        (
            r#"{"stream":true,"a":1,"service_tier":"flex"}"#,
            Some(r#"{"a":1}"#),
        ),
        (
            r#"{"a":1,"str\u0065am" : true , "stream_options":{"include_usage":true},"background":false,"b":2}"#,
            Some(r#"{"a":1,"b":2}"#),
        ),
        (
            r#"{"a\\":"\\","b":"\\\" ,stream","c" :"x"}"#,
            Some(r#"{"a\\":"\\","b":"\\\" ,stream","c":"x"}"#),
        ),
        (r#"{"Stream":1,"stream ":2,"":3}"#, None),
    ];
    for (body, expected) in table {
        assert_eq!(batch(body), expected.unwrap_or(body));
    }
}

#[test]
fn edits() {
    let body = r#"{ "model":"m", "previous_response_id" : "op_1", "stream":true,
        "background":true, "service_tier":"auto" }"#;
    assert_eq!(
        line(body, Edit::strip(Strip::NOTHING)),
        r#"{"model":"m","previous_response_id":"op_1","stream":true,"background":true,"service_tier":"auto"}"#
    );
    assert_eq!(
        line(body, Edit::strip(Strip::STANDARD)),
        r#"{"model":"m","previous_response_id":"op_1","service_tier":"auto"}"#
    );
    assert_eq!(
        line(body, Edit::strip(Strip::STREAMED)),
        r#"{"model":"m","previous_response_id":"op_1","stream":true,"service_tier":"auto"}"#
    );
    let set = [
        ("background", "true"),
        ("background_options", r#"{ "completion_window" : "8h" }"#),
    ];
    let background = Edit {
        strip: Strip::BACKGROUND,
        previous_response_id: Some("resp_\"2"),
        set: &set,
    };
    assert_eq!(
        line(body, background),
        r#"{"model":"m","previous_response_id":"resp_\"2","background":true,"background_options":{"completion_window":"8h"}}"#
    );
    assert_eq!(
        line(
            "{}",
            Edit {
                set: &set[..1],
                ..Edit::strip(Strip::BATCH)
            }
        ),
        r#"{"background":true}"#
    );
}

#[test]
fn a_body_that_is_no_object_leaves_no_trace() {
    for body in ["", "[]", "{\"a\":1", "{\"a\":1}}", "null"] {
        let mut out = b"before".to_vec();
        assert!(batch_body(body.as_bytes(), &mut out).is_err());
        assert_eq!(out, b"before");
    }
}

#[test]
fn eight_megabytes() {
    let content = "x \\n\u{1F600} \\\" y".repeat(900_000);
    let body = format!(
        "{{\n  \"stream\": true,\n  \"model\": \"m\",\n  \"messages\": [ {{ \"role\": \"user\", \"content\": \"{content}\" }} ]\n}}"
    );
    assert!(body.len() > 8_000_000);
    assert!(chat(&body).unwrap().stream);
    let expected =
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{content}"}}]}}"#);
    assert!(batch(&body) == expected);
}

/// JSON text as a tree of raw tokens, so that it can be written with and
/// without white space.
#[derive(Clone, Debug)]
enum Tree {
    Token(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("1e400".to_owned()),
        Just("-0".to_owned()),
        Just("1E+2".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,31})?([eE][+-]?[0-9]{1,4})?",
        string(),
    ]
}

fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z :,{}\\[\\]]{0,12}",
        "\\PC{0,6}".prop_map(|text| text.replace(['"', '\\'], "")),
        Just(r#"\""#.to_owned()),
        Just(r"\\".to_owned()),
        Just(r"\u0000".to_owned()),
        Just(r"\ud800".to_owned()),
        Just(r"\n".to_owned()),
        Just("\u{2028}".to_owned()),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => string(),
        1 => Just(r#""a""#.to_owned()),
        1 => Just(r#""stream""#.to_owned()),
        1 => Just(r#""servic\u0065_tier""#.to_owned()),
        1 => Just(r#""background""#.to_owned()),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    token()
        .prop_map(Tree::Token)
        .prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Tree::Array),
                proptest::collection::vec((key(), inner), 0..6).prop_map(Tree::Object),
            ]
        })
}

fn object() -> impl Strategy<Value = Vec<(String, Tree)>> {
    proptest::collection::vec((key(), tree()), 0..8)
}

/// Writes a tree, taking white space between tokens from `blanks` in turn.
fn write(tree: &Tree, blanks: &[&str], turn: &mut usize, out: &mut String) {
    let mut blank = |out: &mut String| {
        out.push_str(blanks[*turn % blanks.len()]);
        *turn += 1;
    };
    blank(out);
    match tree {
        Tree::Token(token) => out.push_str(token),
        Tree::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(element, blanks, turn, out);
            }
            out.push(']');
        }
        Tree::Object(fields) => {
            out.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(blanks[*turn % blanks.len()]);
                out.push_str(key);
                out.push_str(blanks[(*turn + 1) % blanks.len()]);
                out.push(':');
                write(value, blanks, turn, out);
            }
            out.push('}');
        }
    }
    out.push_str(blanks[*turn % blanks.len()]);
}

fn written(tree: &Tree, blanks: &[&str]) -> String {
    let mut out = String::new();
    write(tree, blanks, &mut 0, &mut out);
    out
}

fn is_stripped(key: &str) -> bool {
    [r#""stream""#, r#""servic\u0065_tier""#, r#""background""#].contains(&key)
}

const BLANKS: [&str; 7] = ["", " ", "\n", "", "\r\n\t", "  ", "\n\n"];

proptest! {
    /// Nothing changes but the white space and the stripped fields.
    #[test]
    fn a_line_is_the_body_less_what_is_stripped(fields in object(), skip in 0usize..7) {
        let mut blanks = BLANKS;
        blanks.rotate_left(skip);
        let body = written(&Tree::Object(fields.clone()), &blanks);
        let kept = fields.into_iter().filter(|(key, _)| !is_stripped(key)).collect();
        let expected = written(&Tree::Object(kept), &[""]);
        let line = batch(&body);
        prop_assert_eq!(&line, &expected);
        prop_assert!(!line.contains(['\n', '\r']));
        prop_assert_eq!(batch(&line), expected);
    }

    /// The walk takes what serde_json takes, which reads no number and no
    /// escape into a value here, and nothing else.
    #[test]
    fn walks_exactly_json(mut bytes in prop_oneof![
        "[\\[\\]{}\",:0-9eE+.truefalsn\\\\ud -]{0,24}".prop_map(String::into_bytes),
        tree().prop_map(|tree| written(&tree, &BLANKS).into_bytes()),
        any::<Vec<u8>>(),
    ], damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>()))) {
        if let (Some((index, byte)), false) = (damage, bytes.is_empty()) {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let ours = std::str::from_utf8(&bytes).is_ok_and(|text| {
            let mut walker = Walker::new(text);
            walker.value().and_then(|_| walker.end()).is_ok()
        });
        let theirs = std::str::from_utf8(&bytes)
            .is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok());
        prop_assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&bytes));
    }

    /// A scan never panics, and what it accepts is a JSON object with a model.
    #[test]
    fn scans_anything(bytes: Vec<u8>, fields in object(), endpoint in prop::sample::select(&Endpoint::ALL[..])) {
        for body in [bytes, written(&Tree::Object(fields), &BLANKS).into_bytes()] {
            if let Ok(scan) = scan(&body, endpoint) {
                prop_assert!(!scan.model.is_empty());
                prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok());
            }
        }
    }

    /// Damage to an acceptable body is either refused or still JSON.
    #[test]
    fn a_damaged_body_is_not_let_in(index: prop::sample::Index, byte: u8) {
        let mut body = CHAT.as_bytes().to_vec();
        let at = index.index(body.len());
        body[at] = byte;
        if scan(&body, Endpoint::ChatCompletions).is_ok() {
            let value: Value = serde_json::from_slice(&body).unwrap();
            prop_assert!(value["model"].is_string() && value["messages"][0].is_object());
        }
    }

    #[test]
    fn fields_and_elements_never_panic(text: String) {
        let walked: (Result<_, Fault>, Result<_, Fault>) = (fields(&text), elements(&text));
        prop_assert!(walked.0.is_err() || walked.1.is_err());
    }
}
