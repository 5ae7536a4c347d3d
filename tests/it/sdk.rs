//! The official SDKs, unchanged, against the program as people run it: `offpeak
//! serve` in front of `offpeak simulator`, one pair a suite (tests/sdk/README.md).
//!
//! A machine without Python, Node or their registries skips a suite and says so;
//! with `OFFPEAK_REQUIRE_ALL=1`, as in `.ci/run`, that is a failure.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

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
        name: "python",
        needs: &[
            ("python3", "import sys; assert sys.version_info >= (3, 9)"),
            ("python3", "import ensurepip, venv"),
        ],
    });
}

#[test]
fn node() {
    run(&Suite {
        name: "node",
        needs: &[
            (
                "node",
                "if (parseInt(process.versions.node) < 20) process.exit(1)",
            ),
            ("npm", "--version"),
        ],
    });
}

struct Suite {
    /// Its directory in tests/sdk.
    name: &'static str,
    /// Tools, each with what it must be able to run.
    needs: &'static [(&'static str, &'static str)],
}

fn run(suite: &Suite) {
    if let Err(reason) = suite.ready() {
        let skipped = format!("SKIPPED: the {} SDK's suite, because {reason}", suite.name);
        assert!(
            std::env::var_os("OFFPEAK_REQUIRE_ALL").is_none(),
            "{skipped}"
        );
        // Not by a macro, whose output a passing test would keep to itself.
        writeln!(io::stderr(), "{skipped}").unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(directory.path());
    let ran = suite
        .script("run")
        .envs(world.variables())
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}{}\nthe server's last words:\n{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
        world.server.last_words(),
    );
    assert!(world.server.stop(), "the server did not stop cleanly");
}

impl Suite {
    /// Installs the SDK where that was not done. The error says what is missing.
    fn ready(&self) -> Result<(), String> {
        for (tool, text) in self.needs {
            let mut command = Command::new(tool);
            match *tool {
                "python3" => command.args(["-c", text]),
                "node" => command.args(["-e", text]),
                _ => command.arg(text),
            };
            let output = command
                .output()
                .map_err(|error| format!("{tool} cannot be run: {error}"))?;
            if !output.status.success() {
                return Err(format!("{tool} is not up to `{text}`"));
            }
        }
        let output = self.script("setup").output().unwrap();
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(format!("it cannot be installed:\n{}", told.trim_end()));
        }
        Ok(())
    }

    fn script(&self, name: &str) -> Command {
        let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
        let mut command = Command::new(suites.join(self.name).join(name));
        command.stdin(Stdio::null());
        command
    }
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
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let webhooks = reserved.local_addr().unwrap();

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

/// On a free port, and blind to the environment.
fn offpeak(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_offpeak"));
    program.env_clear();
    program.args([command, "--listen", "127.0.0.1:0"]);
    program
}

/// A process of ours; killed when dropped.
struct Program {
    url: String,
    child: Child,
    log: PathBuf,
    _stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Waits for the line that says where it listens.
    fn start(command: &mut Command, log: PathBuf) -> Program {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let mut program = Program {
            url: String::new(),
            child,
            log,
            _stdout: stdout,
        };
        let address = line
            .split_once("listens on ")
            .and_then(|(_, rest)| rest.split_whitespace().next());
        let Some(address) = address else {
            panic!("it did not start: {line:?}\n{}", program.last_words());
        };
        program.url = address.trim_end_matches("/v1").to_owned();
        program
    }

    /// SIGTERM; whether it ended with 0.
    fn stop(&mut self) -> bool {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for, which is as well.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
