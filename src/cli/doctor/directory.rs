//! The data directory: whose it is, what it stands on, and how much fits into it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{statfs, statvfs};
use serde_json::json;

use super::{
    disk,
    report::{Check, size},
};

const NAME: &str = "data directory";
/// Kept free whatever the settings say.
const LEAST_RESERVE: u64 = 32 << 20;

/// Blocks on the disk. Writes a file without a name there, which is gone at its end.
pub fn look(dir: &Path, reserve: u64) -> Vec<Check> {
    let found = match Found::at(dir) {
        Ok(found) => found,
        Err(check) => return vec![check],
    };
    let file = match tempfile::tempfile_in(&found.seat) {
        Ok(file) => file,
        Err(error) => {
            let seat = found.seat.display();
            let says = format!("{seat} cannot be written: {error}.");
            return vec![
                Check::failed(NAME, says)
                    .advise("Make it writable, or choose another store.data_dir."),
            ];
        }
    };
    let system = statfs(&found.seat).map(|it| file_system(i128::from(it.f_type)));
    let free = statvfs(&found.seat).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
    let unknown = |name, error: rustix::io::Errno| {
        Check::skipped(name, format!("The system does not tell: {error}."))
    };
    vec![
        found.check(dir),
        system.unwrap_or_else(|error| unknown("file system", error)),
        match free {
            Ok(free) => space(free, reserve),
            Err(error) => unknown("free space", error),
        },
        match disk::measure(file) {
            Ok(took) => disk::check(took),
            Err(error) => Check::failed("disk", format!("A write cannot be synced: {error}.")),
        },
    ]
}

/// What stands there.
struct Found {
    /// The directory, or the one above it that is there.
    seat: PathBuf,
    is_new: bool,
    owner: u32,
    we: u32,
    mode: u32,
}

impl Found {
    fn at(dir: &Path) -> Result<Found, Check> {
        let mut seat = dir.to_owned();
        let metadata = loop {
            match fs::metadata(&seat) {
                Ok(metadata) => break metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let says = format!("{}: {error}.", dir.display());
                    return Err(Check::failed(NAME, says)
                        .advise("Choose another store.data_dir, or clear the way to it."));
                }
            }
            // Of a relative path nothing is left at last.
            seat = match seat.parent() {
                Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
                _ => PathBuf::from("."),
            };
        };
        if !metadata.is_dir() {
            let says = format!("{} is no directory.", seat.display());
            return Err(Check::failed(NAME, says)
                .advise("Choose another store.data_dir, or move what stands there away."));
        }
        Ok(Found {
            is_new: seat != dir,
            seat,
            owner: metadata.uid(),
            we: rustix::process::geteuid().as_raw(),
            mode: metadata.mode() & 0o7777,
        })
    }

    fn check(&self, dir: &Path) -> Check {
        let (shown, mode) = (dir.display(), self.mode);
        if self.is_new {
            let seat = self.seat.display();
            let says = format!("{shown} is not there yet: the first start makes it, in {seat}.");
            return Check::ok(NAME, says);
        }
        if self.owner != self.we {
            let (owner, we) = (self.owner, self.we);
            let says = format!("{shown} belongs to the user {owner}, and this is user {we}.");
            let advice = "Run the server as the owner, who alone may read the keys in it.";
            return Check::warning(NAME, says).advise(advice);
        }
        if mode & 0o077 != 0 {
            let says = format!("{shown} is open to other users (mode {mode:04o}).");
            let advice = format!("Prompts and answers lie in it: `chmod 700 {shown}`.");
            return Check::warning(NAME, says).advise(advice);
        }
        let says = format!("{shown} is writable, and closed to other users.");
        Check::ok(NAME, says)
    }
}

/// What the number of a file system says about keeping data on it (statfs(2)).
fn file_system(magic: i128) -> Check {
    const NAME: &str = "file system";
    const NETWORK: [(i128, &str); 12] = [
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x517b, "SMB"),
        (0x0102_1997, "9P"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x6b41_4653, "AFS"),
        (0x0bd0_0bd0, "Lustre"),
        (0x0116_1970, "GFS2"),
        (0x7461_636f, "OCFS2"),
        (0x4750_4653, "GPFS"),
    ];
    const MEMORY: [(i128, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
    const OVERLAY: i128 = 0x794c_7630;
    const FUSE: i128 = 0x6573_5546;
    // The kernel has it as a signed word, of 32 bits on some machines.
    let magic = magic & 0xffff_ffff;
    let named = |list: &[(i128, &'static str)]| {
        let mut list = list.iter();
        list.find(|(known, _)| *known == magic)
            .map(|(_, name)| *name)
    };
    if let Some(name) = named(&NETWORK) {
        return Check::warning(
            NAME,
            format!("The data directory is on a network ({name})."),
        )
        .advise(
            "Locks and syncs of network file systems are not what a database needs: put it \
                 on a local disk.",
        );
    }
    if let Some(name) = named(&MEMORY) {
        return Check::warning(NAME, format!("The data directory is in memory ({name})."))
            .advise("All that callers were promised is gone with a reboot: put it on a disk.");
    }
    match magic {
        OVERLAY => Check::warning(
            NAME,
            "The data directory is in a container's own layer (overlay).",
        )
        .advise("It is gone with the container: put it on a volume."),
        FUSE => Check::warning(
            NAME,
            "The data directory is on a file system in user space (FUSE), often a network's.",
        )
        .advise("Make sure that it locks and syncs, or put it on a local disk."),
        _ => Check::ok(NAME, "The data directory is on a local file system."),
    }
    .measured(json!({"magic": format!("{magic:#x}")}))
}

fn space(free: u64, reserve: u64) -> Check {
    const NAME: &str = "free space";
    let reserve = reserve.max(LEAST_RESERVE);
    let (is, kept) = (size(free), size(reserve));
    let check = match free {
        _ if free < reserve => Check::failed(
            NAME,
            format!("{is} are free, and below {kept} (store.reserve_bytes) no call is deferred."),
        )
        .advise("Make room, or put the data directory on a larger disk."),
        _ if free < reserve.saturating_mul(2) => Check::warning(
            NAME,
            format!("{is} are free; below {kept} (store.reserve_bytes) no call is deferred."),
        )
        .advise("Make room before it is needed."),
        _ => Check::ok(
            NAME,
            format!("{is} are free; {kept} of them are kept (store.reserve_bytes)."),
        ),
    };
    check.measured(json!({"free_bytes": free, "reserve_bytes": reserve}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    #[test]
    fn file_systems_that_do_not_keep() {
        for (magic, verdict, says) in [
            (0xef53, Verdict::Ok, "local"),
            (0x9123_683e, Verdict::Ok, "local"),
            (0x6969, Verdict::Warning, "(NFS)"),
            (0xff53_4d42, Verdict::Warning, "(CIFS)"),
            // The same as a signed word.
            (
                i128::from(0xff53_4d42_u32 as i32),
                Verdict::Warning,
                "(CIFS)",
            ),
            (0x0102_1994, Verdict::Warning, "in memory"),
            (0x794c_7630, Verdict::Warning, "overlay"),
            (0x6573_5546, Verdict::Warning, "FUSE"),
        ] {
            let check = file_system(magic);
            assert_eq!(check.verdict, verdict, "{magic:x}");
            assert!(check.says.contains(says), "{magic:x}: {}", check.says);
        }
    }

    #[test]
    fn room_is_held_against_the_reserve() {
        const GB: u64 = 1_000_000_000;
        for (free, reserve, verdict) in [
            (10 * GB, GB, Verdict::Ok),
            (GB * 3 / 2, GB, Verdict::Warning),
            (GB / 2, GB, Verdict::Failed),
            // Some is kept whatever the settings say.
            (20 << 20, 0, Verdict::Failed),
            (GB, 0, Verdict::Ok),
        ] {
            assert_eq!(space(free, reserve).verdict, verdict, "{free} {reserve}");
        }
    }

    #[test]
    fn whose_it_is_and_who_may_look() {
        let found = |owner, mode| Found {
            seat: "/data".into(),
            is_new: false,
            owner,
            we: 1000,
            mode,
        };
        for (found, verdict, says) in [
            (found(1000, 0o700), Verdict::Ok, "closed to other users"),
            (found(1000, 0o755), Verdict::Warning, "(mode 0755)"),
            (
                found(0, 0o700),
                Verdict::Warning,
                "user 0, and this is user 1000",
            ),
        ] {
            let check = found.check(Path::new("/data"));
            assert_eq!(check.verdict, verdict, "{}", check.says);
            assert!(check.says.contains(says), "{}", check.says);
        }
    }

    #[test]
    fn one_that_is_not_there_yet_leaves_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        let checks = look(&dir, 0);
        assert_eq!(checks[0].verdict, Verdict::Ok, "{:?}", checks[0]);
        assert!(checks[0].says.contains("not there yet"));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        fs::write(root.path().join("a"), "in the way").unwrap();
        let checks = look(&dir, 0);
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Failed));
    }
}
