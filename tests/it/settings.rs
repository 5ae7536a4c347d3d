//! The defaults fit the modules that own them: every key that a settings type
//! has, and none that it lacks.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use offpeak::{app::Settings, config::Config};

#[test]
fn every_section_fits_its_owner() {
    let config = Config::defaults().unwrap();
    if let Err(error) = Settings::read(&config) {
        panic!("{error}");
    }
}

#[test]
fn the_four_names_that_others_rely_on() {
    let environment = [
        ("OFFPEAK_PACKING__LINGER", "200ms"),
        ("OFFPEAK_WATCH__POLL_INTERVAL", "200ms"),
        ("OFFPEAK_RESCUE__RESERVE", "2s"),
        ("OFFPEAK_HOLD__DRIP_AFTER", "5s"),
    ];
    let config = Config::load(None, environment, &[]).unwrap();
    let settings = Settings::read(&config).unwrap();
    assert_eq!(settings.engine.packing.linger.as_millis(), 200);
    assert_eq!(settings.engine.watch.poll_interval.as_millis(), 200);
    assert_eq!(settings.engine.rescue.reserve.as_millis(), 2000);
    assert_eq!(settings.edge.hold.drip_after.as_millis(), 5000);
}

#[test]
fn a_shadow_deadline_is_one_that_a_call_may_have() {
    let read = |shadow| {
        let environment = [
            ("OFFPEAK_SHADOW__DEADLINE", shadow),
            ("OFFPEAK_DEADLINE__MAX", "2days"),
        ];
        Settings::read(&Config::load(None, environment, &[]).unwrap())
    };
    for fine in ["", "6h", "48h"] {
        assert!(read(fine).is_ok(), "{fine}");
    }
    let refused = read("30days").err().unwrap().to_string();
    assert_eq!(
        refused,
        "`shadow.deadline` is \"30days\" (in the variable OFFPEAK_SHADOW__DEADLINE): \
         expected at most deadline.max, 2days: no call may ask for more"
    );
}

#[test]
fn a_collector_of_traces_is_a_url_and_a_share_is_a_share() {
    let read = |key: &str, value: &str| {
        let environment = [(key.to_owned(), value.to_owned())];
        Settings::read(&Config::load(None, environment, &[]).unwrap())
    };
    let endpoint = "OFFPEAK_TRACES__ENDPOINT";
    assert!(read(endpoint, "http://collector:4318").is_ok());
    let refused = |key: &str, value: &str| read(key, value).err().unwrap().to_string();
    assert_eq!(
        refused(endpoint, "collector:4318"),
        "`traces.endpoint` is \"collector:4318\" (in the variable OFFPEAK_TRACES__ENDPOINT): \
         expected a URL such as \"http://localhost:4318\", or \"\" for no traces"
    );
    let secret = refused(endpoint, "http://me:pass@collector:4318");
    assert!(secret.contains("OTEL_EXPORTER_OTLP_HEADERS"), "{secret}");
    assert!(!secret.contains("pass@"), "{secret}");
    for key in ["SAMPLE_RATIO", "PASSTHROUGH_RATIO"] {
        let refused = refused(&format!("OFFPEAK_TRACES__{key}"), "1.5");
        assert!(refused.contains("from 0.0 to 1.0"), "{refused}");
    }
}

#[test]
fn a_budget_may_be_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("offpeak.toml");
    std::fs::write(&file, "[rescue]\nbudget_usd_per_hour = 25").unwrap();
    let config = Config::load(Some(&file), [("", ""); 0], &[]).unwrap();
    let budget = Settings::read(&config)
        .unwrap()
        .engine
        .rescue
        .budget_usd_per_hour;
    assert_eq!(budget, Some("25".parse().unwrap()));
}

/// What `offpeak serve` says on standard error until it accepts calls.
fn said_at_start(arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    said_at_start_with(dir.path(), arguments)
}

fn said_at_start_with(dir: &Path, arguments: &[&str]) -> String {
    let stderr = dir.join("stderr");
    let mut server = Command::new(env!("CARGO_BIN_EXE_offpeak"))
        .arg("serve")
        .args(arguments)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = server.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let said = std::fs::read_to_string(stderr).unwrap();
    assert!(line.starts_with("offpeak listens on "), "{line}{said}");
    said
}

#[test]
fn nobody_beyond_the_machine_is_let_in_unless_told_to() {
    let config = Config::load(None, [("", ""); 0], &[]).unwrap();
    let settings = Settings::read(&config).unwrap();
    assert!(settings.server.listen.ip().is_loopback());
    assert_eq!(settings.server.admin_listen, None);
}

#[test]
fn what_may_not_be_meant_is_said_at_the_start() {
    let loopback = ["--listen", "127.0.0.1:0", "--upstream"];
    let serving = |upstream| said_at_start(&[&loopback[..], &[upstream]].concat());
    let said = serving("http://127.0.0.1:9/");
    assert!(said.contains("WARN"), "{said}");
    assert!(said.contains("http://127.0.0.1:9/v1"), "{said}");
    assert!(!serving("http://127.0.0.1:9/v1").contains("WARN"));
    let said = said_at_start(&["--listen", "0.0.0.0:0"]);
    assert!(
        said.contains("WARN") && said.contains("not loopback"),
        "{said}"
    );
}

#[test]
fn a_token_s_file_that_others_can_read_is_closed() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("data").join("admin.token");
    let mode = || std::fs::metadata(&token).unwrap().permissions().mode() & 0o777;
    let start = ["--listen", "127.0.0.1:0"];
    said_at_start_with(dir.path(), &start);
    let first = std::fs::read_to_string(&token).unwrap();
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    said_at_start_with(dir.path(), &start);
    assert_eq!(mode(), 0o600);
    assert_eq!(std::fs::read_to_string(&token).unwrap(), first);
}
