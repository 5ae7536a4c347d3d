//! Directories that only their owner can read: prompts and answers lie there in the
//! clear.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

const OWNER_ONLY: u32 = 0o700;

/// Makes `dir` and what is missing above it, for its owner only. One that is there is
/// left as it is.
pub fn create(dir: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY)
        .create(dir)
}

/// The same, and closes one that others may look into.
pub fn ensure(dir: &Path) -> io::Result<()> {
    create(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode();
    match mode & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(dir, Permissions::from_mode(OWNER_ONLY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(dir: &Path) -> u32 {
        fs::metadata(dir).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn nobody_else_looks_into_what_is_made() {
        let root = tempfile::tempdir().unwrap();
        let (data, store) = (root.path().join("data"), root.path().join("data/store"));
        ensure(&store).unwrap();
        assert_eq!((mode(&data), mode(&store)), (0o700, 0o700));
        for open in [0o755, 0o710, 0o704] {
            fs::set_permissions(&store, Permissions::from_mode(open)).unwrap();
            create(&store).unwrap();
            assert_eq!(mode(&store), open);
            ensure(&store).unwrap();
            assert_eq!(mode(&store), 0o700, "{open:o}");
        }
    }
}
