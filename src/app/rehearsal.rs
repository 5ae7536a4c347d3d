//! For the torture runs (docs/torture.md), in debug builds only: a wall clock that
//! is set forward and back while the process runs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{model::time::Timestamp, store::rehearsal::DIRECTORY};

/// The file `clock` in the rehearsal's directory: the milliseconds that the wall is
/// ahead, or with a minus behind.
pub(super) struct Steps(Option<PathBuf>);

impl Steps {
    pub fn from_environment() -> Self {
        let directory = std::env::var_os(DIRECTORY);
        Steps(directory.map(|directory| Path::new(&directory).join("clock")))
    }

    /// Where the wall stands, which is `wall` by itself.
    pub fn seen(&self, wall: Timestamp) -> Timestamp {
        let text = self.0.as_ref().map(fs::read_to_string);
        let ahead = text.and_then(|text| text.ok()?.trim().parse::<i64>().ok());
        let ahead = ahead.unwrap_or_default();
        let by = Duration::from_millis(ahead.unsigned_abs());
        match ahead < 0 {
            true => wall - by,
            false => wall + by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_is_where_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        let steps = Steps(Some(file.clone()));
        let (wall, hour) = (Timestamp::from_secs(1_000_000), Duration::from_secs(3600));
        assert_eq!(steps.seen(wall), wall);
        for (text, seen) in [("3600000", wall + hour), ("-3600000\n", wall - hour)] {
            fs::write(&file, text).unwrap();
            assert_eq!(steps.seen(wall), seen, "{text}");
        }
        assert_eq!(Steps(None).seen(wall), wall);
    }
}
