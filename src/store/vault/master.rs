//! The master key: from the environment, or a file that only we may read.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::rand::{SecureRandom, SystemRandom};

use super::decode_32;
use crate::model::secret::Secret;

const FILE_NAME: &str = "master.key";
const PREVIOUS_NAME: &str = "master.key.previous";

/// A key file holds one line; more than this is some other file.
const LONGEST_FILE: u64 = 256;

/// 32 bytes that everything in the vault is derived from.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Reads a key given in the environment: 32 bytes as base64 or hex.
    pub fn parse(text: &Secret) -> Result<Self, BadMasterKey> {
        decode_32(text.expose().trim())
            .map(MasterKey)
            .ok_or(BadMasterKey::Format)
    }

    /// Reads `master.key` in `directory`, or makes it when there is none. Two
    /// processes that start at once get the same key. Blocks on the disk.
    pub fn load_or_create(directory: &Path) -> Result<Self, BadMasterKey> {
        let path = directory.join(FILE_NAME);
        match load(&path) {
            Err(BadMasterKey::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(directory, &path)?;
                load(&path)
            }
            loaded => loaded,
        }
    }

    /// Reads `master.key` in `directory`; none where it is not there. Blocks on the disk.
    pub fn load(directory: &Path) -> Result<Option<Self>, BadMasterKey> {
        if_there(load(&directory.join(FILE_NAME)))
    }

    /// Reads `master.key.previous` in `directory`, where somebody has put it to change
    /// the key. Blocks on the disk.
    pub fn load_previous(directory: &Path) -> Result<Option<Self>, BadMasterKey> {
        if_there(load(&directory.join(PREVIOUS_NAME)))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BadMasterKey {
    #[error("the master key is not 32 bytes in base64 or hex")]
    Format,
    #[error("{} does not hold a master key (32 bytes in base64 or hex)", path.display())]
    File { path: PathBuf },
    #[error("{} can be read by others (mode {mode:04o}): `chmod 600` it", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the operating system gives no random bytes for a master key")]
    NoRandomness,
}

fn if_there(loaded: Result<MasterKey, BadMasterKey>) -> Result<Option<MasterKey>, BadMasterKey> {
    match loaded {
        Err(BadMasterKey::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        loaded => loaded.map(Some),
    }
}

fn load(path: &Path) -> Result<MasterKey, BadMasterKey> {
    let mut text = String::new();
    let mode = File::open(path)
        .and_then(|file| {
            // Asked of the open file, which nobody can exchange in between.
            let mode = file.metadata()?.mode() & 0o7777;
            file.take(LONGEST_FILE).read_to_string(&mut text)?;
            Ok(mode)
        })
        .map_err(io_error(path))?;
    if mode & 0o077 != 0 {
        return Err(BadMasterKey::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    decode_32(text.trim())
        .map(MasterKey)
        .ok_or_else(|| BadMasterKey::File {
            path: path.to_owned(),
        })
}

/// Writes a new key beside `path` and links it there. A link, unlike a rename,
/// leaves a key alone that another process put there first.
fn create(directory: &Path, path: &Path) -> Result<(), BadMasterKey> {
    let mut bytes = [0; 48];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| BadMasterKey::NoRandomness)?;
    let (key, name) = bytes.split_at(32);
    let name = format!(".{FILE_NAME}.{}", URL_SAFE_NO_PAD.encode(name));
    let draft = directory.join(name);
    write_new(&draft, &format!("{}\n", STANDARD.encode(key))).map_err(io_error(&draft))?;
    let linked = match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(io_error(path)),
    };
    fs::remove_file(&draft).map_err(io_error(&draft))?;
    linked?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error(directory))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BadMasterKey {
    let path = path.to_owned();
    move |source| BadMasterKey::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn put(directory: &Path, text: &str, mode: u32) {
        let path = directory.join(FILE_NAME);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn two_starts_read_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let first = MasterKey::load_or_create(directory.path()).unwrap();
        let second = MasterKey::load_or_create(directory.path()).unwrap();
        assert_eq!(first.bytes(), second.bytes());

        let files: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(files[0].metadata().unwrap().mode() & 0o7777, 0o600);

        let elsewhere = tempfile::tempdir().unwrap();
        let other = MasterKey::load_or_create(elsewhere.path()).unwrap();
        assert_ne!(first.bytes(), other.bytes());
    }

    #[test]
    fn starts_at_the_same_time_agree() {
        let directory = tempfile::tempdir().unwrap();
        let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| *MasterKey::load_or_create(directory.path()).unwrap().bytes())
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let text = STANDARD.encode([1; 32]);
        for mode in [0o640, 0o604, 0o660, 0o644, 0o601, 0o620] {
            let directory = tempfile::tempdir().unwrap();
            put(directory.path(), &text, mode);
            let error = MasterKey::load_or_create(directory.path()).unwrap_err();
            let message = error.to_string();
            assert!(
                message.ends_with(&format!(
                    "master.key can be read by others (mode {mode:04o}): `chmod 600` it"
                )),
                "{message}"
            );
        }
        for mode in [0o600, 0o400] {
            let directory = tempfile::tempdir().unwrap();
            put(directory.path(), &text, mode);
            let key = MasterKey::load_or_create(directory.path()).unwrap();
            assert_eq!(key.bytes(), &[1; 32]);
        }
    }

    #[test]
    fn a_file_with_something_else_is_refused_and_kept() {
        for text in ["", "hello", &"A".repeat(10_000), &STANDARD.encode([1; 31])] {
            let directory = tempfile::tempdir().unwrap();
            put(directory.path(), text, 0o600);
            let error = MasterKey::load_or_create(directory.path()).unwrap_err();
            assert!(matches!(error, BadMasterKey::File { .. }), "{error}");
            let kept = fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
            assert_eq!(kept, text);
        }
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("nowhere");
        let error = MasterKey::load_or_create(&missing).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
    }

    #[test]
    fn every_usual_spelling_is_read() {
        let key: [u8; 32] = std::array::from_fn(|i| 0xf8 | u8::try_from(i).unwrap());
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [
            STANDARD.encode(key),
            STANDARD.encode(key).trim_end_matches('=').to_owned(),
            URL_SAFE_NO_PAD.encode(key),
            hex.clone(),
            hex.to_uppercase(),
            format!(" {hex}\n"),
        ] {
            let parsed = MasterKey::parse(&Secret::new(text)).unwrap();
            assert_eq!(parsed.bytes(), &key);
            assert_eq!(format!("{parsed:?}"), "MasterKey([redacted])");
        }
        for text in ["", "c2hvcnQ=", &"z".repeat(64), &"0".repeat(62)] {
            let error = MasterKey::parse(&Secret::new(text)).unwrap_err();
            assert!(matches!(error, BadMasterKey::Format), "{error}");
        }
    }
}
