//! The files with our own secrets: who may read them, and whether they hold any.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::report::Check;
use crate::{app::Secrets, store::vault::MasterKey};

/// Blocks on the disk.
pub fn look(dir: &Path, secrets: &Secrets) -> Vec<Check> {
    let mut checks = vec![
        master_key(dir, secrets.master_key.is_some()),
        admin_token(dir, secrets.admin_token.is_some()),
    ];
    let previous = dir.join("master.key.previous");
    if previous.exists() {
        let says = format!(
            "{} is there, of a change of the master key.",
            previous.display()
        );
        let advice = "Remove it when a server has started with both keys: it opens nothing more.";
        checks.push(Check::warning("previous master key", says).advise(advice));
    }
    checks
}

fn master_key(dir: &Path, is_given: bool) -> Check {
    const NAME: &str = "master key";
    if is_given {
        // Whether it is one, the settings' check tells.
        return Check::ok(NAME, "It comes from OFFPEAK_MASTER_KEY.");
    }
    match MasterKey::load(dir) {
        Ok(Some(_)) => Check::ok(
            NAME,
            format!(
                "{} can be read by its owner only.",
                dir.join("master.key").display()
            ),
        ),
        Ok(None) if dir.join("store").exists() => Check::failed(
            NAME,
            format!(
                "There is a database in {}, and no master.key.",
                dir.display()
            ),
        )
        .advise("Bring back the master.key that it was made with, or set OFFPEAK_MASTER_KEY."),
        Ok(None) => Check::ok(NAME, "There is none yet: the first start makes one."),
        Err(error) => {
            Check::failed(NAME, format!("{error}.")).advise("A server does not start with it.")
        }
    }
}

fn admin_token(dir: &Path, is_given: bool) -> Check {
    const NAME: &str = "admin token";
    let path = dir.join("admin.token");
    let shown = path.display();
    if is_given {
        return Check::ok(NAME, "It comes from OFFPEAK_ADMIN_TOKEN.");
    }
    match fs::metadata(&path) {
        Ok(file) if file.mode() & 0o077 != 0 => Check::warning(
            NAME,
            format!(
                "{shown} can be read by others (mode {:04o}).",
                file.mode() & 0o7777
            ),
        )
        .advise(format!("`chmod 600 {shown}`, as the next start does.")),
        Ok(_) => Check::ok(NAME, format!("{shown} can be read by its owner only.")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::ok(NAME, "There is none yet: the first start writes one.")
        }
        Err(error) => Check::failed(NAME, format!("{shown}: {error}."))
            .advise("Make it readable to the user that the server runs as."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::doctor::report::Verdict;

    const KEY: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";

    fn put(dir: &Path, name: &str, text: &str, mode: u32) {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn files_that_others_may_read() {
        use Verdict::{Failed, Ok, Warning};
        for (key, token, verdicts) in [
            (None, None, [Ok, Ok]),
            (Some((KEY, 0o600)), Some(0o600), [Ok, Ok]),
            (Some((KEY, 0o640)), Some(0o644), [Failed, Warning]),
            (Some(("no key", 0o600)), None, [Failed, Ok]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            if let Some((text, mode)) = key {
                put(dir.path(), "master.key", text, mode);
            }
            if let Some(mode) = token {
                put(dir.path(), "admin.token", "adm-secret", mode);
            }
            let checks = look(dir.path(), &Secrets::default());
            let found: Vec<Verdict> = checks.iter().map(|check| check.verdict).collect();
            assert_eq!(found, verdicts, "{checks:?}");
            let said = format!("{checks:?}");
            assert!(
                !said.contains(KEY) && !said.contains("adm-secret"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_key_that_is_lost_or_left_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        put(dir.path(), "master.key.previous", KEY, 0o600);
        let checks = look(dir.path(), &Secrets::default());
        assert_eq!(checks[0].verdict, Verdict::Failed);
        assert_eq!(checks[2].verdict, Verdict::Warning);
    }
}
