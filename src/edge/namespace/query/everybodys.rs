//! What operators ask of the requests, batches and webhooks of all tenants.

use super::{
    BadQuery, DEFAULT_LIST, ListQuery, MAX_LIST, bad, bad_cursor, instant, limit, pairs, status,
    unknown,
};
use crate::{
    edge::namespace::cursor::{AcrossCursor, ListCursor},
    engine::{Engine, View},
    model::{id::TenantId, request::State},
};

/// A tenant as an operator names it: by its id or, where keys are issued, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose(pub String);

impl Whose {
    pub fn find(&self, engine: &Engine) -> Result<TenantId, BadQuery> {
        let named = engine.tenant_called(&self.0);
        named.or_else(|| self.0.parse().ok()).ok_or_else(|| {
            let message = format!(
                "No tenant is called '{}'. A tenant's id is 32 hexadecimal digits.",
                self.0
            );
            bad("tenant", message)
        })
    }
}

/// `GET /offpeak/admin/requests?…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestsQuery {
    pub whose: Option<Whose>,
    pub order: Order,
    /// The filters, and how many; not where it begins.
    pub asked: ListQuery,
}

/// Which way the listing goes, and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The newest first: those that a listing of open ones begins with.
    Admitted(Option<ListCursor>),
    /// Those that have ended, the last first.
    Ended(Option<u64>),
}

impl Default for Order {
    fn default() -> Self {
        Order::Admitted(None)
    }
}

impl RequestsQuery {
    pub fn parse(query: Option<&str>) -> Result<Self, BadQuery> {
        let mut asked = RequestsQuery::default();
        let mut ended = false;
        let mut after = None;
        for (name, value) in pairs(query)? {
            let filters = &mut asked.asked;
            match name.as_str() {
                "status" if value == "ended" => ended = true,
                "status" => {
                    let state = status(&value).map_err(|error| BadQuery {
                        message: error.message.replace("one of ", "`ended`, or one of "),
                        ..error
                    })?;
                    ended = !matches!(state, State::Queued | State::Placed);
                    filters.status = Some(state);
                }
                "tenant" => asked.whose = Some(Whose(value)),
                "tag" => filters.tag = Some(value),
                "model" => filters.model = Some(value),
                "created_before" => {
                    filters.created_before = Some(instant("created_before", &value)?);
                }
                "limit" => filters.limit = Some(limit(&value, MAX_LIST)?),
                "after" => after = Some(value),
                _ => return Err(unknown(&name)),
            }
        }
        let decoded = |text: String| match ended {
            true => match AcrossCursor::decode(&text) {
                Some(AcrossCursor::Ended(sequence)) => Ok(Order::Ended(Some(sequence))),
                _ => Err(bad_cursor()),
            },
            false => match ListCursor::decode(&text) {
                Some(cursor) => Ok(Order::Admitted(Some(cursor))),
                None => Err(bad_cursor()),
            },
        };
        asked.order = match after {
            Some(text) => decoded(text)?,
            None if ended => Order::Ended(None),
            // A page that was followed by another ends at its cursor, which is older.
            None => Order::Admitted(asked.asked.start().map(ListCursor)),
        };
        Ok(asked)
    }

    pub fn takes(&self, view: &View) -> bool {
        let born = view.request.key.id.born();
        let bound = self.asked.created_before;
        bound.is_none_or(|bound| born < bound) && self.asked.takes(&view.request, view.state)
    }

    pub fn limit(&self) -> usize {
        self.asked.limit()
    }
}

/// `GET /offpeak/admin/webhooks?…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dead {
    pub whose: Option<Whose>,
    pub after: Option<AcrossCursor>,
    limit: Option<usize>,
}

impl Dead {
    pub fn parse(query: Option<&str>) -> Result<Self, BadQuery> {
        let mut asked = Dead::default();
        for (name, value) in pairs(query)? {
            match (name.as_str(), value.as_str()) {
                ("status", "dead") => {}
                ("status", _) => return Err(bad("status", "`status` is `dead`.".into())),
                ("tenant", _) => asked.whose = Some(Whose(value)),
                ("after", text) => {
                    asked.after = Some(AcrossCursor::decode(text).ok_or_else(bad_cursor)?);
                }
                ("limit", text) => asked.limit = Some(limit(text, MAX_LIST)?),
                _ => return Err(unknown(&name)),
            }
        }
        Ok(asked)
    }

    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIST)
    }
}

/// `/offpeak/admin/requests/{id}?…`: whose it is, where that is said.
pub fn whose_alone(query: Option<&str>) -> Result<Option<Whose>, BadQuery> {
    let mut whose = None;
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "tenant" => whose = Some(Whose(value)),
            _ => return Err(unknown(&name)),
        }
    }
    Ok(whose)
}

/// `GET /offpeak/admin/batches?…`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchesQuery {
    pub limit: usize,
}

/// The most batches in one answer.
pub const MAX_BATCHES: usize = 500;

impl BatchesQuery {
    pub fn parse(query: Option<&str>) -> Result<Self, BadQuery> {
        let mut asked = BatchesQuery { limit: MAX_LIST };
        for (name, value) in pairs(query)? {
            match name.as_str() {
                "limit" => asked.limit = limit(&value, MAX_BATCHES)?,
                _ => return Err(unknown(&name)),
            }
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{id::RequestId, time::Timestamp};

    #[test]
    fn what_has_ended_is_listed_by_its_end() {
        let parse = |query: &str| RequestsQuery::parse(Some(query));
        let order = |query: &str| parse(query).unwrap().order;
        assert_eq!(order(""), Order::Admitted(None));
        assert_eq!(order("status=queued&tag=a"), Order::Admitted(None));
        let bound = ListCursor(RequestId::new(Timestamp::from_secs(9), 0));
        let asked = order("status=queued&created_before=9");
        assert_eq!(asked, Order::Admitted(Some(bound)));
        for ended in ["ended", "succeeded", "failed", "cancelled"] {
            assert_eq!(order(&format!("status={ended}")), Order::Ended(None));
        }
        let admitted = ListCursor(RequestId::MIN).encode();
        let ended = AcrossCursor::Ended(7).encode();
        let on = |status: &str, after: &str| parse(&format!("after={after}&status={status}"));
        assert_eq!(on("failed", &ended).unwrap().order, Order::Ended(Some(7)));
        assert_eq!(
            on("in_progress", &admitted).unwrap().order,
            Order::Admitted(Some(ListCursor(RequestId::MIN)))
        );
        // A cursor of one order is none of the other.
        for (status, after) in [("failed", admitted), ("queued", ended)] {
            assert_eq!(on(status, &after).unwrap_err(), bad_cursor());
        }
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for (query, param) in [
            ("status=done", Some("status")),
            ("limit=101", Some("limit")),
            ("endpoint=/v1/responses", None),
            ("after=x", Some("after")),
        ] {
            let error = RequestsQuery::parse(Some(query)).unwrap_err();
            assert_eq!(error.param, param, "{query}");
        }
        let told = RequestsQuery::parse(Some("status=done")).unwrap_err();
        assert!(told.message.contains("`ended`"), "{}", told.message);
        for (query, param) in [
            ("status=pending", Some("status")),
            ("after=x", Some("after")),
            ("tag=a", None),
        ] {
            assert_eq!(
                Dead::parse(Some(query)).unwrap_err().param,
                param,
                "{query}"
            );
        }
        let many = BatchesQuery::parse(Some("limit=501")).unwrap_err();
        assert_eq!(many.param, Some("limit"));
        assert_eq!(BatchesQuery::parse(Some("limit=500")).unwrap().limit, 500);
    }
}
