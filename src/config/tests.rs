use std::time::Duration;

use serde::Deserialize;

use super::*;

const SCHEMA: &str = r#"
    [packing]
    linger = "5s"
    max_lines = 50_000
    bucket_share = 0.05
    [watch]
    poll_interval = "10s"
    [rescue]
    budget_usd_per_hour = ""
    [admission]
    endpoints = ["/a", "/b"]
    strict = false
    on_full = "reject"
    [lanes.batch]
    price_factor = 0.5
    [webhook]
    allow = []
    [webhook.endpoints]
"#;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Packing {
    #[serde(with = "crate::model::time::human")]
    linger: Duration,
    max_lines: u32,
    bucket_share: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Admission {
    endpoints: Vec<String>,
    strict: bool,
    on_full: OnFull,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum OnFull {
    Reject,
    Live,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    allow: Vec<String>,
    endpoints: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    url: String,
}

fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let flags: Vec<_> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    let file = Some((Path::new("my.toml"), file));
    merge(SCHEMA, file, environment.iter().copied(), &flags)
}

#[test]
fn later_sources_win() {
    let file = "[packing]\nlinger = '1s'\nmax_lines = 1\nbucket_share = 1";
    let environment = [
        ("OFFPEAK_PACKING__LINGER", "200ms"),
        ("OFFPEAK_PACKING__MAX_LINES", "2"),
    ];
    let config = load(file, &environment, &[("packing.max_lines", "3")]).unwrap();
    assert_eq!(
        config.section::<Packing>("packing").unwrap(),
        Packing {
            linger: Duration::from_millis(200),
            max_lines: 3,
            bucket_share: 1.0,
        }
    );
}

#[test]
fn variables_are_read_as_their_defaults_type() {
    let environment = [
        ("OFFPEAK_PACKING__MAX_LINES", " 1_000 "),
        ("OFFPEAK_PACKING__BUCKET_SHARE", "1"),
        ("OFFPEAK_ADMISSION__ENDPOINTS", "/x, /y,"),
        ("OFFPEAK_ADMISSION__STRICT", "true"),
        ("OFFPEAK_ADMISSION__ON_FULL", "live"),
        ("OFFPEAK_LANES__BATCH__PRICE_FACTOR", "0.4"),
    ];
    let config = load("", &environment, &[]).unwrap();
    let packing: Packing = config.section("packing").unwrap();
    assert_eq!((packing.max_lines, packing.bucket_share), (1000, 1.0));
    let admission: Admission = config.section("admission").unwrap();
    assert_eq!(admission.endpoints, ["/x", "/y"]);
    assert!(admission.strict);
    assert_eq!(admission.on_full, OnFull::Live);
    let batch: BTreeMap<String, f64> = config.section("lanes.batch").unwrap();
    assert_eq!(batch["price_factor"], 0.4);
}

#[test]
fn variables_that_are_no_settings_are_left_alone() {
    let environment = [
        ("OFFPEAK_MASTER_KEY", "x"),
        ("OFFPEAK_ADMIN_TOKEN", "x"),
        ("OFFPEAK_LOG", "x"),
        ("OFFPEAK_URL", "x"),
        ("PACKING__LINGER", "x"),
        ("PATH", "x"),
    ];
    load("", &environment, &[]).unwrap();
}

#[test]
fn an_amount_may_be_written_as_a_number() {
    for (written, expected) in [
        ("25", "25"),
        ("0.5", "0.5"),
        ("0.0000001", "0.0000001"),
        ("1e3", "1000"),
        ("'0.50'", "0.50"),
    ] {
        let file = format!("[rescue]\nbudget_usd_per_hour = {written}");
        let table: Table = load(&file, &[], &[])
            .and_then(|config| config.section("rescue"))
            .unwrap();
        assert_eq!(table["budget_usd_per_hour"].as_str(), Some(expected));
    }
}

#[test]
fn open_tables_take_the_operators_names() {
    let file = "[webhook.endpoints.'bill.ing']\nurl = 'https://a/'\n[webhook.endpoints.b]\nurl = 'https://b/'";
    let environment = [
        ("OFFPEAK_WEBHOOK__ENDPOINTS__B__URL", "https://c/"),
        ("OFFPEAK_WEBHOOK__ALLOW", ""),
    ];
    let webhook: Webhook = load(file, &environment, &[])
        .and_then(|config| config.section("webhook"))
        .unwrap();
    assert_eq!(webhook.endpoints["bill.ing"].url, "https://a/");
    assert_eq!(webhook.endpoints["b"].url, "https://c/");
    assert_eq!(webhook.allow, [""; 0]);

    let none: Webhook = load("[webhook]", &[], &[])
        .and_then(|config| config.section("webhook"))
        .unwrap();
    assert!(none.endpoints.is_empty());
}

#[test]
fn a_later_source_may_replace_an_open_value_by_a_table() {
    let file = "[webhook.endpoints]\nb = 'https://b/'";
    let environment = [("OFFPEAK_WEBHOOK__ENDPOINTS__B__URL", "https://c/")];
    let webhook: Webhook = load(file, &environment, &[])
        .and_then(|config| config.section("webhook"))
        .unwrap();
    assert_eq!(webhook.endpoints["b"].url, "https://c/");
}

#[test]
fn bad_settings_are_refused_with_key_value_source_and_what_is_accepted() {
    const DURATION: &str = "expected a duration such as \"200ms\", \"90s\" or \"1h 30m\"";
    let file = |text: &str| load(text, &[], &[]).unwrap_err().to_string();
    let variable = |name: &str, value: &str| {
        let error = load("", &[(name, value)], &[]).unwrap_err();
        error.to_string()
    };
    let flag = |key: &str, value: &str| {
        let error = load("", &[], &[(key, value)]).unwrap_err();
        error.to_string()
    };
    let table: &[(String, &str)] = &[
        // Unknown keys.
        (
            file("[packing]\nlingr = '5s'"),
            "there is no setting `packing.lingr` (in my.toml); the nearest is `packing.linger`",
        ),
        (
            file("[paking]\nlinger = '5s'"),
            "there is no setting `paking.linger` (in my.toml); the nearest is `packing.linger`",
        ),
        (
            file("[paking]"),
            "there is no setting `paking` (in my.toml); the nearest is `packing`",
        ),
        (
            file("poll_interval = '5s'"),
            "there is no setting `poll_interval` (in my.toml); the nearest is `watch.poll_interval`",
        ),
        (
            variable("OFFPEAK_WATCH__POLL_INTERVALL", "5s"),
            "there is no setting `OFFPEAK_WATCH__POLL_INTERVALL` (in the variable \
             OFFPEAK_WATCH__POLL_INTERVALL); the nearest is `OFFPEAK_WATCH__POLL_INTERVAL`",
        ),
        (
            variable("OFFPEAK_PACKING_LINGER", "5s"),
            "there is no setting `OFFPEAK_PACKING_LINGER` (in the variable \
             OFFPEAK_PACKING_LINGER); the nearest is `OFFPEAK_PACKING__LINGER`",
        ),
        (
            flag("packing.ling", "5s"),
            "there is no setting `packing.ling` (on the command line); the nearest is `packing.linger`",
        ),
        (
            file("[nope]\nx = 1"),
            "there is no setting `nope.x` (in my.toml); config/default.toml has them all",
        ),
        (
            file("[packing]\nstrictness = true"),
            "there is no setting `packing.strictness` (in my.toml); config/default.toml has them all",
        ),
        (
            variable("OFFPEAK_A__B", "5s"),
            "there is no setting `OFFPEAK_A__B` (in the variable OFFPEAK_A__B); \
             config/default.toml has them all",
        ),
        // Amounts.
        (
            file("[rescue]\nbudget_usd_per_hour = true"),
            "`rescue.budget_usd_per_hour` is true (in my.toml): \
             expected an amount in dollars such as 25 or \"0.50\", or \"\" for no bound",
        ),
        (
            file("[rescue]\nbudget_usd_per_hour = -1"),
            "`rescue.budget_usd_per_hour` is -1 (in my.toml): \
             expected an amount in dollars such as 25 or \"0.50\", or \"\" for no bound",
        ),
        // Bad durations.
        (
            file("[packing]\nlinger = 'soon'"),
            &format!("`packing.linger` is \"soon\" (in my.toml): {DURATION}"),
        ),
        (
            file("[packing]\nlinger = 5"),
            &format!("`packing.linger` is 5 (in my.toml): {DURATION}"),
        ),
        (
            variable("OFFPEAK_PACKING__LINGER", "5 parsecs"),
            &format!(
                "`packing.linger` is \"5 parsecs\" (in the variable OFFPEAK_PACKING__LINGER): {DURATION}"
            ),
        ),
        (
            flag("packing.linger", ""),
            &format!("`packing.linger` is \"\" (on the command line): {DURATION}"),
        ),
        // Wrong types.
        (
            file("[packing]\nmax_lines = 1.5"),
            "`packing.max_lines` is 1.5 (in my.toml): expected a whole number, zero or more",
        ),
        (
            variable("OFFPEAK_PACKING__MAX_LINES", "many"),
            "`packing.max_lines` is \"many\" (in the variable OFFPEAK_PACKING__MAX_LINES): \
             expected a whole number, zero or more",
        ),
        (
            variable("OFFPEAK_PACKING__MAX_LINES", "-1"),
            "`packing.max_lines` is -1 (in the variable OFFPEAK_PACKING__MAX_LINES): \
             expected a whole number, zero or more",
        ),
        (
            file("[packing]\nbucket_share = nan"),
            "`packing.bucket_share` is nan (in my.toml): expected a number, zero or more",
        ),
        (
            variable("OFFPEAK_ADMISSION__STRICT", "yes"),
            "`admission.strict` is \"yes\" (in the variable OFFPEAK_ADMISSION__STRICT): \
             expected true or false",
        ),
        (
            file("[admission]\non_full = true"),
            "`admission.on_full` is true (in my.toml): expected a string",
        ),
        (
            file("[admission]\nendpoints = ['/a', 1]"),
            "`admission.endpoints` is [\"/a\", 1] (in my.toml): expected a list of strings",
        ),
        (
            file("packing = 5"),
            "`packing` is 5 (in my.toml): expected a table of settings",
        ),
        (
            file("[webhook]\nendpoints = 'x'"),
            "`webhook.endpoints` is \"x\" (in my.toml): expected a table of settings",
        ),
        (
            variable("OFFPEAK_WEBHOOK__ENDPOINTS", "x"),
            "`webhook.endpoints` is \"x\" (in the variable OFFPEAK_WEBHOOK__ENDPOINTS): \
             expected a table of settings",
        ),
        (
            file("[packing.linger]\nseconds = 5"),
            &format!("`packing.linger` is a table (in my.toml): {DURATION}"),
        ),
        (
            file("[packing.linger]"),
            &format!("`packing.linger` is a table (in my.toml): {DURATION}"),
        ),
    ];
    for (said, expected) in table {
        assert_eq!(said, expected);
    }
}

#[test]
fn what_a_settings_type_refuses_is_traced_to_its_source() {
    fn refusal<T: DeserializeOwned>(config: Config, section: &str) -> String {
        match config.section::<T>(section) {
            Ok(_) => panic!("{section} was taken"),
            Err(error) => error.to_string(),
        }
    }
    let environment = [("OFFPEAK_ADMISSION__ON_FULL", "drop")];
    assert_eq!(
        refusal::<Admission>(load("", &environment, &[]).unwrap(), "admission"),
        "`admission.on_full` is \"drop\" (in the variable OFFPEAK_ADMISSION__ON_FULL): \
         unknown variant `drop`, expected `reject` or `live`"
    );
    let file = "[packing]\nmax_lines = 5_000_000_000";
    assert_eq!(
        refusal::<Packing>(load(file, &[], &[]).unwrap(), "packing"),
        "`packing.max_lines` is 5000000000 (in my.toml): \
         invalid value: integer `5000000000`, expected u32"
    );
    let file = "[webhook.endpoints.b]\nulr = 'https://b/'";
    assert_eq!(
        refusal::<Webhook>(load(file, &[], &[]).unwrap(), "webhook"),
        "`webhook.endpoints.b.ulr` is \"https://b/\" (in my.toml): \
         unknown field `ulr`, expected `url`"
    );
    let file = "[webhook.endpoints.b]\nsecret = 'whsec_abc'";
    assert_eq!(
        refusal::<Webhook>(load(file, &[], &[]).unwrap(), "webhook"),
        "`webhook.endpoints.b.secret` is not shown (in my.toml): \
         unknown field `secret`, expected `url`"
    );
    let file = "[webhook.endpoints.b]";
    assert_eq!(
        refusal::<Webhook>(load(file, &[], &[]).unwrap(), "webhook"),
        "`webhook.endpoints.b` is a table (in my.toml): missing field `url`"
    );
}

#[test]
fn sources_that_cannot_be_read_are_named() {
    let nothing: [(&str, &str); 0] = [];
    let missing = Path::new("/nonexistent/offpeak.toml");
    let said = Config::load(Some(missing), nothing, &[]).unwrap_err();
    assert!(
        said.to_string()
            .starts_with("cannot read the settings in /nonexistent/offpeak.toml: ")
    );

    let said = load("[packing\n", &[], &[]).unwrap_err().to_string();
    assert!(said.starts_with("the settings in my.toml are not valid TOML: "));
    assert!(said.contains("line 1"), "{said}");
}

#[test]
fn what_is_refused_does_not_hide_what_else_is() {
    let file = Some((
        Path::new("my.toml"),
        "[packing]\nlingr = '5s'\nmax_lines = 'x'\n",
    ));
    let environment = [
        ("OFFPEAK_PACKING__LINGER", "soon"),
        ("OFFPEAK_WATCH__POLL_INTERVAL", "1s"),
    ];
    let (config, errors) = gather(SCHEMA, file, environment, &[]).unwrap();
    let keys: Vec<_> = errors.iter().map(ConfigError::key).collect();
    let expected = ["packing.lingr", "packing.max_lines", "packing.linger"];
    assert_eq!(keys, expected.map(Some));
    // What is refused counts as not given.
    let packing: Packing = config.section("packing").unwrap();
    assert_eq!((packing.max_lines, packing.linger.as_secs()), (50_000, 5));
    let watch: Table = config.section("watch").unwrap();
    assert_eq!(watch["poll_interval"].as_str(), Some("1s"));
    // The first error is the one that a start ends with.
    let first = merge(SCHEMA, file, environment, &[]).unwrap_err();
    assert_eq!(first.to_string(), errors[0].to_string());
}

#[test]
fn what_is_taken_back_is_at_its_default_again() {
    let environment = [
        ("OFFPEAK_PACKING__LINGER", "1s"),
        ("OFFPEAK_WEBHOOK__ENDPOINTS__B__URL", "https://b/"),
        ("OFFPEAK_WEBHOOK__ENDPOINTS__C__URL", "https://c/"),
    ];
    let mut config = Config::load(None, environment, &[]).unwrap();
    let keys = |config: &Config| -> Vec<String> {
        let differences = config.differences().unwrap().into_iter();
        differences.map(|it| it.key).collect()
    };
    assert_eq!(keys(&config).len(), 3);
    assert!(config.reset("webhook.endpoints.b").unwrap());
    assert_eq!(keys(&config), ["packing.linger", "webhook.endpoints.c.url"]);
    assert!(config.reset("webhook.endpoints.c.url").unwrap());
    assert!(config.reset("packing.linger").unwrap());
    assert_eq!(keys(&config), [""; 0]);
    assert_eq!(
        config.leaves.len(),
        Config::defaults().unwrap().leaves.len()
    );
    // Nobody set this.
    assert!(!config.reset("packing.max_lines").unwrap());
}

#[test]
fn what_may_be_a_secret_is_not_listed() {
    for (key, value, shown) in [
        (
            "upstream.base_url",
            "https://a.example/v1",
            "\"https://a.example/v1\"",
        ),
        (
            "upstream.base_url",
            "https://me:pass@a.example/v1",
            "\"https://a.example/v1\", and more that is not shown",
        ),
        (
            "webhook.endpoints.b.url",
            "https://a.example:8443/T0/B0/x?y=z",
            "\"https://a.example:8443/\", and more that is not shown",
        ),
        ("webhook.endpoints.b.secret", "whsec_x", "not shown"),
        ("packing.linger", "5s", "\"5s\""),
        ("server.listen", "127.0.0.1:80", "\"127.0.0.1:80\""),
    ] {
        let masked = Key::dotted(key).masked(&Value::from(value));
        assert_eq!(masked, shown, "{key}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let value = OsStr::from_bytes(b"\xff");
    let environment = [(OsStr::new("OFFPEAK_PACKING__LINGER"), value)];
    let said = Config::load(None, environment, &[]).unwrap_err();
    assert_eq!(
        said.to_string(),
        "the variable OFFPEAK_PACKING__LINGER is not UTF-8"
    );
    let other = [(OsStr::new("LESSOPEN"), value)];
    Config::load(None, other, &[]).unwrap();
}

#[test]
fn the_defaults_parse_and_the_fixed_variable_names_work() {
    Config::defaults().unwrap();
    let environment = [
        ("OFFPEAK_PACKING__LINGER", "200ms"),
        ("OFFPEAK_WATCH__POLL_INTERVAL", "200ms"),
        ("OFFPEAK_RESCUE__RESERVE", "2s"),
        ("OFFPEAK_HOLD__DRIP_AFTER", "5s"),
    ];
    let config = Config::load(None, environment, &[]).unwrap();
    let value = |section: &str, key: &str| {
        let table: Table = config.section(section).unwrap();
        table[key].as_str().unwrap().to_owned()
    };
    assert_eq!(value("packing", "linger"), "200ms");
    assert_eq!(value("watch", "poll_interval"), "200ms");
    assert_eq!(value("rescue", "reserve"), "2s");
    assert_eq!(value("hold", "drip_after"), "5s");
}
