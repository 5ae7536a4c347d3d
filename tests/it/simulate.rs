//! `offpeak simulate` from the outside.

use std::{path::Path, process::Command};

fn simulate(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_offpeak"))
        .arg("simulate")
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

const LINE: &str = r#"{"arrival": 12.5, "model": "gpt-4o-mini", "input_tokens": 900, "output_tokens": 120, "deadline": 21600}"#;

/// What stands in docs/simulate.md between ```` ```LANGUAGE ```` and its end.
fn example(language: &str) -> &'static str {
    let docs = include_str!("../../docs/simulate.md");
    let (_, from) = docs.split_once(&format!("```{language}\n")).unwrap();
    from.split_once("```").unwrap().0
}

#[test]
fn the_documented_files_are_played_and_drawn() {
    let (_trace_dir, trace) = file("trace.jsonl", example("jsonl"));
    let (_law_dir, law) = file("law.toml", example("toml"));
    let (drawing_dir, drawing) = file("plot.svg", "");
    let args = [
        "--trace",
        &trace,
        "--latency",
        &law,
        "--json",
        "--svg",
        &drawing,
    ];
    let (code, out, err) = simulate(&args);
    assert_eq!((code, err.as_str()), (0, ""));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["workload"], "trace");
    assert_eq!(report["requests"], example("jsonl").lines().count());
    assert_eq!(report["policies"].as_array().unwrap().len(), 7);
    let drawn = std::fs::read_to_string(&drawing).unwrap();
    assert!(drawn.starts_with("<svg "));
    assert!(Path::new(drawing_dir.path()).exists());

    let as_json = serde_json::to_string(&report["law"]).unwrap();
    let (_json_dir, law) = file("law.json", &as_json);
    let (_, again, _) = simulate(&["--trace", &trace, "--latency", &law, "--json"]);
    assert_eq!(again, out, "the law that is printed can be read");
}

#[test]
fn a_bad_line_is_named() {
    for (wrong, says) in [
        (
            LINE.replace("deadline", "within"),
            ":2 unknown field `within`",
        ),
        (
            LINE.replace("gpt-4o-mini", "gpt-0"),
            ":2 no price is known for the model `gpt-0`",
        ),
        (LINE.replace("12.5", "\"noon\""), ":2 invalid type: string"),
    ] {
        let (_directory, path) = file("trace.jsonl", &format!("{LINE}\n{wrong}\n"));
        let (code, out, err) = simulate(&["--trace", &path]);
        let says = says.replace(":2", &format!("{path}: line 2:"));
        assert!(err.starts_with(&format!("offpeak: {says}")), "{err}");
        assert_eq!((code, out.as_str()), (2, ""));
    }
}

#[test]
fn what_is_not_known_is_said() {
    let (code, _, err) = simulate(&["--workload", "stedy"]);
    assert!(
        code == 2 && err.contains("no workload `stedy`; there are steady, bursty"),
        "{err}"
    );
    let (code, _, err) = simulate(&["--latency", "publshed", "--requests", "10"]);
    assert!(
        code == 2 && err.contains("nor is it one of published, apart"),
        "{err}"
    );
    let (_directory, path) = file("law.toml", "[batch]\nmedain = 3\n");
    let (code, _, err) = simulate(&["--latency", &path, "--requests", "10"]);
    assert!(code == 2 && err.contains("unknown field `medain`"), "{err}");
}
