//! `offpeak submit`: a file of calls, each bought once however often this is
//! interrupted, and their answers in the order of the file.

mod caller;
mod collect;
mod index;
mod input;
mod journal;
mod output;
mod pace;
mod progress;
mod run;
mod send;
mod summary;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tokio_util::task::TaskTracker;

use self::{
    caller::{Caller, Page, Terms},
    collect::SAMPLED,
    input::Input,
    journal::{BadJournal, Header, Journal, Options, VERSION, directory},
    pace::{Over, Pace},
    progress::Progress,
    run::{Run, journal_of},
};
use super::{
    Failure,
    say::{say, show, tell},
    server::{Server, Who},
};
use crate::{
    app::SystemClock,
    model::{deadline, endpoint::Endpoint},
    ports::Clock as _,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  all lines succeeded (without --wait: the server has all)
  1  some failed: they stand in the output with their errors
  2  nothing was begun, or no line can be sent or collected: the reason is told
  3  interrupted, the disk is full, or the server is gone: the same command goes on, and buys
     nothing twice

The key is OPENAI_API_KEY. A journal beside the output (FILE.out.jsonl.journal) has what was
sent and answered; keep it until the output is there. Go on within a day: what was on its way
when this process was killed is known to the server for 24 hours after its answer.";

/// Lines of OpenAI's batch format, or bare request bodies.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// A batch line (`{"custom_id","method","url","body"}`) or a request body on each line.
    file: PathBuf,
    /// When the answers are needed: `6h` from the first run on, or an RFC 3339 instant. A
    /// resumed run keeps it.
    #[arg(long, value_name = "WHEN")]
    deadline: String,
    /// Wait for the answers and write them.
    #[arg(long)]
    wait: bool,
    /// Where the answers go [default: FILE with `.out.jsonl`].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What savings and requests are grouped by.
    #[arg(long)]
    tag: Option<String>,
    /// Where bare bodies go, such as `/v1/embeddings`; those with `messages` show it.
    #[arg(long, value_name = "PATH", value_parser = endpoint)]
    endpoint: Option<Endpoint>,
    /// When the cheap way will not make it: pay more, be late, or fail [default: rescue].
    #[arg(long, value_name = "WHAT", value_parser = ["rescue", "wait", "fail"])]
    on_late: Option<String>,
    /// Lines on their way at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Count --deadline anew for what was not sent yet, as where it has passed.
    #[arg(long)]
    extend: bool,
    /// How long to wait for a server that has gone.
    #[arg(long, value_name = "TIME", default_value = "5m",
          value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    server: Server,
}

const SOME_FAILED: u8 = 1;
const REFUSED: u8 = 2;
const INTERRUPTED: u8 = 3;

/// What ends a run before its end.
enum End {
    Over(Over),
    /// Nothing can be had of this server: the reason, for people.
    Halted(String),
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Io(error)
    }
}

impl From<BadJournal> for Failure {
    fn from(bad: BadJournal) -> Self {
        Failure::Other(bad.to_string())
    }
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let key = args.server.key(Who::Caller)?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.file));
    let input = Input::survey(&args.file, args.endpoint, &directory(&out))
        .map_err(|bad| Failure::Other(bad.to_string()))?;
    let tasks = TaskTracker::new();
    let pace = Pace::new(args.patience, super::stop_on_signal(&tasks));
    let caller = Caller::new(args.server.base(), key, pace)?;
    let mut run = match open(&args, &input, &out, &caller).await {
        Ok(run) => run,
        Err(Unopened::Over(over)) => return Ok(unfinished(&End::Over(over), None)),
        Err(Unopened::Failed(failure)) => return Err(failure),
    };
    if !run.done {
        let mut progress = Progress::start(run.lines(), args.wait);
        let worked = work(&mut run, &args, (&input, &out), &caller, &mut progress).await;
        progress.end();
        if let Err(end) = worked {
            // What ended it is told; that this fails too is of the same cause.
            let _unsynced = run.journal.sync();
            return Ok(unfinished(&end, Some(&run)));
        }
    }
    let _nobody_reads = match args.server.json {
        true => say(summary::json(&run, &out)),
        false => show(summary::text(&run, &out)),
    };
    Ok(match run.sums.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_FAILED),
    })
}

async fn work(
    run: &mut Run,
    args: &Args,
    (input, out): (&Input, &Path),
    caller: &Caller,
    progress: &mut Progress,
) -> Result<(), End> {
    let terms = Terms {
        deadline: run.deadline.clone(),
        tag: args.tag.clone(),
        on_late: args.on_late.clone(),
    };
    let concurrency = usize::from(args.concurrency);
    let sender = (caller, &terms);
    send::send_all(run, input, args.endpoint, sender, concurrency, progress).await?;
    if args.wait {
        collect::collect(run, caller, progress).await?;
        output::write(run, input, args.endpoint, out)?;
        run.finish()?;
    }
    Ok(())
}

enum Unopened {
    Over(Over),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Unopened {
    fn from(error: E) -> Self {
        Unopened::Failed(error.into())
    }
}

/// Goes on with the run that the journal has, or begins one.
async fn open(args: &Args, input: &Input, out: &Path, caller: &Caller) -> Result<Run, Unopened> {
    let path = journal_of(out);
    // Before the first trace of a run: whether it can begin.
    let mut beginning = None;
    if !path.exists() {
        beginning = Some(Beginning::find(args, out, caller).await?);
    }
    let options = Options {
        endpoint: args.endpoint.map(|endpoint| endpoint.path().to_owned()),
        tag: args.tag.clone(),
        on_late: args.on_late.clone(),
    };
    let mut journal = Journal::open(&path)?;
    let Some(read) = Run::resume(&mut journal, input)? else {
        let beginning = match beginning {
            Some(beginning) => beginning,
            None => Beginning::find(args, out, caller).await?,
        };
        let header = Header {
            version: VERSION,
            run: format!("{:032x}", SystemClock::new().random()),
            digest: input.digest.clone(),
            lines: input.lines,
            asked: args.deadline.clone(),
            deadline: beginning.deadline,
            cursor: beginning.cursor,
            options,
        };
        return Ok(Run::begin(journal, header)?);
    };
    let Some(mut run) = read.into_run(journal) else {
        return Err(refuse(format!("{} has no beginning", path.display())));
    };
    if run.done {
        return match out.exists() {
            true => Ok(run),
            false => Err(refuse(format!(
                "this run was complete, and {} is gone. To buy it all again, remove {}",
                out.display(),
                path.display()
            ))),
        };
    }
    same(&run.header, args, &options).map_err(refuse)?;
    if args.extend {
        run.move_deadline(resolved(args)?)?;
    }
    known(&mut run, caller).await?;
    Ok(run)
}

/// What a run begins with.
struct Beginning {
    deadline: String,
    /// Where the feed ends before anything is sent.
    cursor: String,
}

impl Beginning {
    async fn find(args: &Args, out: &Path, caller: &Caller) -> Result<Beginning, Unopened> {
        if out.exists() {
            return Err(refuse(format!(
                "{} is there, and no run of this command wrote it: name another --out",
                out.display()
            )));
        }
        let deadline = resolved(args)?;
        let cursor = caller.feed_end().await?;
        Ok(Beginning { deadline, cursor })
    }
}

/// The instant that the deadline means now.
fn resolved(args: &Args) -> Result<String, Unopened> {
    deadline::parse(&args.deadline, SystemClock::new().wall(), Duration::MAX)
        .map(|at| at.to_string())
        .map_err(|bad| refuse(bad.to_string()))
}

/// A resume says what the run was begun with.
fn same(header: &Header, args: &Args, options: &Options) -> Result<(), String> {
    if header.options != *options {
        let was = &header.options;
        let told = |name, value: &Option<String>| match value {
            Some(value) => format!(" {name} {value}"),
            None => String::new(),
        };
        return Err(format!(
            "this run was begun with other options:{}{}{} (and nothing else of these)",
            told("--tag", &was.tag),
            told("--on-late", &was.on_late),
            told("--endpoint", &was.endpoint)
        ));
    }
    if header.asked != args.deadline && !args.extend {
        return Err(format!(
            "this run was begun with --deadline '{}', which was {}: say it again, or --extend to \
             give what was not sent yet another one",
            header.asked, header.deadline
        ));
    }
    Ok(())
}

/// Another key or another server would wait for answers that never come. The cursor tells:
/// only who gave it out can read it.
async fn known(run: &mut Run, caller: &Caller) -> Result<(), Unopened> {
    if run.sums.ended() == run.lines() {
        return Ok(());
    }
    let cursor = run.cursor.clone();
    match (caller.tries(cursor.as_deref()).await).map_err(Unopened::Over)? {
        Page::Lines(..) | Page::Expired => return Ok(()),
        Page::Foreign => {}
        Page::Halted(why) => return Err(refuse(why)),
    }
    let sample = run.sample(SAMPLED)?;
    let Some(one) = sample.first() else {
        // Nothing was taken: with the key of this run's first try, say.
        let cursor = caller.feed_end().await?;
        return Ok(run.go_on_after(&cursor)?);
    };
    if (caller.knows_any(&sample).await).map_err(Unopened::Over)? {
        // A key that took the place of the old one: its feed is read from the beginning.
        run.cursor = None;
        return Ok(());
    }
    Err(refuse(format!(
        "the server does not know {one} with this key, which this run was told, nor others of it: \
         another key, another server, or another data directory. What was answered before stands \
         in {}",
        run.journal.path().display()
    )))
}

fn refuse(why: String) -> Unopened {
    Unopened::Failed(Failure::Other(why))
}

/// Says what is in the way and how to go on.
fn unfinished(end: &End, run: Option<&Run>) -> ExitCode {
    if let Some(run) = run {
        let (sent, lines, ended) = (run.sent, run.lines(), run.sums.ended());
        tell(format_args!(
            "{sent} of {lines} lines are sent, {ended} answered."
        ));
    }
    let (why, code) = match end {
        End::Over(Over::Stopped) => ("interrupted.".into(), INTERRUPTED),
        End::Over(Over::Gone) => ("the server does not answer any more.".into(), INTERRUPTED),
        End::Halted(why) => (why.clone(), REFUSED),
        End::Io(error) => (error.to_string(), INTERRUPTED),
    };
    tell(format_args!("offpeak: {why}"));
    tell("The same command goes on from here; no line is bought twice.");
    ExitCode::from(code)
}

fn default_out(file: &Path) -> PathBuf {
    file.with_extension("out.jsonl")
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let path = format!(
        "/v1/{}",
        text.trim_start_matches('/').trim_start_matches("v1/")
    );
    Endpoint::from_path(&path).ok_or_else(|| {
        let known = Endpoint::ALL.map(Endpoint::path).join(", ");
        format!("one of {known}")
    })
}
