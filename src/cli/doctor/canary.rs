//! `offpeak doctor --canary`: a few real calls and one tiny batch, written down without
//! secrets, and held against what our simulator says to the same calls.

mod calls;
mod compare;
mod line;
mod made;
mod mask;
mod shape;
mod stand_in;
mod transcript;

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    calls::{Ending, MOST_OUTPUT, Patience, Plan, Stop},
    compare::Difference,
    line::{Line, Payload},
    made::Made,
    transcript::Exchange,
};
use super::http::{self, Key};
use crate::{
    app::SystemClock,
    cli::{
        Failure,
        config::Reading,
        say::{say, show, tell},
        serve, stop_on_signal,
    },
    ledger::Prices,
    model::{attempt::Lane, money::Usd, request::Usage, time::Timestamp},
};

#[derive(clap::Args)]
pub struct Canary {
    /// Make a few real calls and one tiny batch with OPENAI_API_KEY, for a fraction of a
    /// cent, and tell where the provider is not as our simulator is. Ends with 0 if they
    /// agree, with 1 if not.
    #[arg(long)]
    pub canary: bool,
    /// The model of the calls.
    #[arg(long, requires = "canary", default_value = "gpt-4o-mini")]
    model: String,
    /// The model of the embedding.
    #[arg(
        long,
        requires = "canary",
        value_name = "MODEL",
        default_value = "text-embedding-3-small"
    )]
    embedding_model: String,
    /// How long the batch may take; then it is cancelled.
    #[arg(
        long,
        visible_alias = "deadline",
        requires = "canary",
        value_name = "TIME",
        default_value = "10m",
        value_parser = humantime::parse_duration
    )]
    wait: Duration,
    /// Cancel the batch at once.
    #[arg(long, requires = "canary", conflicts_with = "wait")]
    no_wait: bool,
    /// Where the transcript goes: fit to be attached to an issue.
    #[arg(
        long,
        requires = "canary",
        value_name = "FILE",
        default_value = "offpeak-canary.json"
    )]
    out: PathBuf,
    /// Do not ask.
    #[arg(long, requires = "canary")]
    yes: bool,
}

/// Between two looks at the batch.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// What the shell expects of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Nothing was compared.
const NOT_DONE: u8 = 2;
/// Of the question, generously.
const INPUT: u64 = 20;
/// Chat and responses, whole and streamed.
const CALLS: u64 = 4;

pub async fn run(args: &Canary, reading: Reading, as_json: bool) -> Result<ExitCode, Failure> {
    let failed = |why: String| Err(Failure::Other(why));
    let settings = match (reading.settings, reading.problems.as_slice()) {
        (Some(settings), []) => settings,
        (_, problems) => {
            let first = problems.first().map_or("", |problem| &problem.message);
            return failed(format!("{first} (`offpeak config check` tells more)"));
        }
    };
    let keys = Key::all(&settings, &serve::secrets(&settings));
    let Some(key) = keys.into_iter().next() else {
        return failed("OPENAI_API_KEY is not set: the calls are made with it".into());
    };
    let base = settings.provider.base_url.trim_end_matches('/');
    let plan = Plan {
        model: args.model.clone(),
        embedding_model: args.embedding_model.clone(),
        patience: Patience::For(match args.no_wait {
            true => Duration::ZERO,
            false => args.wait,
        }),
        looks: LOOKS,
        tells: true,
    };
    if !args.yes && !agreed(base, &key.variable, &plan, &settings.prices)? {
        tell("Nothing was called.");
        return Ok(ExitCode::from(NOT_DONE));
    }

    let tasks = TaskTracker::new();
    let stop = stop_on_signal(&tasks);
    let http = http::client()?;
    let started = SystemClock::new().now();
    let tag = format!("offpeak-canary-{}", started.as_millis());
    let mut line = Line::new(http.clone(), base, key.headers, &key.secrets);
    let (said, left) = converse(&mut line, &plan, tag, &stop).await;
    match said.as_ref() {
        Ok(_) if left.is_empty() => {}
        Ok(_) => tell(told_left(&left)),
        Err(Stop::Interrupted) => {
            tell(format_args!("Interrupted. {}", told_left(&left)));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Err(Stop::Lost(why)) => {
            tell(told_left(&left));
            return failed(format!("the canary broke off: {why}"));
        }
    }
    let ending = said.unwrap_or(Ending::NoBatch);
    let simulator = stand_in::exchanges(http, &plan, &ending).await?;
    let outcome = Outcome {
        upstream: base,
        plan: &plan,
        started,
        differences: compare::unanswered(&ending)
            .into_iter()
            .chain(compare::compare(&line.exchanges, &simulator))
            .collect(),
        provider: line.exchanges,
        simulator,
        left,
    };
    let text = format!("{:#}\n", outcome.transcript());
    std::fs::write(&args.out, text)
        .map_err(|error| Failure::Other(format!("{}: {error}", args.out.display())))?;
    let file = args.out.display().to_string();
    match as_json {
        true => say(outcome.to_json(&file))?,
        false => show(outcome.to_text(&file))?,
    }
    Ok(match outcome.differences.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// All calls, and then everything that they made taken away again; with what is left.
async fn converse(
    line: &mut Line,
    plan: &Plan,
    tag: String,
    stop: &CancellationToken,
) -> (Result<Ending, Stop>, Vec<String>) {
    let mut made = Made::new(tag);
    let said = calls::run(line, plan, &mut made, stop).await;
    if plan.tells && matches!(said, Err(Stop::Interrupted)) {
        tell("Taking away what was made …");
    }
    let left = made.clean(line, plan.looks.0).await;
    if let (Ok(_), Some(input)) = (&said, &made.input) {
        let path = format!("/files/{input}");
        let gone = ::http::Method::GET;
        // It is the last, and only its answer is of interest.
        let _ = line
            .call("deleted file", gone, &path, Payload::Nothing)
            .await;
    }
    (said, left)
}

fn told_left(left: &[String]) -> String {
    match left {
        [] => "Nothing is left at the provider.".into(),
        left => format!("Left at the provider: {}.", left.join("; ")),
    }
}

/// Says what will be done, and asks.
fn agreed(base: &str, variable: &str, plan: &Plan, prices: &Prices) -> Result<bool, Failure> {
    let cost = match cost(prices, &plan.model, &plan.embedding_model) {
        Some(cost) => format!("at most ${cost} by the prices that are known here"),
        None => "little: a few hundred tokens, of a model whose price is not known here".into(),
    };
    tell(format_args!(
        "This calls {base} with the key in {variable}: a model look-up, two chat completions \
         and two responses of {}, one embedding of {}, one call that is refused, and a batch of \
         one line. It costs {cost}. The batch and its files are taken away at the end.",
        plan.model, plan.embedding_model
    ));
    if !std::io::stdin().is_terminal() {
        let why = "there is no terminal to ask at: `--yes` says go on";
        return Err(Failure::Other(why.into()));
    }
    let _unread = write!(std::io::stderr(), "Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The most that the calls can cost; none where a price is not known.
fn cost(prices: &Prices, model: &str, embedding_model: &str) -> Option<Usd> {
    let usage = |calls: u64, output: u64| Usage {
        input: INPUT * calls,
        output: output * calls,
        ..Usage::default()
    };
    let paid = |model: &str, lane, usage| Some(prices.bill(model, lane, &usage)?.paid);
    let parts = [
        paid(model, Lane::Standard, usage(CALLS, MOST_OUTPUT))?,
        paid(model, Lane::Batch, usage(1, MOST_OUTPUT))?,
        paid(embedding_model, Lane::Standard, usage(1, 0))?,
    ];
    Some(parts.into_iter().sum())
}

struct Outcome<'a> {
    upstream: &'a str,
    plan: &'a Plan,
    started: Timestamp,
    provider: Vec<Exchange>,
    simulator: Vec<Exchange>,
    differences: Vec<Difference>,
    left: Vec<String>,
}

impl Outcome<'_> {
    fn transcript(&self) -> Value {
        json!({
            "object": "offpeak.canary_transcript",
            "version": env!("CARGO_PKG_VERSION"),
            "upstream": self.upstream,
            "model": self.plan.model,
            "started_at": self.started.to_string(),
            "differences": self.differences,
            "provider": self.provider,
            "simulator": self.simulator,
        })
    }

    fn to_json(&self, file: &str) -> Value {
        json!({
            "object": "offpeak.canary",
            "same": self.differences.is_empty(),
            "differences": self.differences,
            "left": self.left,
            "transcript": file,
        })
    }

    fn to_text(&self, file: &str) -> String {
        let calls = self.provider.len();
        let mut text = match self.differences.len() {
            0 => format!("{calls} calls: the provider is as the simulator is.\n"),
            1 => format!("{calls} calls, and one difference:\n"),
            many => format!("{calls} calls, and {many} differences:\n"),
        };
        for difference in &self.differences {
            text += &format!("  {}\n", difference.says);
        }
        text += &format!("The transcript is in {file}, without keys and accounts.\n");
        if !self.differences.is_empty() {
            text += "Look it through and attach it to an issue: where the simulator is wrong, \
                     our tests are.\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_costs_a_fraction_of_a_cent() {
        // 80 × 0.15 + 256 × 0.60, 20 × 0.075 + 64 × 0.30, and 20 × 0.02, a million.
        let prices = Prices::built_in().unwrap();
        let most = cost(&prices, "gpt-4o-mini", "text-embedding-3-small").unwrap();
        assert_eq!(most, Usd::from_pico(186_700_000));
        assert_eq!(
            cost(&prices, "nobody-knows", "text-embedding-3-small"),
            None
        );
    }
}
