//! `offpeak simulator` from the outside: what it refuses, and what it says then.

use std::{net::TcpListener, process::Command};

fn refused(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_offpeak"))
        .arg("simulator")
        .args(args)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let says = refused(&["--listen", &address]);
    let expected = format!("offpeak: cannot listen on {address}: Address already in use");
    assert!(says.starts_with(&expected), "{says}");
}

#[test]
fn a_clock_that_stands_still_is_refused() {
    let says = refused(&["--listen", "127.0.0.1:0", "--speed", "0"]);
    assert_eq!(says, "offpeak: speed: 0 is not from 0.001 to 1,000,000\n");
}

#[test]
fn a_file_may_hold_some_keys_and_no_unknown_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("simulator.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "speed = 0\n[latency]\ncancel = \"25m\"\n").unwrap();
    let says = refused(&["--listen", "127.0.0.1:0", "--config", path]);
    assert_eq!(says, "offpeak: speed: 0 is not from 0.001 to 1,000,000\n");
    std::fs::write(&file, "[latency]\ncancle = \"25m\"\n").unwrap();
    let says = refused(&["--listen", "127.0.0.1:0", "--config", path]);
    let expected = format!("offpeak: {path}: latency.cancle: unknown field `cancle`");
    assert!(says.starts_with(&expected), "{says}");
}
