//! `offpeak backup`: a copy of all that is stored.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::{DataDir, Failure, say::say};
use crate::{
    ports::Store as _,
    store::{BackupEnd, BadBackup, Check, OpenError, Settings, SledStore},
};

#[derive(clap::Args)]
pub struct Args {
    /// Where the backup goes; it takes the place of a file of that name when it is whole.
    file: PathBuf,
    /// The running server; without one, the data directory is read.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    #[command(flatten)]
    from: DataDir,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let settings = args.from.settings()?;
    let database = settings.data_dir.join("store").exists();
    let partial = partial(&args.file);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        // Prompts and answers are in it.
        .mode(0o600)
        .open(&partial)
        .map_err(|error| Failure::Other(format!("{}: {error}", partial.display())))?;
    let taken = match database.then(|| SledStore::open_unchanged(&settings)) {
        None | Some(Err(OpenError::InUse { .. })) => fetch(&args.url, &settings, file).await,
        Some(Ok(store)) => read(store, file).await,
        Some(Err(error)) => Err(Failure::Other(error.to_string())),
    };
    let end = match taken.and_then(|end| place(&partial, &args.file).map(|()| end)) {
        Ok(end) => end,
        Err(error) => {
            // Told is why it failed.
            let _ = std::fs::remove_file(&partial);
            return Err(error);
        }
    };
    let (pairs, commits) = (end.pairs, end.commits);
    match args.json {
        true => say(json!({
            "object": "offpeak.backup", "file": args.file, "records": pairs, "commits": commits,
        }))?,
        false => say(format_args!(
            "{} holds {pairs} records and {commits} changes that came meanwhile. The master key is not in it.",
            args.file.display()
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn place(partial: &Path, file: &Path) -> Result<(), Failure> {
    std::fs::rename(partial, file)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    Ok(File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?)
}

/// No server runs.
async fn read(store: SledStore, file: File) -> Result<BackupEnd, Failure> {
    let (out, mut taken) = mpsc::channel::<io::Result<Bytes>>(4);
    let tasks = TaskTracker::new();
    tasks.spawn(async move { store.backup(out).await });
    let mut copy = Copy::to(file);
    while let Some(part) = taken.recv().await {
        copy.add(&part?)?;
    }
    tasks.close();
    tasks.wait().await;
    copy.end()
}

async fn fetch(url: &str, settings: &Settings, file: File) -> Result<BackupEnd, Failure> {
    let token_file = settings.data_dir.join("admin.token");
    let token = std::env::var("OFFPEAK_ADMIN_TOKEN")
        .or_else(|_| std::fs::read_to_string(&token_file))
        .map_err(|_| {
            let file = token_file.display();
            Failure::Other(format!(
                "neither a database nor the admin token of a running server was found: set OFFPEAK_ADMIN_TOKEN (the server wrote it into {file}) or --data-dir"
            ))
        })?;
    let url = format!("{}/offpeak/admin/backup", url.trim_end_matches('/'));
    // reqwest wants a TLS provider to be there.
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    let failed = |error: reqwest::Error| {
        let why = super::remote::root_cause(&error);
        Failure::Other(format!("no backup from an Offpeak at {url}: {why}"))
    };
    let http = reqwest::Client::builder().build().map_err(failed)?;
    let reply = http.get(&url).bearer_auth(token.trim()).send().await;
    let mut reply = reply.map_err(failed)?;
    if reply.status() == reqwest::StatusCode::CONFLICT {
        let busy = "another backup of it is being taken: one at a time";
        return Err(Failure::Other(format!("{url}: {busy}")));
    }
    if !reply.status().is_success() {
        return Err(Failure::Other(format!("{url}: {}", reply.status())));
    }
    let mut copy = Copy::to(file);
    while let Some(part) = reply.chunk().await.map_err(failed)? {
        copy.add(&part)?;
    }
    copy.end()
}

/// A backup on its way into a file, looked through as it goes by.
struct Copy {
    file: File,
    check: Check,
}

impl Copy {
    fn to(file: File) -> Copy {
        let check = Check::default();
        Copy { file, check }
    }

    fn add(&mut self, part: &[u8]) -> Result<(), Failure> {
        self.file.write_all(part)?;
        let looked = self.check.take(part, |_, _| Ok::<(), BadBackup>(()));
        looked.map_err(bad)
    }

    fn end(self) -> Result<BackupEnd, Failure> {
        let end = self.check.end().map_err(bad)?;
        self.file.sync_all()?;
        Ok(end)
    }
}

fn bad(error: BadBackup) -> Failure {
    Failure::Other(format!("what came is no whole backup: {error}"))
}
