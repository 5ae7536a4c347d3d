//! `offpeak demo` to its end, as a person or a script that waits for it sees it.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{offpeak, said, terminal::Running};
use crate::kill::apart;

const GOOD: &str =
    "Every call was answered, on time, and the provider's bill agrees to the last digit.";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_by_itself() {
    let said = said(offpeak(&["demo", "--calls", "12"])).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains(GOOD), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_programs_it_says_one_object() {
    let said = said(offpeak(&["demo", "--calls", "20", "--json"])).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["good"], true, "{report}");
    assert_eq!(report["faults"], json!([]));
    let kinds = report["kinds"].as_array().unwrap();
    let calls: Vec<&Value> = kinds.iter().map(|kind| &kind["calls"]).collect();
    assert_eq!(calls, [8, 4, 3, 3, 1, 1]);
    assert_eq!(kinds[5]["paid_usd"], Value::Null);
    assert_eq!(report["with_a_deadline"]["on_time"], 19);
    assert!(report["with_a_deadline"]["saved_usd"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_stay_it_goes_on_until_ctrl_c() {
    let mut command = offpeak(&["demo", "--calls", "4", "--stay"]);
    let mut child = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let staying = apart("the report", move || {
        let mut text = String::new();
        while !text.contains("It goes on until Ctrl-C") {
            assert_ne!(out.read_line(&mut text).unwrap(), 0, "{text}");
        }
        (text, out)
    });
    let (report, mut out) = staying.await;
    assert!(report.contains(GOOD), "{report}");
    assert_eq!(child.0.try_wait().unwrap(), None);
    kill_process(Pid::from_child(&child.0), Signal::INT).unwrap();
    let ended = apart("its end", move || {
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        (child.0.wait().unwrap(), rest)
    });
    let (ended, rest) = ended.await;
    assert_eq!((ended.code(), &*rest), (Some(0), ""));
}
