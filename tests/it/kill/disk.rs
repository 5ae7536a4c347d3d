//! A disk that tests can fill.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::Command,
};

/// A small disk of its own; none where this machine lets us mount nothing.
pub struct Disk {
    pub path: PathBuf,
    _above: tempfile::TempDir,
}

impl Disk {
    pub fn mount(megabytes: u32) -> Option<Disk> {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("disk");
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(&path)
            .output();
        let refused = match mounted {
            Ok(output) if output.status.success() => {
                return Some(Disk {
                    path,
                    _above: above,
                });
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert_ne!(
            std::env::var("OFFPEAK_REQUIRE_ALL").as_deref(),
            Ok("1"),
            "no disk of {megabytes} MB could be mounted: {refused}"
        );
        println!("SKIPPED: no disk of {megabytes} MB could be mounted: {refused}");
        None
    }

    /// Leaves `left` bytes free.
    pub fn fill(&self, left: u64) -> PathBuf {
        let disk = rustix::fs::statvfs(&self.path).unwrap();
        let free = disk.f_bavail * disk.f_frsize;
        let path = self.filler();
        let mut file = File::create(&path).unwrap();
        for _ in 0..free.saturating_sub(left) / 4096 {
            // Others write, too.
            if file.write_all(&[1; 4096]).is_err() {
                break;
            }
        }
        path
    }

    /// Takes away what it was filled with.
    pub fn empty(&self) {
        let filler = self.filler();
        if filler.exists() {
            fs::remove_file(filler).unwrap();
        }
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}
