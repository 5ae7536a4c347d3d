//! Test suites in other languages, and the program as people run it for them.
//!
//! A machine without a suite's tools or their registries skips it and says so; with
//! `OFFPEAK_REQUIRE_ALL=1`, as in `.ci/run`, that is a failure.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

pub struct Suite {
    /// Below `tests`; it has the scripts `setup` and `run`.
    pub directory: &'static str,
    /// Tools, each with what it must be able to run.
    pub needs: &'static [(&'static str, &'static str)],
}

impl Suite {
    /// Whether it can be run; where it cannot, that is told.
    pub fn is_ready(&self) -> bool {
        let Err(reason) = self.ready() else {
            return true;
        };
        let skipped = format!("SKIPPED: tests/{}, because {reason}", self.directory);
        assert!(
            std::env::var_os("OFFPEAK_REQUIRE_ALL").is_none(),
            "{skipped}"
        );
        // Not by `eprintln!`, which is kept back where a test passes.
        let mut console = io::stderr();
        writeln!(console, "{skipped}").unwrap();
        false
    }

    /// Runs it against `server`, which must end cleanly then.
    pub fn run<V>(&self, variables: V, server: &mut Program)
    where
        V: IntoIterator<Item = (&'static str, String)>,
    {
        let ran = self.script("run").envs(variables).output().unwrap();
        assert!(
            ran.status.success(),
            "{}{}\nthe server's last words:\n{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr),
            server.last_words(),
        );
        assert!(server.stop(), "the server did not stop cleanly");
    }

    /// Installs what it needs where that was not done. The error says what is missing.
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
        let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut command = Command::new(suites.join(self.directory).join(name));
        command.stdin(Stdio::null());
        command
    }
}

/// A port for a suite's own server: bound and never listening, it is kept for that.
pub fn reserved() -> (TcpSocket, SocketAddr) {
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = reserved.local_addr().unwrap();
    (reserved, address)
}

/// On a free port, and blind to the environment.
pub fn offpeak(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_offpeak"));
    program.env_clear();
    program.args([command, "--listen", "127.0.0.1:0"]);
    program
}

/// A process of ours; killed when dropped.
pub struct Program {
    pub url: String,
    child: Child,
    log: PathBuf,
    _stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Waits for the line that says where it listens.
    pub fn start(command: &mut Command, log: PathBuf) -> Program {
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
    pub fn stop(&mut self) -> bool {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }

    pub fn last_words(&self) -> String {
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
