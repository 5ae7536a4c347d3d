//! For the torture runs (docs/torture.md), in debug builds only: the process kills
//! itself at one commit, where `kill` in the directory that [`DIRECTORY`] names says
//! so: `applied 137` is the 137th pass of [`Point::Applied`].

use std::{
    fs,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Signal, getpid, kill_process};

/// The variable of the environment that names the directory.
pub const DIRECTORY: &str = "OFFPEAK_REHEARSAL";

/// Where a process is killed that is killed at a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// It is not in the map yet.
    Begun,
    /// It is, and is not synced.
    Applied,
    /// It is synced, and nobody was told.
    Synced,
}

impl Point {
    pub const ALL: [Point; 3] = [Point::Begun, Point::Applied, Point::Synced];

    pub const fn name(self) -> &'static str {
        match self {
            Point::Begun => "begun",
            Point::Applied => "applied",
            Point::Synced => "synced",
        }
    }
}

struct Strike {
    point: Point,
    /// Passes that are let through.
    spare: AtomicU64,
}

static STRIKE: OnceLock<Option<Strike>> = OnceLock::new();

pub(super) fn pass(point: Point) {
    let strike = STRIKE.get_or_init(|| {
        let directory = std::env::var_os(DIRECTORY)?;
        parse(&fs::read_to_string(Path::new(&directory).join("kill")).ok()?)
    });
    let Some(strike) = strike.as_ref().filter(|strike| strike.point == point) else {
        return;
    };
    if strike.spare.fetch_sub(1, Ordering::SeqCst) == 0
        && let Err(error) = kill_process(getpid(), Signal::KILL)
    {
        tracing::error!(%error, "the rehearsal's kill");
    }
}

fn parse(text: &str) -> Option<Strike> {
    let (name, number) = text.trim().split_once(' ')?;
    Some(Strike {
        point: Point::ALL.into_iter().find(|point| point.name() == name)?,
        spare: AtomicU64::new(number.parse::<u64>().ok()?.checked_sub(1)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strike_is_a_point_and_a_number_from_one() {
        for point in Point::ALL {
            let strike = parse(&format!("{} 137\n", point.name())).unwrap();
            assert_eq!((strike.point, strike.spare.into_inner()), (point, 136));
        }
        for nonsense in ["", "applied", "applied 0", "applied -1", "never 3"] {
            assert!(parse(nonsense).is_none(), "{nonsense}");
        }
    }
}
