//! A running server, if there is one: what it says of itself.

use std::path::PathBuf;

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{
    http::{Said, ask, bearer},
    report::Check,
};

const NAME: &str = "server";

/// Where to look for one.
pub struct Server<'a> {
    pub http: &'a reqwest::Client,
    /// Where callers are served. Without a slash at its end, as the next.
    pub url: String,
    /// Where operators are.
    pub admin_url: String,
    /// Somebody says that one runs there.
    pub is_named: bool,
    pub token: Option<String>,
    /// Where one would be found if it was not given.
    pub token_file: PathBuf,
}

impl Server<'_> {
    /// Also whether one runs.
    pub async fn look(&self) -> (Vec<Check>, bool) {
        let health = self.get(&self.url, "/healthz", &HeaderMap::new()).await;
        let up = match alive(&self.url, self.is_named, health) {
            Ok(up) => up,
            Err(check) => return (vec![check], false),
        };
        let no_key = HeaderMap::new();
        let (ready, metrics) = tokio::join!(
            self.get(&self.url, "/readyz", &no_key),
            self.get(&self.admin_url, "/metrics", &no_key),
        );
        let theirs = metrics.ok().and_then(|said| version(&said.text));
        let mut checks = vec![
            same_version(up, theirs.as_deref(), env!("CARGO_PKG_VERSION")),
            is_ready(ready),
        ];
        checks.extend(self.state().await);
        (checks, true)
    }

    async fn get(&self, at: &str, path: &str, headers: &HeaderMap) -> Result<Said, String> {
        ask(
            self.http,
            Method::GET,
            &format!("{at}{path}"),
            headers,
            None,
        )
        .await
    }

    async fn state(&self) -> Vec<Check> {
        const NAME: &str = "server state";
        let Some(token) = &self.token else {
            let file = self.token_file.display();
            let says =
                format!("No admin token: OFFPEAK_ADMIN_TOKEN is not set, nor is there {file}.");
            return vec![Check::skipped(NAME, says)];
        };
        let headers = bearer(token);
        let status = self.get(&self.admin_url, "/offpeak/admin/status", &headers);
        let dead = "/offpeak/admin/webhooks?status=dead&limit=100";
        let dead = self.get(&self.admin_url, dead, &headers);
        match tokio::join!(status, dead) {
            (Ok(said), dead) if said.status == 200 => {
                let mut checks = state(&said.body);
                checks.extend(dead_letters(&said.body, dead.ok().as_ref()));
                checks
            }
            (Ok(said), _) if said.status == 401 => vec![
                Check::warning(NAME, "The server does not know the admin token.")
                    .advise("Is it the token, or the data directory, of another server?"),
            ],
            (Ok(said), _) => {
                let says = format!("The server does not tell its state ({}).", said.status);
                let advice = "Are operators served elsewhere (server.admin_listen)? `--config`.";
                vec![Check::skipped(NAME, says).advise(advice)]
            }
            (Err(why), _) => vec![Check::skipped(NAME, format!("It does not tell: {why}."))],
        }
    }
}

fn alive(url: &str, is_named: bool, health: Result<Said, String>) -> Result<String, Check> {
    match health {
        Ok(said) if said.status == 200 && said.text == "ok\n" => {
            Ok(format!("An Offpeak runs at {url}"))
        }
        Ok(said) => {
            let says = format!("What answers at {url} is no Offpeak ({}).", said.status);
            Err(match is_named {
                true => Check::failed(NAME, says).advise("See --url."),
                false => Check::skipped(NAME, says).advise("Where does yours run? --url."),
            })
        }
        Err(why) if is_named => {
            let says = format!("No server answers at {url}: {why}.");
            Err(Check::failed(NAME, says).advise("Start it, or give another --url."))
        }
        Err(_) => Err(Check::skipped(NAME, format!("No server runs at {url}."))),
    }
}

/// Of `offpeak_build_info{version="…"}`.
fn version(metrics: &str) -> Option<String> {
    let line = metrics
        .lines()
        .find(|it| it.starts_with("offpeak_build_info"))?;
    let (_, rest) = line.split_once("version=\"")?;
    Some(rest.split('"').next()?.to_owned())
}

fn same_version(up: String, theirs: Option<&str>, ours: &str) -> Check {
    match theirs {
        None => Check::ok(NAME, format!("{up}.")),
        Some(theirs) => {
            let says = format!("{up}, version {theirs}");
            match theirs == ours {
                true => Check::ok(NAME, format!("{says}.")),
                false => Check::warning(NAME, format!("{says}; this is {ours}."))
                    .advise("What is told of settings and disk is of this version."),
            }
        }
    }
    .measured(json!({"version": theirs}))
}

fn is_ready(ready: Result<Said, String>) -> Check {
    const NAME: &str = "server ready";
    match ready {
        Ok(said) if said.status == 200 => Check::ok(NAME, "It takes calls with a deadline."),
        Ok(said) => {
            let why = said.text.trim().to_owned();
            let says = format!(
                "It takes no calls with a deadline ({}): {why}.",
                said.status
            );
            Check::failed(NAME, says).advise("See the server's log.")
        }
        Err(why) => Check::failed(NAME, format!("It does not tell: {why}.")),
    }
}

/// What `/offpeak/admin/status` says that somebody should know.
fn state(status: &Value) -> Vec<Check> {
    const NAME: &str = "server state";
    let mut checks = Vec::new();
    if status["paused"] == true {
        let says = "Packing and submitting are paused.";
        let advice = "Work is rescued at full price until it is resumed: `POST \
                      /offpeak/admin/resume`.";
        checks.push(Check::warning("paused", says).advise(advice));
    }
    let refused = status["refused_keys"].as_array().map_or(0, Vec::len);
    if refused > 0 {
        let says =
            format!("The provider refuses {refused} of the callers' keys, whose work waits.");
        let advice = "`GET /offpeak/admin/status` names them; their owners move to a new key.";
        checks.push(Check::failed("refused keys", says).advise(advice));
    }
    let spent = status["rescue_budgets_spent"].as_u64().unwrap_or(0);
    if spent > 0 {
        let says = format!("{spent} tenants have no rescue budget left: their work may be late.");
        let advice = "It comes back with the hour or the day; rescue.budget_usd_per_hour, per_day.";
        checks.push(Check::warning("rescue budgets", says).advise(advice));
    }
    if let Some(warning) = status["upstream_warning"].as_str() {
        checks.push(Check::warning("upstream of the server", warning));
    }
    let count = |name: &str| status["requests"][name].as_u64().unwrap_or(0);
    let says = format!(
        "{} requests are open: {} queued, {} in batches, {} live.",
        count("open"),
        count("queued"),
        count("in_batches"),
        count("live")
    );
    checks.insert(
        0,
        Check::ok(NAME, says).measured(status["requests"].clone()),
    );
    checks
}

/// By the count of the status where it has one, else by the first page of them.
fn dead_letters(status: &Value, page: Option<&Said>) -> Option<Check> {
    const NAME: &str = "dead letters";
    let counted = status["delivery"]["dead"].as_u64();
    let page = page.filter(|said| said.status == 200);
    let listed = page.and_then(|said| {
        let length = said.body["data"].as_array()?.len() as u64;
        Some((length, said.body["has_more"] == true))
    });
    let (count, more) = counted.map(|count| (count, false)).or(listed)?;
    let says = match (count, more) {
        (0, _) => return Some(Check::ok(NAME, "No webhook was given up.")),
        (1, false) => "One webhook was given up.".to_owned(),
        (count, false) => format!("{count} webhooks were given up."),
        (count, true) => format!("More than {count} webhooks were given up."),
    };
    let advice = "Mend their receivers and redeliver: `offpeak webhooks`.";
    let check = Check::warning(NAME, says).advise(advice);
    Some(check.measured(json!({"count": count, "more": more})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{http::tests::said, report::Verdict};

    fn verdicts(checks: &[Check]) -> Vec<(&str, Verdict)> {
        let pairs = checks.iter();
        pairs.map(|it| (it.name.as_str(), it.verdict)).collect()
    }

    #[test]
    fn one_that_nobody_named_may_be_absent() {
        let refused = || Err("refused".to_owned());
        let verdict = |named, health| alive("http://x", named, health).err().map(|it| it.verdict);
        assert_eq!(verdict(false, refused()), Some(Verdict::Skipped));
        assert_eq!(verdict(true, refused()), Some(Verdict::Failed));
        assert_eq!(verdict(true, Ok(said(200, "ok\n"))), None);
        assert_eq!(
            verdict(false, Ok(said(200, "<html>"))),
            Some(Verdict::Skipped)
        );
        assert_eq!(verdict(true, Ok(said(404, "ok\n"))), Some(Verdict::Failed));
    }

    #[test]
    fn what_somebody_should_know() {
        let calm = json!({"paused": false, "refused_keys": [], "rescue_budgets_spent": 0,
            "upstream_warning": null, "requests": {"open": 3, "queued": 1, "in_batches": 2}});
        let checks = state(&calm);
        assert_eq!(verdicts(&checks), [("server state", Verdict::Ok)]);
        assert!(
            checks[0].says.starts_with("3 requests"),
            "{}",
            checks[0].says
        );
        let upset = json!({"paused": true, "refused_keys": [{}], "rescue_budgets_spent": 2,
            "upstream_warning": "Is it right?"});
        let expected = [
            ("server state", Verdict::Ok),
            ("paused", Verdict::Warning),
            ("refused keys", Verdict::Failed),
            ("rescue budgets", Verdict::Warning),
            ("upstream of the server", Verdict::Warning),
        ];
        assert_eq!(verdicts(&state(&upset)), expected);
    }

    #[test]
    fn dead_letters_are_counted_or_listed() {
        let page = |length: usize, more: bool| {
            said(
                200,
                &json!({"data": vec![0; length], "has_more": more}).to_string(),
            )
        };
        let counted = |dead: u64| json!({"delivery": {"dead": dead}});
        let none = json!({});
        for (status, page, says) in [
            (&counted(7), Some(page(2, false)), Some("7 webhooks")),
            (&counted(0), None, Some("No webhook")),
            (&none, Some(page(0, false)), Some("No webhook")),
            (&none, Some(page(1, false)), Some("One webhook")),
            (&none, Some(page(100, true)), Some("More than 100")),
            (&none, Some(said(404, "{}")), None),
            (&none, None, None),
        ] {
            let check = dead_letters(status, page.as_ref());
            match (check, says) {
                (Some(check), Some(says)) => assert!(check.says.starts_with(says), "{check:?}"),
                (check, says) => assert_eq!(check.map(|it| it.says), says.map(str::to_owned)),
            }
        }
    }

    #[test]
    fn another_version_is_told() {
        let metrics = "# TYPE offpeak_build_info gauge\noffpeak_build_info{version=\"0.9.1\"} 1\n";
        assert_eq!(version(metrics).as_deref(), Some("0.9.1"));
        assert_eq!(version("offpeak_up 1\n"), None);
        let verdict = |theirs| same_version("Up".into(), theirs, "0.9.1").verdict;
        assert_eq!(verdict(Some("0.9.1")), Verdict::Ok);
        assert_eq!(verdict(None), Verdict::Ok);
        assert_eq!(verdict(Some("0.9.0")), Verdict::Warning);
    }
}
