//! `offpeak serve` as a child process.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{sync::watch, time::sleep};

use super::{apart, soon};

/// What a day is played with in seconds.
pub const FAST: &[(&str, &str)] = &[
    ("OFFPEAK_PACKING__LINGER", "150ms"),
    ("OFFPEAK_PACKING__CREATES_PER_HOUR", "1000000"),
    ("OFFPEAK_SUBMIT__VISIBILITY_WINDOW", "2s"),
    ("OFFPEAK_SUBMIT__RETRY_BASE", "100ms"),
    ("OFFPEAK_SUBMIT__RETRY_MAX", "500ms"),
    ("OFFPEAK_WATCH__POLL_INTERVAL", "100ms"),
    ("OFFPEAK_WATCH__POLLS_PER_SECOND", "200"),
    ("OFFPEAK_RESCUE__RESERVE", "2s"),
    ("OFFPEAK_LIVE__EXPECTED", "100ms"),
    ("OFFPEAK_LIVE__RETRY_BASE", "100ms"),
    ("OFFPEAK_LIVE__RETRY_MAX", "500ms"),
    ("OFFPEAK_HOLD__DRIP_AFTER", "400ms"),
    ("OFFPEAK_HOLD__DRIP_INTERVAL", "200ms"),
    ("OFFPEAK_HOLD__STREAM_SILENCE", "300ms"),
    ("OFFPEAK_HOLD__HEARTBEAT", "200ms"),
    ("OFFPEAK_RETENTION__SWEEP_INTERVAL", "300ms"),
    ("OFFPEAK_STORE__RESERVE_BYTES", "0"),
    ("OFFPEAK_WEBHOOK__FIRST_RETRY", "100ms"),
    ("OFFPEAK_SERVER__WORKERS", "2"),
];

/// How to start a server.
#[derive(Clone)]
pub struct Setup {
    pub upstream: String,
    pub data_dir: PathBuf,
    pub environment: Vec<(String, String)>,
    /// The most files that it may have open.
    pub files: Option<u32>,
    /// A write past its limit of a file's size fails, as on a sick disk, and does not
    /// kill it.
    pub outlives_large_files: bool,
}

impl Setup {
    pub fn new(upstream: &str, data_dir: &Path) -> Self {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Setup {
            upstream: upstream.to_owned(),
            data_dir: data_dir.to_owned(),
            environment: FAST.iter().map(owned).collect(),
            files: None,
            outlives_large_files: false,
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_offpeak");
        let files = self.files.map(|files| format!("ulimit -n {files}; "));
        let large = self.outlives_large_files.then(|| "trap '' XFSZ; ".into());
        let limits: String = files.into_iter().chain(large).collect();
        let mut command = match limits.is_empty() {
            true => Command::new(binary),
            false => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("{limits}exec \"$0\" \"$@\""), binary]);
                shell
            }
        };
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--upstream"])
            .arg(&self.upstream)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it accepts calls.
    pub async fn start(&self, stderr: &Path) -> Process {
        self.load(stderr).loaded().await
    }

    /// `stderr` gets what it says, behind what is there.
    pub async fn try_start(&self, stderr: &Path) -> Result<Process, Refusal> {
        self.load(stderr).ended().await
    }

    /// Starts it, and waits for nothing.
    pub fn load(&self, stderr: &Path) -> Loading {
        let log = File::options()
            .create(true)
            .append(true)
            .open(stderr)
            .unwrap();
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        Loading {
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child: Killed(child),
            stderr: stderr.to_owned(),
        }
    }
}

/// One that has not said yet that it takes calls.
pub struct Loading {
    stdout: BufReader<ChildStdout>,
    child: Killed,
    stderr: PathBuf,
}

impl Loading {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).unwrap();
    }

    /// Looks at its log until there is what is looked for.
    pub async fn until<T>(&self, found: impl Fn(&str) -> Option<T>) -> T {
        loop {
            if let Some(found) = found(&fs::read_to_string(&self.stderr).unwrap()) {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn loaded(self) -> Process {
        match self.ended().await {
            Ok(process) => process,
            Err(Refusal { code, told }) => panic!("it did not start: {code:?}\n{told}"),
        }
    }

    pub async fn refused(self) -> Refusal {
        match self.ended().await {
            Ok(_) => panic!("it started"),
            Err(refusal) => refusal,
        }
    }

    async fn ended(self) -> Result<Process, Refusal> {
        let stdout = self.stdout;
        let read = apart("the line with the address", move || first_line(stdout));
        let (line, stdout) = read.await;
        let address = line
            .strip_prefix("offpeak listens on ")
            .and_then(|rest| rest.split(' ').next());
        let process = Process {
            base: address.unwrap_or_default().to_owned(),
            child: self.child,
            _stdout: stdout,
        };
        if address.is_some() {
            return Ok(process);
        }
        Err(Refusal {
            code: process.ended().await.code(),
            told: fs::read_to_string(self.stderr).unwrap(),
        })
    }
}

/// Why it did not start.
pub struct Refusal {
    pub code: Option<i32>,
    /// All that it wrote to standard error.
    pub told: String,
}

fn first_line(mut stdout: BufReader<ChildStdout>) -> (String, BufReader<ChildStdout>) {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    (line, stdout)
}

/// A running server.
pub struct Process {
    /// `http://ADDRESS`.
    pub base: String,
    child: Killed,
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child.0)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> ExitStatus {
        apart("the end of the process", move || {
            self.child.0.wait().unwrap()
        })
        .await
    }
}

/// A child that dies when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for, which is as well.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A server that is up at times: callers wait for the next one where a
/// connection broke.
pub struct Revived {
    setup: Setup,
    pub stderr: PathBuf,
    process: Mutex<Option<Process>>,
    up: watch::Sender<Up>,
}

/// The n-th start, and where that one listens.
#[derive(Clone, Default)]
pub struct Up {
    pub start: u32,
    pub base: Arc<str>,
}

impl Revived {
    pub async fn start(setup: Setup, stderr: &Path) -> Self {
        let revived = Revived {
            setup,
            stderr: stderr.to_owned(),
            process: Mutex::new(None),
            up: watch::Sender::new(Up::default()),
        };
        revived.again().await;
        revived
    }

    pub async fn again(&self) {
        if let Err(Refusal { code, told }) = self.try_again().await {
            panic!("it did not start: {code:?}\n{told}");
        }
    }

    /// Its refusal has no code where it was killed before it was up.
    pub async fn try_again(&self) -> Result<(), Refusal> {
        let process = self.setup.try_start(&self.stderr).await?;
        let base = process.base.as_str().into();
        *self.process.lock() = Some(process);
        self.up.send_modify(|up| {
            up.start += 1;
            up.base = base;
        });
        Ok(())
    }

    pub fn pid(&self) -> Pid {
        self.process.lock().as_ref().unwrap().pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.lock().as_ref().unwrap().signal(signal);
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        let mut process = self.process.lock();
        process.as_mut().is_none_or(Process::has_ended)
    }

    pub async fn ended(&self) -> ExitStatus {
        let process = self.process.lock().take().unwrap();
        process.ended().await
    }

    /// The one that was started last.
    pub fn up(&self) -> Up {
        self.up.borrow().clone()
    }

    /// The first one after the `start`-th.
    pub async fn after(&self, start: u32) -> Up {
        let mut watch = self.up.subscribe();
        let next = watch.wait_for(|up| up.start > start);
        soon("another start", next).await.unwrap().clone()
    }

    pub fn log(&self) -> String {
        let mut log = String::new();
        File::open(&self.stderr)
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        log
    }
}
