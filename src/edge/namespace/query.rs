//! What the query of a listing or of the feed asks for.

mod books;
mod everybodys;

use std::time::Duration;

use thiserror::Error;
use url::form_urlencoded;

use super::cursor::ListCursor;
use crate::engine::Move;
use crate::model::{
    endpoint::Endpoint,
    id::RequestId,
    request::{Request, State},
    time::Timestamp,
};

pub use self::{
    books::{Format, LedgerQuery, Period, SavingsQuery},
    everybodys::{BatchesQuery, Dead, MAX_BATCHES, Order, RequestsQuery, Whose, whose_alone},
};

/// A query that we do not understand: never guessed at, because a filter that
/// is silently dropped lists too much.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BadQuery {
    pub message: String,
    /// The parameter at fault, where it is one of ours.
    pub param: Option<&'static str>,
    pub code: &'static str,
}

/// `GET /offpeak/v1/requests?…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    pub status: Option<State>,
    pub tag: Option<String>,
    pub endpoint: Option<Endpoint>,
    pub model: Option<String>,
    /// Admitted at this instant or later.
    pub created_after: Option<Timestamp>,
    /// Admitted before this instant.
    pub created_before: Option<Timestamp>,
    pub after: Option<ListCursor>,
    pub limit: Option<usize>,
}

/// `GET /offpeak/v1/results?…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedQuery {
    /// A cursor, which the tenant's mark decrypts, or [`FeedQuery::END`].
    pub after: Option<String>,
    pub limit: Option<usize>,
    pub wait: Option<Duration>,
}

/// `GET /offpeak/v1/webhooks?…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HooksQuery {
    /// `pending`, `delivered` or `dead`.
    pub status: Option<&'static str>,
    /// Read with the tenant's mark.
    pub after: Option<String>,
    pub limit: Option<usize>,
}

/// `POST /offpeak/v1/credential?…`
pub fn moving(query: Option<&str>) -> Result<Move, BadQuery> {
    let mut asked = Move::default();
    for (name, value) in pairs(query)? {
        let wanted = match name.as_str() {
            "keep_previous" => &mut asked.keep_previous,
            "force" => &mut asked.force,
            _ => return Err(unknown(&name)),
        };
        *wanted = match value.as_str() {
            "true" => true,
            "false" => false,
            _ => {
                let shown = if name == "force" {
                    "force"
                } else {
                    "keep_previous"
                };
                return Err(bad(shown, format!("`{name}` is `true` or `false`.")));
            }
        };
    }
    Ok(asked)
}

/// The most requests on one page.
pub const MAX_LIST: usize = 100;
const DEFAULT_LIST: usize = 20;

/// The most results in one answer of the feed. Only their keys are held.
pub const MAX_FEED: usize = 1000;
const DEFAULT_FEED: usize = 100;

impl ListQuery {
    pub fn parse(query: Option<&str>) -> Result<Self, BadQuery> {
        let mut asked = ListQuery::default();
        for (name, value) in pairs(query)? {
            match name.as_str() {
                "status" => asked.status = Some(status(&value)?),
                "tag" => asked.tag = Some(value),
                "endpoint" => asked.endpoint = Some(endpoint(&value)?),
                "model" => asked.model = Some(value),
                "created_after" => {
                    asked.created_after = Some(instant("created_after", &value)?);
                }
                "created_before" => {
                    asked.created_before = Some(instant("created_before", &value)?);
                }
                "after" => {
                    let cursor = ListCursor::decode(&value).ok_or_else(bad_cursor)?;
                    asked.after = Some(cursor);
                }
                "limit" => asked.limit = Some(limit(&value, MAX_LIST)?),
                _ => return Err(unknown(&name)),
            }
        }
        Ok(asked)
    }

    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIST)
    }

    /// The listing begins with requests older than this.
    pub fn start(&self) -> Option<RequestId> {
        let bound = self.created_before.map(|at| RequestId::new(at, 0));
        let cursor = self.after.map(|cursor| cursor.0);
        match (bound, cursor) {
            (Some(bound), Some(cursor)) => Some(bound.min(cursor)),
            (bound, cursor) => bound.or(cursor),
        }
    }

    /// True where this request, and with it every older one, is too old.
    pub fn ends_at(&self, request: &Request) -> bool {
        self.created_after
            .is_some_and(|after| request.key.id.born() < after)
    }

    pub fn takes(&self, request: &Request, state: State) -> bool {
        self.status.is_none_or(|status| status == state)
            && self.endpoint.is_none_or(|asked| asked == request.endpoint)
            && self.model.as_ref().is_none_or(|it| *it == request.model)
            && (self.tag.is_none() || self.tag == request.tag)
    }
}

impl FeedQuery {
    /// `after` of who wants what ends from here on, and nothing that has.
    pub const END: &str = "end";

    pub fn parse(query: Option<&str>) -> Result<Self, BadQuery> {
        let mut asked = FeedQuery::default();
        for (name, value) in pairs(query)? {
            match name.as_str() {
                "after" => asked.after = Some(value),
                "limit" => asked.limit = Some(limit(&value, MAX_FEED)?),
                "wait" => asked.wait = Some(seconds(&value)?),
                _ => return Err(unknown(&name)),
            }
        }
        Ok(asked)
    }

    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_FEED)
    }
}

impl HooksQuery {
    pub fn parse(query: Option<&str>) -> Result<Self, BadQuery> {
        let mut asked = HooksQuery::default();
        for (name, value) in pairs(query)? {
            match name.as_str() {
                "status" => asked.status = Some(delivery(&value)?),
                "after" => asked.after = Some(value),
                "limit" => asked.limit = Some(limit(&value, MAX_LIST)?),
                _ => return Err(unknown(&name)),
            }
        }
        Ok(asked)
    }

    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIST)
    }
}

/// Each name once: of two values one would have to be dropped. `api-version`
/// belongs to the credential.
fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, BadQuery> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name == "api-version" {
            continue;
        }
        if pairs.iter().any(|(seen, _)| *seen == name) {
            return Err(BadQuery {
                message: format!("The query parameter `{name}` stands twice."),
                param: None,
                code: "duplicate_parameter",
            });
        }
        pairs.push((name.into_owned(), value.into_owned()));
    }
    Ok(pairs)
}

fn status(value: &str) -> Result<State, BadQuery> {
    const ALL: [State; 5] = [
        State::Queued,
        State::Placed,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
    ];
    let known = ALL.into_iter().find(|state| state.as_str() == value);
    known.ok_or_else(|| {
        let names = ALL.map(State::as_str).join(", ");
        bad("status", format!("`status` is one of {names}."))
    })
}

fn delivery(value: &str) -> Result<&'static str, BadQuery> {
    const ALL: [&str; 3] = ["pending", "delivered", "dead"];
    let known = ALL.into_iter().find(|known| *known == value);
    known.ok_or_else(|| {
        let names = ALL.join(", ");
        bad("status", format!("`status` is one of {names}."))
    })
}

/// With or without `/v1`, as base URLs have it or not.
fn endpoint(value: &str) -> Result<Endpoint, BadQuery> {
    let bare = value.trim_start_matches('/');
    let bare = bare.strip_prefix("v1/").unwrap_or(bare);
    Endpoint::from_path(&format!("/v1/{bare}")).ok_or_else(|| {
        let paths = Endpoint::ALL.map(Endpoint::path).join(", ");
        bad("endpoint", format!("`endpoint` is one of {paths}."))
    })
}

/// RFC 3339, or whole seconds since 1970 as OpenAI's `created` counts them.
fn instant(name: &'static str, value: &str) -> Result<Timestamp, BadQuery> {
    if let Ok(seconds) = value.parse::<u32>() {
        return Ok(Timestamp::from_secs(seconds.into()));
    }
    // A `+` of an offset that was not percent-encoded arrives as a space.
    let text = value.replace(' ', "+");
    text.parse::<jiff::Timestamp>()
        .ok()
        .and_then(|instant| u64::try_from(instant.as_millisecond()).ok())
        .map(Timestamp::from_millis)
        .ok_or_else(|| {
            let form = "an RFC 3339 instant (`2030-01-31T06:00:00Z`) or whole Unix seconds";
            bad(name, format!("`{name}` takes {form}."))
        })
}

fn limit(value: &str, most: usize) -> Result<usize, BadQuery> {
    let number = value.parse().ok().filter(|it| (1..=most).contains(it));
    number.ok_or_else(|| bad("limit", format!("`limit` is a number from 1 to {most}.")))
}

fn seconds(value: &str) -> Result<Duration, BadQuery> {
    let number = value.parse::<u32>().ok();
    number
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| bad("wait", "`wait` is a whole number of seconds.".into()))
}

pub fn bad_cursor() -> BadQuery {
    BadQuery {
        message: "This is not a cursor that Offpeak gave for this list. Pass one on as it came."
            .into(),
        param: Some("after"),
        code: "invalid_cursor",
    }
}

fn unknown(name: &str) -> BadQuery {
    BadQuery {
        message: format!("Unknown query parameter: `{name}`."),
        param: None,
        code: "unknown_parameter",
    }
}

fn bad(name: &'static str, message: String) -> BadQuery {
    BadQuery {
        message,
        param: Some(name),
        code: "invalid_parameter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<ListQuery, BadQuery> {
        ListQuery::parse(Some(query))
    }

    #[test]
    fn reads_every_filter() {
        let cursor = ListCursor(RequestId::MIN);
        let asked = list(&format!(
            "status=in_progress&tag=nightly%20eval&endpoint=chat/completions&model=gpt-4o\
             &created_after=2025-11-22T17:25:46.120Z&created_before=1763832400&limit=100&after={}",
            cursor.encode()
        ))
        .unwrap();
        let expected = ListQuery {
            status: Some(State::Placed),
            tag: Some("nightly eval".into()),
            endpoint: Some(Endpoint::ChatCompletions),
            model: Some("gpt-4o".into()),
            created_after: Some(Timestamp::from_millis(1_763_832_346_120)),
            created_before: Some(Timestamp::from_secs(1_763_832_400)),
            after: Some(cursor),
            limit: Some(100),
        };
        assert_eq!(asked, expected);
        assert_eq!(list("").unwrap(), ListQuery::default());
        assert_eq!(list("api-version=v1").unwrap(), ListQuery::default());
        assert_eq!(ListQuery::parse(None).unwrap().limit(), DEFAULT_LIST);
    }

    #[test]
    fn an_offset_may_come_unencoded() {
        let plain = list("created_after=2025-11-22T18:25:46%2B01:00").unwrap();
        let raw = list("created_after=2025-11-22T18:25:46+01:00").unwrap();
        assert_eq!(plain, raw);
        assert_eq!(
            plain.created_after,
            Some(Timestamp::from_secs(1_763_832_346))
        );
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let feed_cursor = "ZgAAAAAAAAAA";
        for (query, param, code) in [
            ("stauts=failed", None, "unknown_parameter"),
            ("status=done", Some("status"), "invalid_parameter"),
            ("status=", Some("status"), "invalid_parameter"),
            ("endpoint=/v1/files", Some("endpoint"), "invalid_parameter"),
            ("limit=0", Some("limit"), "invalid_parameter"),
            ("limit=101", Some("limit"), "invalid_parameter"),
            ("limit=-1", Some("limit"), "invalid_parameter"),
            ("limit=5&limit=6", None, "duplicate_parameter"),
            (
                "created_after=yesterday",
                Some("created_after"),
                "invalid_parameter",
            ),
            (
                "created_before=1960-01-01T00:00:00Z",
                Some("created_before"),
                "invalid_parameter",
            ),
            ("after=op_1", Some("after"), "invalid_cursor"),
            (
                &format!("after={feed_cursor}"),
                Some("after"),
                "invalid_cursor",
            ),
        ] {
            let error = list(query).unwrap_err();
            assert_eq!((error.param, error.code), (param, code), "{query}");
        }
        for (query, param) in [
            ("wait=soon", Some("wait")),
            ("limit=1001", Some("limit")),
            ("tag=a", None),
        ] {
            assert_eq!(FeedQuery::parse(Some(query)).unwrap_err().param, param);
        }
    }

    #[test]
    fn starts_at_the_older_of_cursor_and_bound() {
        let at = |seconds| RequestId::new(Timestamp::from_secs(seconds), u128::MAX);
        let query = |after, before| ListQuery {
            after: Some(ListCursor(at(after))),
            created_before: Some(Timestamp::from_secs(before)),
            ..ListQuery::default()
        };
        assert_eq!(query(5, 9).start(), Some(at(5)));
        let bound = RequestId::new(Timestamp::from_secs(3), 0);
        assert_eq!(query(5, 3).start(), Some(bound));
        assert_eq!(ListQuery::default().start(), None);
    }

    #[test]
    fn reads_the_feeds_query() {
        let asked = FeedQuery::parse(Some("after=Zg&limit=3&wait=30"));
        let expected = FeedQuery {
            after: Some("Zg".to_owned()),
            limit: Some(3),
            wait: Some(Duration::from_secs(30)),
        };
        assert_eq!(asked.unwrap(), expected);
    }
}
