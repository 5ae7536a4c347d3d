//! The official SDKs, unchanged, against the program as people run it: `offpeak
//! serve` in front of `offpeak simulator`, one pair a suite (tests/sdk/README.md).
//!
//! A machine without Python, Node or their registries skips a suite and says so;
//! with `OFFPEAK_REQUIRE_ALL=1`, as in `.ci/run`, that is a failure.

use std::{fs, net::SocketAddr, path::Path};

use tokio::net::TcpSocket;

use crate::suite::{Program, Suite, offpeak, reserved};

/// Simulated seconds a real one.
const SPEED: &str = "60";

/// Real seconds until white space drips; most answers come long before.
const DRIP_AFTER: &str = "4";

/// A day in seconds; the rest are the defaults.
const SETTINGS: &[(&str, &str)] = &[
    ("OFFPEAK_HOLD__DRIP_AFTER", "4s"),
    ("OFFPEAK_HOLD__DRIP_INTERVAL", "500ms"),
    ("OFFPEAK_HOLD__STREAM_SILENCE", "4s"),
    ("OFFPEAK_HOLD__HEARTBEAT", "500ms"),
    ("OFFPEAK_PACKING__LINGER", "100ms"),
    ("OFFPEAK_PACKING__CREATES_PER_HOUR", "1000000"),
    ("OFFPEAK_WATCH__POLL_INTERVAL", "100ms"),
    ("OFFPEAK_WATCH__POLLS_PER_SECOND", "200"),
    ("OFFPEAK_RESCUE__RESERVE", "2s"),
    ("OFFPEAK_LIVE__RETRY_BASE", "100ms"),
    ("OFFPEAK_WEBHOOK__FIRST_RETRY", "200ms"),
    ("OFFPEAK_STORE__RESERVE_BYTES", "0"),
];

#[test]
fn python() {
    run(&Suite {
        directory: "sdk/python",
        needs: &[
            ("python3", "import sys; assert sys.version_info >= (3, 9)"),
            ("python3", "import ensurepip, venv"),
        ],
    });
}

#[test]
fn node() {
    run(&Suite {
        directory: "sdk/node",
        needs: &[
            (
                "node",
                "if (parseInt(process.versions.node) < 20) process.exit(1)",
            ),
            ("npm", "--version"),
        ],
    });
}

fn run(suite: &Suite) {
    if !suite.is_ready() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(directory.path());
    suite.run(world.variables(), &mut world.server);
}

/// A simulator with a server in front of it.
struct World {
    server: Program,
    simulator: Program,
    webhooks: SocketAddr,
    /// Bound and never listening: it keeps the port for the suite's receiver.
    _reserved: TcpSocket,
}

impl World {
    fn start(directory: &Path) -> World {
        let (reserved, webhooks) = reserved();

        let config = directory.join("simulator.toml");
        fs::write(&config, provider()).unwrap();
        let simulator = Program::start(
            offpeak("simulator")
                .args(["--speed", SPEED, "--config"])
                .arg(config),
            directory.join("simulator.log"),
        );
        let server = Program::start(
            offpeak("serve")
                .args(["--upstream", &format!("{}/v1", simulator.url)])
                .arg("--data-dir")
                .arg(directory.join("data"))
                .envs(SETTINGS.iter().copied())
                .env("OFFPEAK_WEBHOOK__ALLOW", format!("http://{webhooks}")),
            directory.join("server.log"),
        );
        World {
            server,
            simulator,
            webhooks,
            _reserved: reserved,
        }
    }

    /// What a suite reads.
    fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("OFFPEAK_URL", self.server.url.clone()),
            ("SIM_URL", self.simulator.url.clone()),
            ("SIM_SPEED", SPEED.into()),
            ("DRIP_AFTER", DRIP_AFTER.into()),
            ("WEBHOOK_PORT", self.webhooks.port().to_string()),
            // A proxy for the registries is none for this machine.
            ("NO_PROXY", "127.0.0.1".into()),
        ]
    }
}

/// The simulator's defaults, but quick and with no batch that stalls.
fn provider() -> String {
    let defaults = include_str!("../../src/simulator/default.toml");
    let mut settings: toml::Table = defaults.parse().unwrap();
    let latency = settings["latency"].as_table_mut().unwrap();
    for (key, value) in [
        ("validation", "3s".into()),
        ("turnaround_median", "12s".into()),
        ("turnaround_sigma", 0.1.into()),
        ("finalizing", "3s".into()),
        ("stalled_share", 0.0.into()),
    ] {
        let known: Option<toml::Value> = latency.insert(key.into(), value);
        assert!(known.is_some(), "{key} is no key of the simulator");
    }
    settings.to_string()
}
