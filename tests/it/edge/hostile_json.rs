//! Bodies that one parser reads in one way and another one in another, or not at all.
//! Each is refused, or accepted and sent on number for number; none costs more than its
//! length.

use offpeak::model::body::batch_body;

use super::{
    CHAT,
    raw::{recorded, told},
};

enum Fate {
    /// What the provider gets.
    Line(String),
    /// The error's code; the provider has none for what it cannot parse.
    Refused(&'static str),
}

use Fate::{Line, Refused};

const NOT_JSON: Fate = Refused("");

/// A fit body with more fields.
fn with(fields: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{fields}}}"#)
}

/// Accepted, and sent on as it is.
fn kept(fields: &str) -> (String, Fate) {
    (with(fields), Line(with(fields)))
}

fn refused(fields: &str, code: &'static str) -> (String, Fate) {
    (with(fields), Refused(code))
}

fn bodies() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let mut rows = Vec::new();
    let mut add = |name, (body, fate): (String, Fate)| rows.push((name, body.into_bytes(), fate));
    let arrays = |depth: usize| format!("\"x\":{}1{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("\"x\":{}1{}", "{\"x\":".repeat(depth), "}".repeat(depth));
    add("10 arrays deep", kept(&arrays(10)));
    add("10 objects deep", kept(&objects(10)));
    add("127 deep with the body's own", kept(&arrays(126)));
    add("128 arrays deep", refused(&arrays(128), ""));
    add("128 objects deep", refused(&objects(128), ""));
    add("100,000 arrays deep", refused(&arrays(100_000), ""));
    add("100,000 objects deep", refused(&objects(100_000), ""));
    add(
        "100,000 arrays that never end",
        (with(&"[".repeat(100_000)), NOT_JSON),
    );

    add(
        "a field of the provider's twice",
        kept(r#""seed":1,"seed":2"#),
    );
    add(
        "a key twice further down",
        kept(r#""logit_bias":{"1":1,"1":2}"#),
    );
    add(
        "a routing key twice",
        refused(r#""model":"n""#, "duplicate_parameter"),
    );
    add(
        "once in escapes",
        refused(r#""\u006dodel":"n""#, "duplicate_parameter"),
    );
    add(
        "in other escapes",
        refused(r#""mod\u0065\u006C":"n""#, "duplicate_parameter"),
    );
    add(
        "messages twice",
        refused(r#""messages":[]"#, "duplicate_parameter"),
    );
    add(
        "stream twice",
        refused(r#""stream":false,"stream":true"#, "duplicate_parameter"),
    );
    add("another case is another key", kept(r#""Model":"n""#));
    add(
        "a key with NUL behind it is another key",
        kept(r#""model\u0000":"n""#),
    );
    add("half a surrogate in a key", kept(r#""model\ud800":"n""#));
    add(
        "__proto__",
        kept(r#""__proto__":{"model":"n"},"constructor":{"prototype":1}"#),
    );
    add("a model further down", kept(r#""metadata":{"model":"n"}"#));
    add("an empty key", kept(r#""":1"#));
    add(
        "a long key",
        kept(&format!("\"{}\":1", "k".repeat(1 << 20))),
    );
    add(
        "a model in escapes",
        (
            r#"{"\u006dodel":"\u006d","messages":[{"role":"user","content":"x"}]}"#.into(),
            Line(r#"{"\u006dodel":"\u006d","messages":[{"role":"user","content":"x"}]}"#.into()),
        ),
    );

    let digits = "1234567890".repeat(40);
    add("1e999999", kept(r#""seed":1e999999"#));
    add(
        "400 digits",
        kept(&format!("\"seed\":{digits},\"top_p\":-0.{digits}")),
    );
    add(
        "minus zero",
        kept(r#""seed":-0,"top_p":-0.0,"x":0e0,"y":1E+02"#),
    );
    for (name, number) in [
        ("a leading zero", "01"),
        ("a leading plus", "+1"),
        ("no digit before the point", ".5"),
        ("no digit after it", "1."),
        ("no exponent", "1e"),
        ("minus alone", "-"),
        ("hexadecimal", "0x10"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("an underscore", "1_000"),
        ("two numbers", "1 2"),
        ("single quotes", "'a'"),
        ("no quotes", "a"),
        ("undefined", "undefined"),
        ("True", "True"),
        ("nul", "nul"),
        ("a comma too many", "[1,]"),
        ("two commas", "[1,,2]"),
        ("a comment", "/**/1"),
        ("a comment behind", "1//\n"),
        ("a tab in a string", "\"\t\""),
        ("a line end in a string", "\"\n\""),
        ("NUL in a string", "\"\0\""),
        ("an escape that is none", r#""\x41""#),
        ("an escape cut short", r#""\u00""#),
        ("a string that does not end", "\"a"),
        ("a no-break space", "\u{a0}1"),
        ("a form feed", "\x0c1"),
    ] {
        add(name, refused(&format!("\"seed\":{number}"), ""));
    }
    add(
        "half a surrogate in a value",
        kept(r#""user":"\ud800","x":"\udc00\ud800""#),
    );
    add(
        "DEL and what is beyond ASCII",
        kept("\"user\":\"\x7f\u{2028}\u{fffd}\u{10ffff}\""),
    );
    add("NUL in escapes", kept(r#""user":"\u0000""#));
    add(
        "white space",
        (
            "\t{\r\n \"model\" : \"m\" ,\"messages\":[ { } ] }\n ".into(),
            Line(r#"{"model":"m","messages":[{}]}"#.into()),
        ),
    );
    let whole = with(r#""seed":1"#);
    for (name, body) in [
        ("two documents", format!("{whole}{whole}")),
        ("two lines, as in a batch file", format!("{whole}\n{whole}")),
        ("a comma behind", format!("{whole},")),
        ("a NUL behind", format!("{whole}\0")),
        ("a NUL before", format!("\0{whole}")),
        ("a byte order mark", format!("\u{feff}{whole}")),
        (
            "a prefix against JSON hijacking",
            format!(")]}}',\n{whole}"),
        ),
        ("half of it", whole[..whole.len() / 2].to_owned()),
        ("nothing", String::new()),
        ("white space only", " \n".into()),
        ("no key", "{1:2}".into()),
        ("no value", r#"{"model":}"#.into()),
        ("no colon", r#"{"model" "m"}"#.into()),
        ("a comma behind the last field", r#"{"model":"m",}"#.into()),
    ] {
        add(name, (body, NOT_JSON));
    }
    for (name, body) in [
        ("an array", format!("[{whole}]")),
        ("a string", "\"x\"".into()),
        ("a number", "7".into()),
        ("true", "true".into()),
        ("null", "null".into()),
    ] {
        add(name, (body, Refused("invalid_type")));
    }

    let typed =
        |model: &str, messages: &str| format!(r#"{{"model":{model},"messages":{messages}}}"#);
    for (name, value) in [
        ("a number", "1"),
        ("an array", r#"["m"]"#),
        ("an object", "{}"),
        ("a boolean", "true"),
    ] {
        add(name, (typed(value, "[{}]"), Refused("invalid_type")));
    }
    add(
        "a model of null",
        (typed("null", "[{}]"), Refused("missing_required_parameter")),
    );
    add(
        "a model of nothing",
        (typed("\"\"", "[{}]"), Refused("empty_value")),
    );
    add(
        "a model of half a surrogate",
        (typed(r#""\ud800""#, "[{}]"), Refused("invalid_value")),
    );
    add(
        "a model with a line end",
        (
            typed(r#""a\r\nx-evil: 1""#, "[{}]"),
            Refused("invalid_value"),
        ),
    );
    add(
        "a model with NUL",
        (typed(r#""a\u0000""#, "[{}]"), Refused("invalid_value")),
    );
    add(
        "a long model",
        (
            typed(&format!("\"{}\"", "m".repeat(257)), "[{}]"),
            Refused("invalid_value"),
        ),
    );
    for (name, value) in [
        ("messages of text", "\"x\""),
        ("of an object", "{}"),
        ("of texts", "[\"x\"]"),
        ("of arrays", "[[]]"),
    ] {
        add(name, (typed("\"m\"", value), Refused("invalid_type")));
    }
    add(
        "no messages",
        (typed("\"m\"", "[]"), Refused("empty_value")),
    );
    for (name, fields) in [
        ("stream", r#""stream":1"#),
        ("stream as text", r#""stream":"true""#),
        ("store", r#""store":"yes""#),
        ("background", r#""background":[]"#),
        ("service_tier", r#""service_tier":1"#),
        ("metadata", r#""metadata":[]"#),
        ("stream_options", r#""stream_options":true"#),
        ("include_usage", r#""stream_options":{"include_usage":1}"#),
        ("n", r#""n":"2""#),
    ] {
        add(name, refused(fields, "invalid_type"));
    }
    for (name, n) in [
        ("n of nothing", "0"),
        ("a negative n", "-1"),
        ("half an n", "1.5"),
        ("a huge n", "1e9"),
    ] {
        add(name, refused(&format!("\"n\":{n}"), "invalid_value"));
    }

    let keys: Vec<String> = (0..1_000_000).map(|key| format!("\"{key:x}\":0")).collect();
    add("a million keys", kept(&keys.join(",")));
    let same: String = vec!["\"k\":1"; 1_000_000].join(",");
    add("one key a million times", kept(&same));
    add(
        "15 MB of escapes",
        kept(&format!("\"user\":\"{}\"", r"\u0041".repeat(2_500_000))),
    );
    add(
        "a key of 15 MB of escapes",
        kept(&format!("\"{}\":1", r"\u0041".repeat(2_500_000))),
    );
    add(
        "15 MB of empty arrays",
        kept(&format!("\"x\":[[]{}]", ",[]".repeat(5_000_000))),
    );
    add(
        "15 MB of one number",
        kept(&format!("\"x\":{}", "9".repeat(15_000_000))),
    );
    let blank = " ".repeat(15_000_000);
    add(
        "15 MB of white space",
        (with(&format!("{blank}\"x\":1")), Line(with("\"x\":1"))),
    );
    add(
        "15 MB of quotes that never end",
        (with(&"\"".repeat(15_000_001)), NOT_JSON),
    );

    let utf16 = |body: &str| {
        body.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    rows.push(("UTF-16", utf16(&whole), NOT_JSON));
    rows.push((
        "UTF-16 with its mark",
        [&[0xff, 0xfe][..], &utf16(&whole)].concat(),
        NOT_JSON,
    ));
    for (name, bytes) in [
        ("a lone continuation byte", &b"\x80"[..]),
        ("a sequence cut short", b"\xe2\x82"),
        ("an overlong slash", b"\xc0\xaf"),
        ("a surrogate in UTF-8", b"\xed\xa0\x80"),
        ("beyond Unicode", b"\xf4\x90\x80\x80"),
    ] {
        let body = [br#"{"model":"m","messages":[{}],"user":""#, bytes, br#""}"#].concat();
        rows.push((name, body, NOT_JSON));
    }
    rows
}

#[tokio::test]
async fn every_body_is_refused_or_goes_on_as_it_is() {
    let (app, mut recorder) = recorded(&[("OFFPEAK_ADMISSION__MODEL_CHECK", "false")]).await;
    let mut wrong = Vec::new();
    for (name, body, fate) in bodies() {
        let mut request = format!(
            "{CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk\r\noffpeak-deadline: 1s\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        let answer = told(app.address, &request).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let seen = recorder.take().await;
        let holds = match fate {
            Line(line) => {
                let mut batched = Vec::new();
                batch_body(&body, &mut batched).unwrap();
                let sent = seen.iter().map(|request| after_head(request));
                answer.starts_with("HTTP/1.1 200")
                    && sent.eq([line.as_bytes()])
                    && batched == line.as_bytes()
            }
            Refused(code) => {
                let error: serde_json::Value =
                    serde_json::from_slice(after_head(answer.as_bytes())).unwrap_or_default();
                let told = error["error"]["code"].as_str().unwrap_or_default();
                answer.starts_with("HTTP/1.1 400") && told == code && seen.is_empty()
            }
        };
        if !holds {
            let shown: String = answer.chars().take(600).collect();
            wrong.push(format!(
                "{name}: {} reached the upstream, {shown}",
                seen.len()
            ));
        }
    }
    assert_eq!(wrong, [""; 0]);
    app.finish().await;
}

fn after_head(message: &[u8]) -> &[u8] {
    let head = message.windows(4).position(|four| four == b"\r\n\r\n");
    &message[head.unwrap() + 4..]
}
