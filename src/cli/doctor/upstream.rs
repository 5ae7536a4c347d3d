//! The provider: whether it is reached, takes the keys, and lets them use batches.

use std::{convert::Infallible, net::IpAddr};

use futures_util::future::join_all;
use http::{HeaderMap, Method, header};
use serde_json::json;
use url::Url;

use super::{
    clock,
    connect::{Steps, connect},
    http::{Key, Said, ask},
    report::{Check, millis, span},
};

const REACHED: &str = "upstream";
const IS_IT_RIGHT: &str = "Is upstream.base_url right? Most providers' APIs stand below /v1.";

const NO_BATCHES: &str = "Without its Batch API nothing costs half: choose another upstream, or \
                          set ladder.batch.models = [] where other lanes are meant.";

/// Where the provider is.
pub struct Upstream<'a> {
    pub http: &'a reqwest::Client,
    /// Without a slash at its end.
    pub base: &'a str,
}

impl Upstream<'_> {
    async fn ask(&self, method: Method, path: &str, key: &HeaderMap) -> Result<Said, String> {
        // A body that makes nothing, whatever the key may do.
        let body = (method == Method::POST).then(|| json!({}));
        let url = format!("{}{path}", self.base);
        ask(self.http, method, &url, key, body.as_ref()).await
    }

    /// Asks without a key, which any provider answers.
    pub async fn reach(&self) -> Vec<Check> {
        let Ok(url) = Url::parse(self.base) else {
            return vec![Check::failed(REACHED, "upstream.base_url is no URL.")];
        };
        let steps = match connect(&url, |_: IpAddr| Ok::<(), Infallible>(())).await {
            Ok(steps) => steps,
            Err(obstacle) => {
                let check = Check::failed(REACHED, obstacle.says).advise(obstacle.advice);
                return vec![
                    check,
                    Check::skipped("clock", "The provider is not reached."),
                ];
            }
        };
        match self.ask(Method::GET, "/models", &HeaderMap::new()).await {
            Ok(said) => {
                let date = said.headers.get(header::DATE);
                let date = date.and_then(|date| date.to_str().ok());
                vec![
                    reached(&url, &steps, &said),
                    clock::check(said.exchange, date),
                ]
            }
            Err(why) => {
                let says = format!(
                    "{} is connected to, and does not answer: {why}.",
                    shown(&url)
                );
                let advice = "Does an HTTP API stand at upstream.base_url?";
                vec![
                    Check::failed(REACHED, says).advise(advice),
                    Check::skipped("clock", "The provider does not answer."),
                ]
            }
        }
    }

    /// What each key may do.
    pub async fn keys(&self, keys: &[Key]) -> Vec<Check> {
        if keys.is_empty() {
            let says = "No key of the provider's is at hand.";
            return vec![
                Check::skipped("key", says)
                    .advise("Set OPENAI_API_KEY to one of your callers' to have it looked at."),
            ];
        }
        let looked = join_all(keys.iter().map(|key| self.key(key, keys.len() > 1)));
        looked.await.into_iter().flatten().collect()
    }

    async fn key(&self, key: &Key, is_one_of_many: bool) -> Vec<Check> {
        let name = |name: &str| match is_one_of_many {
            true => format!("{name} {}", key.variable),
            false => name.to_owned(),
        };
        let (get, post) = (Method::GET, Method::POST);
        let (models, batches, create, files, upload) = tokio::join!(
            self.ask(get.clone(), "/models", &key.headers),
            self.ask(get.clone(), "/batches?limit=1", &key.headers),
            self.ask(post.clone(), "/batches", &key.headers),
            self.ask(get, "/files?purpose=batch&limit=1", &key.headers),
            self.ask(post, "/files", &key.headers),
        );
        let taken = taken(&name("key"), key, &models);
        let is_refused = matches!(&models, Ok(said) if said.status == 401
            && said.missing_scopes().is_empty());
        if is_refused || models.is_err() {
            let why = "The provider does not take the key.";
            let skipped = ["batches", "files"].map(|it| Check::skipped(name(it), why));
            return [taken].into_iter().chain(skipped).collect();
        }
        vec![
            taken,
            permitted(&name("batches"), "Batches", key, [batches, create]),
            permitted(&name("files"), "Files", key, [files, upload]),
        ]
    }
}

fn shown(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}{port}", url.host_str().unwrap_or_default())
}

fn reached(url: &Url, steps: &Steps, said: &Said) -> Check {
    let took = said.exchange.sent.until(said.exchange.answered);
    let tls = steps
        .tls
        .map_or(String::new(), |it| format!(", TLS {}", span(it)));
    let says = format!(
        "{} is reached: name {}, TCP {}{tls}, an answer {}.",
        shown(url),
        span(steps.name),
        span(steps.tcp),
        span(took)
    );
    let measured = json!({
        "address": steps.address.to_string(), "name_ms": millis(steps.name),
        "tcp_ms": millis(steps.tcp), "tls_ms": steps.tls.map(millis),
        "answer_ms": millis(took), "status": said.status,
    });
    let check = match said.status {
        404 => Check::warning(REACHED, format!("{says} It has no {}/models.", url.path()))
            .advise(IS_IT_RIGHT),
        500.. => Check::warning(REACHED, format!("{says} It fails with {}.", said.status))
            .advise("See the provider's status page."),
        200..300 if !said.is_list() => Check::warning(
            REACHED,
            format!("{says} Its {}/models is no list.", url.path()),
        )
        .advise(IS_IT_RIGHT),
        300..400 => Check::warning(REACHED, format!("{says} It redirects ({}).", said.status))
            .advise("Redirects are not followed: set upstream.base_url to where it leads."),
        _ => Check::ok(REACHED, says),
    };
    check.measured(measured)
}

fn taken(name: &str, key: &Key, models: &Result<Said, String>) -> Check {
    let variable = &key.variable;
    let said = match models {
        Ok(said) => said,
        Err(why) => return Check::failed(name, format!("Nothing answers: {why}.")),
    };
    let (status, message) = (said.status, key.mask(&said.message()));
    let scopes = said.missing_scopes();
    match status {
        200..300 => match said.body["data"].as_array() {
            Some(models) => {
                let says = format!("{variable} is taken; it sees {} models.", models.len());
                Check::ok(name, says)
            }
            None => Check::warning(name, format!("What {variable} sees at /models is no list."))
                .advise(IS_IT_RIGHT),
        },
        401 | 403 if !scopes.is_empty() => {
            let says = format!(
                "{variable} is taken, but may not read models: it lacks {}.",
                scopes.join(", ")
            );
            Check::warning(name, says).advise(
                "Give it `Models: read`, or set admission.model_check = false: a model is asked \
                 for before its first call is deferred.",
            )
        }
        401 => Check::failed(name, format!("{variable} is refused (401): {message}"))
            .advise(format!("Set {variable} to a key of this provider.")),
        403 => Check::failed(name, format!("{variable} is refused (403): {message}"))
            .advise("See the key's permissions, its project, and where it may be used from."),
        429 if said.code() == Some("insufficient_quota") => {
            Check::failed(name, format!("{variable} has no credit left: {message}"))
                .advise("Buy credit, or raise the project's budget.")
        }
        404 => Check::warning(
            name,
            "There is no list of models to try the key with (404).",
        )
        .advise("Is upstream.base_url right? If so, set admission.model_check = false."),
        _ => Check::warning(name, format!("It cannot be told now ({status}): {message}"))
            .advise("Ask again later."),
    }
}

/// `reading` lists, `writing` sends a body from which nothing is made: keys may do one
/// and not the other.
fn permitted(
    name: &str,
    what: &str,
    key: &Key,
    [reading, writing]: [Result<Said, String>; 2],
) -> Check {
    let said = match &reading {
        Ok(said) => said,
        Err(why) => return Check::failed(name, format!("Nothing answers: {why}.")),
    };
    let is_forbidden = |said: &Said| matches!(said.status, 401 | 403);
    let written = writing.as_ref().ok();
    let forbidden = [Some(said), written].into_iter().flatten();
    let forbidden: Vec<&Said> = forbidden.filter(|said| is_forbidden(said)).collect();
    if let Some(first) = forbidden.first() {
        let mut scopes: Vec<String> = forbidden
            .iter()
            .flat_map(|said| said.missing_scopes())
            .collect();
        scopes.dedup();
        let kind = match is_forbidden(said) {
            true => "read",
            false => "written",
        };
        let why = match scopes.is_empty() {
            true => format!("({}): {}", first.status, key.mask(&first.message())),
            false => format!("({}): it lacks {}.", first.status, scopes.join(", ")),
        };
        let says = format!("{what} may not be {kind} with {} {why}", key.variable);
        return Check::failed(name, says).advise(format!(
            "A restricted key needs `{what}: write`: a batch is a file that is uploaded, run, \
             read and deleted."
        ));
    }
    let lower = what.to_lowercase();
    match said.status {
        200..300 if !said.is_list() => {
            Check::warning(name, format!("What is read as {lower} is no list.")).advise(IS_IT_RIGHT)
        }
        200..300 => written_to(name, what, written),
        404 | 405 => Check::failed(
            name,
            format!("The provider has no {lower} ({}).", said.status),
        )
        .advise(NO_BATCHES),
        429 => Check::warning(name, "It cannot be told now: too many calls (429).")
            .advise("Ask again later."),
        status => {
            let message = key.mask(&said.message());
            Check::warning(name, format!("It cannot be told now ({status}): {message}"))
                .advise("Ask again later.")
        }
    }
}

/// What may be read, and may be written if the body was looked at and refused.
fn written_to(name: &str, what: &str, written: Option<&Said>) -> Check {
    match written.map(|said| said.status) {
        Some(400 | 413 | 415 | 422) => Check::ok(name, format!("{what} may be read and written.")),
        Some(status @ (404 | 405)) => {
            let says = format!("{what} may be read, and there is no writing them ({status}).");
            Check::failed(name, says).advise(NO_BATCHES)
        }
        Some(status) => {
            let says = format!(
                "{what} may be read; whether they may be written, cannot be told now ({status})."
            );
            Check::warning(name, says).advise("Ask again later.")
        }
        None => {
            let says = format!("{what} may be read; to a body for writing nothing answers.");
            Check::warning(name, says).advise("Ask again later.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{http::tests::said, report::Verdict};

    fn key() -> Key {
        Key {
            variable: "OPENAI_API_KEY".into(),
            headers: HeaderMap::new(),
            secrets: vec!["sk-secret".into()],
        }
    }

    const SCOPES: &str = r#"{"error":{"message":"Missing scopes: api.batch.read. Check"}}"#;
    const LIST: &str = r#"{"data":[]}"#;
    const BAD: &str = r#"{"error":{"message":"Incorrect API key: sk-secret."}}"#;

    #[test]
    fn a_key_that_is_taken_restricted_or_refused() {
        use Verdict::{Failed, Ok, Warning};
        let quota = r#"{"error":{"message":"m","code":"insufficient_quota"}}"#;
        for (status, text, verdict, says) in [
            (200, r#"{"data":[1,2]}"#, Ok, "sees 2 models"),
            (200, "<html>", Warning, "is no list"),
            (200, "{}", Warning, "is no list"),
            (
                401,
                BAD,
                Failed,
                "refused (401): Incorrect API key: [masked].",
            ),
            (401, SCOPES, Warning, "lacks api.batch.read"),
            (403, SCOPES, Warning, "lacks api.batch.read"),
            (403, BAD, Failed, "refused (403)"),
            (429, quota, Failed, "no credit"),
            (429, "{}", Warning, "now (429)"),
            (404, "{}", Warning, "no list of models"),
            (500, "{}", Warning, "now (500)"),
        ] {
            let check = taken("key", &key(), &Result::Ok(said(status, text)));
            assert_eq!(check.verdict, verdict, "{status}: {}", check.says);
            assert!(check.says.contains(says), "{status}: {}", check.says);
            assert_eq!(check.advice.is_some(), verdict != Ok, "{status}");
        }
        let silent = taken("key", &key(), &Err("refused".into()));
        assert_eq!(silent.verdict, Failed);
    }

    #[test]
    fn what_a_key_may_do_with_batches() {
        use Verdict::{Failed, Ok, Warning};
        let plain = r#"{"error":{"message":"Not allowed for sk-secret"}}"#;
        for ((read, text), write, verdict, says) in [
            ((200, LIST), 400, Ok, "read and written"),
            ((200, LIST), 413, Ok, "read and written"),
            ((200, LIST), 415, Ok, "read and written"),
            ((200, LIST), 422, Ok, "read and written"),
            ((200, LIST), 404, Failed, "no writing them (404)"),
            ((200, LIST), 405, Failed, "no writing them (405)"),
            ((200, LIST), 429, Warning, "cannot be told now (429)"),
            ((200, LIST), 500, Warning, "cannot be told now (500)"),
            ((200, LIST), 200, Warning, "cannot be told now (200)"),
            ((200, "{}"), 400, Warning, "is no list"),
            ((200, "<html>"), 400, Warning, "is no list"),
            ((200, LIST), 403, Failed, "may not be written"),
            ((403, SCOPES), 403, Failed, "may not be read"),
            (
                (403, SCOPES),
                400,
                Failed,
                "(403): it lacks api.batch.read.",
            ),
            (
                (401, SCOPES),
                400,
                Failed,
                "(401): it lacks api.batch.read.",
            ),
            ((403, plain), 400, Failed, "(403): Not allowed for [masked]"),
            ((404, "{}"), 404, Failed, "has no batches"),
            ((429, "{}"), 429, Warning, "too many calls"),
            ((503, "{}"), 503, Warning, "now (503)"),
        ] {
            let answers = [Result::Ok(said(read, text)), Result::Ok(said(write, "{}"))];
            let check = permitted("batches", "Batches", &key(), answers);
            assert_eq!(check.verdict, verdict, "{read} {write}: {}", check.says);
            assert!(check.says.contains(says), "{read} {write}: {}", check.says);
        }
    }
}
