//! What goes wrong while a process lives: at the provider, with the clock, with the
//! disk.

use std::{fmt, fs, path::Path, sync::Arc, time::Duration};

use offpeak::simulator::{Fault, Kind, Operation};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use super::{books, load::Load};
use crate::kill::{disk::Disk, provider::Provider};

/// What was created shows in the list half a second later, so that a search after a
/// crash may look too early.
const LAG: Duration = Duration::from_millis(500);
/// The wall is ahead or behind by these at most. In all less than the hour for which
/// an answer waits for a caller who calls again.
const MINUTES: std::ops::Range<i64> = -29..30;

/// The troubles of one life.
pub struct Troubles {
    faults: Vec<Fault>,
    /// While it runs: after so long the wall stands there.
    step: Option<(Duration, i64)>,
    /// The provider's port is closed from the one until the other.
    outage: Option<(Duration, Duration)>,
    full: Option<Full>,
}

/// The disk has so many bytes left, for a while.
#[derive(Clone, Copy)]
pub struct Full {
    after: Duration,
    lasting: Duration,
    left: u64,
    /// The strike waits until the process works again, or has ended by itself.
    pub is_outlived: bool,
}

fn millis(chance: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(chance.random_range(range))
}

impl Troubles {
    pub fn draw(chance: &mut StdRng) -> Self {
        let number = chance.random_range(0..6);
        Troubles {
            faults: (0..number).map(|_| fault(chance)).collect(),
            step: chance
                .random_ratio(1, 6)
                .then(|| (millis(chance, 0..1500), minutes(chance))),
            outage: chance
                .random_ratio(1, 10)
                .then(|| (millis(chance, 0..1000), millis(chance, 200..1500))),
            full: chance.random_ratio(1, 8).then(|| {
                let left = *[0, 0, 1 << 20, 34 << 20].choose(chance).unwrap();
                Full {
                    after: millis(chance, 0..1000),
                    lasting: millis(chance, 300..2000),
                    left,
                    is_outlived: chance.random_ratio(1, 2),
                }
            }),
        }
    }

    pub fn full(&self) -> Option<Full> {
        self.full
    }

    /// All but the full disk. Goes on until it is dropped; [`relieve`] ends what is left
    /// of it.
    pub async fn happen(self, provider: Arc<Provider>, rehearsal: &Path) {
        for fault in self.faults {
            provider.simulator.inject(fault);
        }
        lag(&provider);
        let step = async {
            if let Some((after, to)) = self.step {
                tokio::time::sleep(after).await;
                set_clock(rehearsal, to);
            }
        };
        let outage = async {
            if let Some((after, lasting)) = self.outage {
                tokio::time::sleep(after).await;
                provider.die().await;
                tokio::time::sleep(lasting).await;
                provider.revive().await;
            }
        };
        tokio::join!(step, outage);
    }
}

impl Full {
    /// Fills the disk and empties it again. In the end a call was taken in after that, or
    /// the process had ended.
    ///
    /// # Errors
    /// What it is that has not happened.
    pub async fn happen(self, disk: &Disk, load: &Load) -> Result<(), String> {
        tokio::time::sleep(self.after).await;
        disk.fill(self.left);
        tokio::time::sleep(self.lasting).await;
        disk.empty();
        let acknowledged = || load.register.books(|books| books.acknowledged);
        let before = acknowledged();
        let works = books::until(async || acknowledged() > before || load.server.has_ended());
        match works.await {
            true => Ok(()),
            false => Err("the disk has room again, and no call is taken in".into()),
        }
    }
}

impl fmt::Display for Troubles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            let kind = serde_json::to_value(&fault.kind).unwrap_or_default();
            let kind = kind["kind"].as_str().unwrap_or_default();
            write!(f, ", {} {:?} {kind}", fault.times, fault.on)?;
        }
        if let Some((_, minutes)) = self.step {
            write!(f, ", the wall at {minutes:+} min")?;
        }
        if self.outage.is_some() {
            f.write_str(", an outage")?;
        }
        if let Some(full) = self.full {
            write!(f, ", {} MiB left", full.left >> 20)?;
        }
        Ok(())
    }
}

fn lag(provider: &Provider) {
    provider.simulator.inject(Fault {
        times: u32::MAX,
        ..Fault::once(Operation::ListBatches, Kind::Lag { by: LAG })
    });
}

/// Ends the troubles of a life that is over, whatever has become of them.
pub async fn relieve(provider: &Provider, disk: Option<&Disk>) {
    provider.simulator.clear_faults();
    lag(provider);
    provider.die().await;
    provider.revive().await;
    if let Some(disk) = disk {
        disk.empty();
    }
}

/// Between two lives the wall is set, now and then.
pub fn between_lives(chance: &mut StdRng, rehearsal: &Path) {
    if chance.random_ratio(1, 6) {
        set_clock(rehearsal, minutes(chance));
    }
}

fn minutes(chance: &mut StdRng) -> i64 {
    match chance.random_ratio(1, 3) {
        true => chance.random_range(MINUTES),
        false => chance.random_range(-2..3),
    }
}

/// Whole, so that nobody reads a half of it.
pub fn set_clock(rehearsal: &Path, minutes: i64) {
    let next = rehearsal.join("clock.next");
    fs::write(&next, (minutes * 60_000).to_string()).unwrap();
    fs::rename(next, rehearsal.join("clock")).unwrap();
}

fn fault(chance: &mut StdRng) -> Fault {
    use Operation as O;
    const CALLS: [Operation; 14] = [
        O::UploadFile,
        O::CreateBatch,
        O::CreateBatch,
        O::CreateBatch,
        O::GetBatch,
        O::FileContent,
        O::DeleteFile,
        O::CancelBatch,
        O::ListFiles,
        O::Chat,
        O::Responses,
        O::GetResponse,
        O::Embeddings,
        O::GetModel,
    ];
    let of_a_batch = chance.random_ratio(1, 3);
    let (on, kind) = match of_a_batch {
        true => batch(chance),
        false => {
            let on = *CALLS.choose(chance).unwrap();
            (on, cut(on, chance))
        }
    };
    Fault {
        on,
        kind,
        times: chance.random_range(1..4),
        after: chance.random_range(0..6),
    }
}

/// A call that goes wrong.
fn cut(on: Operation, chance: &mut StdRng) -> Kind {
    use Operation as O;
    let by = millis(chance, 100..4000);
    let is_bought = matches!(on, O::Chat | O::Responses | O::Embeddings);
    match chance.random_range(0..9) {
        0 => Kind::Reset,
        1 | 2 => Kind::ReplyLost,
        3 => Kind::Truncated,
        4 => Kind::Late { by },
        5 => Kind::Delay { by },
        // What answers are bought with twice in one call, nobody can know of.
        6 if !is_bought => Kind::Twice,
        6 | 7 => Kind::StatusAfter { status: 504 },
        _ => Kind::Status {
            status: *[429, 500, 502, 503].choose(chance).unwrap(),
            retry_after_seconds: None,
            code: None,
        },
    }
}

/// A batch or a lane that behaves badly.
fn batch(chance: &mut StdRng) -> (Operation, Kind) {
    use Operation as O;
    let by = millis(chance, 500..4000);
    let lines = chance.random_range(1..4);
    match chance.random_range(0..13) {
        0 => (O::CreateBatch, Kind::MissingLines { lines }),
        1 => (O::CreateBatch, Kind::ZeroStatus { lines }),
        2 => (O::CreateBatch, Kind::EmptyErrorFileId),
        3 => (O::CreateBatch, Kind::WrongCounts),
        4 | 5 => (O::CreateBatch, Kind::Expire { within: by }),
        6 => (O::CreateBatch, Kind::Slow { by: by * 3 }),
        7 => (O::CreateBatch, Kind::SlowFinalizing { by }),
        8 => (O::CreateBatch, Kind::Vanish { lasting: by }),
        9 => (O::CreateBatch, Kind::Unlisted { lasting: by }),
        10 => (O::CancelBatch, Kind::SlowCancel { by: by * 2 }),
        11 => (O::Chat, Kind::FlexShortage),
        _ => (O::Responses, Kind::Overrun { by }),
    }
}
