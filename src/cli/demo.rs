//! `offpeak demo`: a simulated provider, the proxy in front of it, and a few
//! hundred ordinary calls through real HTTP. No key, no network, under a minute.

mod calls;
mod progress;
mod report;
mod stay;

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::task::TaskTracker;

use self::{
    calls::{Client, Kind, Savings},
    progress::Progress,
    report::Report,
};
use super::{Failure, log, say::say};
use crate::{
    app::{App, Secrets, Settings, SystemClock},
    config::Config,
    model::secret::Secret,
    ports::Clock as _,
    simulator::{self, Bill, Simulator},
};

/// How much faster than real time the simulated provider runs.
const SPEED: f64 = 120.0;
/// The spread of its turnaround, and the share of batches with lines that never end.
const SIGMA: f64 = 0.9;
const STALLED: f64 = 0.15;
/// The calls come in over this long, so that there are many batches.
const ARRIVALS: Duration = Duration::from_secs(8);
/// Cancelled batches end, and what they finished is booked, within this.
const SETTLING: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Args {
    /// How many calls to make.
    #[arg(long, default_value_t = 300)]
    calls: usize,
    /// The simulated provider's luck.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Go on after the report, with a call now and then, until Ctrl-C: to look around in the
    /// dashboard, and to try clients of your own.
    #[arg(long)]
    stay: bool,
    /// Where the proxy listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    /// Print the report as one JSON object at the end, and nothing before.
    #[arg(long, conflicts_with = "stay")]
    json: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    log::start(&log::Settings {
        filter: "off".into(),
        format: log::Format::Text,
    })?;
    let data = tempfile::tempdir()?;
    let tasks = TaskTracker::new();
    let stop = super::stop_on_signal(&tasks);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let upstream = format!("http://{}/v1", listener.local_addr()?);
    let simulator = Simulator::new(provider(args.seed), SystemClock::new().now());
    tasks.spawn(simulator::serve(listener, simulator.clone(), stop.clone()));

    let token = format!("{:032x}", SystemClock::new().random());
    let secrets = Secrets {
        admin_token: Some(Secret::new(token.as_str())),
        ..Secrets::default()
    };
    let settings = proxy(&args.listen, &upstream, data.path())?;
    let app = App::start(settings, secrets, stop.clone()).await?;
    let base = format!("http://{}", app.address());
    tasks.spawn(app.run());

    if !args.json {
        say(format_args!(
            "A simulated provider runs at {upstream}, {SPEED} times faster than real time:\n\
             a second stands for {} minutes. Offpeak runs at {base}/v1.\n\
             {} ordinary calls go through it, most with an Offpeak-Deadline header.\n\
             Its dashboard: {base}/offpeak/#token={token}\n",
            SPEED / 60.0,
            args.calls
        ))?;
    }
    let made = tokio::select! {
        made = make_calls(&base, &args, &simulator) => made?,
        () = stop.cancelled() => return Err(Failure::Other("stopped before the last answer".into())),
    };
    let client = Client::new(&base)?;
    let (savings, bill) = settled(&client, &simulator).await?;
    let verdict = made.verdict(&savings, &bill);
    match args.json {
        true => say(made.json(&savings, &verdict))?,
        false => {
            let table = made.table(&savings, SPEED);
            say(format_args!("{table}\n{verdict}\n\n{}", law()))?;
        }
    }
    if args.stay {
        say(format_args!(
            "\nIt goes on until Ctrl-C, with a call now and then."
        ))?;
        stay::on(client, args.calls, &stop).await;
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(if verdict.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn make_calls(
    base: &str,
    args: &Args,
    simulator: &Arc<Simulator>,
) -> Result<Report, Failure> {
    let client = Arc::new(Client::new(base)?);
    let calls = args.calls;
    let mut running = JoinSet::new();
    for number in 0..calls {
        let client = client.clone();
        let arrival = ARRIVALS.mul_f64(number as f64 / calls as f64);
        running.spawn(async move {
            tokio::time::sleep(arrival).await;
            client.call(Kind::of(number), number).await
        });
    }
    let mut progress = (!args.json).then(|| Progress::start(calls));
    let mut report = Report::default();
    let mut ticks = tokio::time::interval(progress::TICK);
    while report.len() < calls {
        tokio::select! {
            Some(done) = running.join_next() => match done {
                Ok(done) => report.add(done),
                Err(error) => return Err(Failure::Other(format!("a call died: {error}"))),
            },
            _ = ticks.tick() => {}
        }
        if let Some(progress) = &mut progress {
            progress.show(&report, simulator)?;
        }
    }
    if let Some(progress) = progress {
        progress.end()?;
    }
    Ok(report)
}

/// The books when nothing is on its way any more: an answer that was paid twice comes
/// after the one that its caller got.
async fn settled(client: &Client, simulator: &Arc<Simulator>) -> Result<(Savings, Bill), Failure> {
    let until = Instant::now() + SETTLING;
    loop {
        let (savings, bill) = (client.savings().await?, simulator.bill());
        let (running, _) = progress::batches(simulator);
        let agree = report::billed(&bill) == savings.total.paid;
        if (running == 0 && agree) || Instant::now() >= until {
            return Ok((savings, bill));
        }
        tokio::time::sleep(progress::TICK).await;
    }
}

/// What the numbers hold for.
fn law() -> String {
    format!(
        "The provider's law is not the published one, so that rescues happen before your eyes:\n\
         half of its batches end within 7 minutes of its time, nine of ten within 22 (sigma {SIGMA};\n\
         published: an hour), and {:.0} % have lines that never end. `offpeak simulate` plays the\n\
         published one.",
        STALLED * 100.0
    )
}

/// Median turnaround as published, less spread, and more stalled batches than one would
/// see, so that a rescue happens before the reader's eyes.
fn provider(seed: u64) -> simulator::Settings {
    let mut settings = simulator::Settings {
        seed,
        speed: SPEED,
        ..Default::default()
    };
    settings.latency.turnaround_median = Duration::from_secs(7 * 60);
    settings.latency.turnaround_sigma = SIGMA;
    settings.latency.stalled_share = STALLED;
    settings
}

fn proxy(listen: &str, upstream: &str, data: &std::path::Path) -> Result<Settings, Failure> {
    let flags = [
        ("server.listen", listen.to_owned()),
        ("upstream.base_url", upstream.to_owned()),
        ("store.data_dir", data.display().to_string()),
        ("store.reserve_bytes", "0".to_owned()),
        ("packing.linger", "500ms".to_owned()),
        // As fast as its hours go by.
        ("packing.creates_per_hour", (2_000.0 * SPEED).to_string()),
        ("watch.poll_interval", "250ms".to_owned()),
        ("watch.polls_per_second", "50".to_owned()),
        ("rescue.reserve", "6s".to_owned()),
        ("live.expected", "200ms".to_owned()),
        ("hold.drip_after", "2m".to_owned()),
        ("server.shutdown_grace", "2s".to_owned()),
    ];
    let nothing: [(&str, &str); 0] = [];
    Ok(Settings::read(&Config::load(None, nothing, &flags)?)?)
}
