//! Databases beside an empty place: what a salvage leaves that was cut off while it put
//! the new one there.

use std::{fs, io, path::Path};

/// Where a salvage makes its new database.
pub const BUILDING: &str = "store.salvaging";
/// What the names of kept databases begin with.
pub const KEPT: &str = "store.damaged-";

/// The names of the databases below `data_dir` that have no place, where no database has
/// it. An empty one must not begin there.
pub fn leftovers(data_dir: &Path) -> io::Result<Vec<String>> {
    if data_dir.join("store").join("db").exists() {
        return Ok(Vec::new());
    }
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == BUILDING || name.starts_with(KEPT) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// What to do about them.
pub fn told(found: &[String]) -> String {
    let built = found.iter().any(|name| name == BUILDING);
    let kept = found.iter().any(|name| name.starts_with(KEPT));
    let found = found.join(", ");
    match built && kept {
        // It is renamed only when the new one is whole and on the disk.
        true => format!(
            "{found}: a salvage was cut off when it had done its work. Rename {BUILDING} to `store` to go on with it"
        ),
        false => format!(
            "{found}: rename the one to go on with to `store`, or move them away to begin with an empty database"
        ),
    }
}
