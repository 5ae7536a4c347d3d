//! The dashboard in a real browser, on the program as people run it: `offpeak serve` in
//! front of `offpeak simulator`. What is looked for is in tests/browser; its pictures are
//! kept in target/dashboard.

use std::{fs, path::Path, process::Command};

use crate::suite::{Program, Suite, offpeak, reserved};

/// A day in seconds; webhooks are given up within one. The rest are the defaults.
const SETTINGS: &[(&str, &str)] = &[
    ("OFFPEAK_PACKING__LINGER", "100ms"),
    ("OFFPEAK_PACKING__CREATES_PER_HOUR", "1000000"),
    ("OFFPEAK_WATCH__POLL_INTERVAL", "50ms"),
    ("OFFPEAK_WATCH__POLLS_PER_SECOND", "200"),
    ("OFFPEAK_RESCUE__RESERVE", "2s"),
    ("OFFPEAK_LIVE__RETRY_BASE", "50ms"),
    ("OFFPEAK_WEBHOOK__FIRST_RETRY", "50ms"),
    ("OFFPEAK_WEBHOOK__HORIZON", "500ms"),
    ("OFFPEAK_STORE__RESERVE_BYTES", "0"),
];

/// A model's name as an attacker would choose it. Nobody has a price for it.
const HOSTILE_MODEL: &str = "<img src=x onerror=alert(1)>";

#[test]
fn in_a_browser() {
    let suite = Suite {
        directory: "browser",
        needs: &[
            (
                "node",
                "if (parseInt(process.versions.node) < 20) process.exit(1)",
            ),
            ("npm", "--version"),
            ("/usr/bin/chromium", "--version"),
        ],
    };
    if !suite.is_ready() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let config = directory.join("simulator.toml");
    fs::write(&config, provider()).unwrap();
    let simulator = Program::start(
        offpeak("simulator")
            .args(["--speed", "60", "--config"])
            .arg(config),
        directory.join("simulator.log"),
    );
    let (_kept, webhooks) = reserved();
    let data = directory.join("data");
    let mut server = Program::start(
        offpeak("serve")
            .args(["--upstream", &format!("{}/v1", simulator.url)])
            .arg("--data-dir")
            .arg(&data)
            .envs(SETTINGS.iter().copied())
            .env("OFFPEAK_WEBHOOK__ALLOW", format!("http://{webhooks}")),
        directory.join("server.log"),
    );
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dashboard");
    let variables = [
        ("OFFPEAK_URL", server.url.clone()),
        ("LINK", link(&server.url, &data)),
        ("WEBHOOK_PORT", webhooks.port().to_string()),
        ("PICTURES", pictures.display().to_string()),
        // A proxy for the registries is none for this machine.
        ("NO_PROXY", "127.0.0.1".into()),
    ];
    suite.run(variables, &mut server);
    println!("pictures of the dashboard: {}", pictures.display());
}

/// What `offpeak dashboard` prints.
fn link(url: &str, data: &Path) -> String {
    let printed = Command::new(env!("CARGO_BIN_EXE_offpeak"))
        .env_clear()
        .args(["dashboard", "--url", url, "--data-dir"])
        .arg(data)
        .output()
        .unwrap();
    assert!(printed.status.success(), "{printed:?}");
    String::from_utf8(printed.stdout).unwrap().trim().to_owned()
}

/// The simulator's defaults, but quick, without a batch that stalls, and with one more model.
fn provider() -> String {
    let defaults = include_str!("../../src/simulator/default.toml");
    let mut settings: toml::Table = defaults.parse().unwrap();
    let latency = settings["latency"].as_table_mut().unwrap();
    for (key, value) in [
        ("turnaround_median", "12s".into()),
        ("turnaround_sigma", 0.1.into()),
        ("stalled_share", 0.0.into()),
    ] {
        let known: Option<toml::Value> = latency.insert(key.into(), value);
        assert!(known.is_some(), "{key} is no key of the simulator");
    }
    let models = settings["models"].as_table_mut().unwrap();
    let like = models["gpt-4o-mini"].clone();
    models.insert(HOSTILE_MODEL.into(), like);
    settings.to_string()
}
