//! The ledger's rows, as they are kept: `GET …/ledger`, in JSON or CSV.
//!
//! They are read a page at a time while the caller takes them. What fails on the way
//! cuts the answer off, and the connection with it.

mod csv_rows;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header;
use serde::{Serialize, Serializer, ser::SerializeMap};

use self::csv_rows::CsvRows;
use super::{
    Tenant,
    admin::Operator,
    query::{Format, LedgerQuery},
    sums::Sum as _,
    view::Shown,
};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::Engine,
    model::{
        ledger::{LedgerKey, LedgerRow},
        time::Timestamp,
    },
    ports::{LedgerRows, StoreError},
};

/// Rows that are read together.
const PAGE: usize = 500;

pub async fn of_tenant(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = LedgerQuery::of_tenant(query.as_deref())?;
    let rows = LedgerRows {
        of: Some(tenant),
        hours: asked.period.hours(),
    };
    told(&edge, rows, asked.format, false).await
}

pub async fn of_operator(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = LedgerQuery::of_operator(query.as_deref(), edge.engine.now())?;
    let whose = asked.whose.as_ref();
    let rows = LedgerRows {
        of: whose.map(|whose| whose.find(&edge.engine)).transpose()?,
        hours: asked.period.hours(),
    };
    told(&edge, rows, asked.format, true).await
}

/// `tenants`: each row says whose it is.
async fn told(
    edge: &Arc<Edge>,
    rows: LedgerRows,
    format: Format,
    tenants: bool,
) -> Result<Response, ApiError> {
    let mut pages = Pages::new(rows);
    // What fails before anything is sent can still be said.
    let first = pages.next(&edge.engine).await?;
    let mut written = Written::begin(format, tenants);
    let head = written.head(first.as_deref().unwrap_or_default())?;
    let rest = stream::unfold(Some((edge.clone(), pages, written)), more);
    let body = Body::from_stream(stream::iter([Ok(head)]).chain(rest));
    let kind = match format {
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8; header=present",
    };
    let fixed = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = (fixed, body).into_response();
    if format == Format::Csv {
        let name = http::HeaderValue::from_static("attachment; filename=\"offpeak-ledger.csv\"");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

type Rest = Option<(Arc<Edge>, Pages, Written)>;

async fn more(rest: Rest) -> Option<(Result<Bytes, StoreError>, Rest)> {
    let (edge, mut pages, mut written) = rest?;
    Some(match pages.next(&edge.engine).await {
        Ok(Some(page)) => match written.rows(&page) {
            Ok(text) => (Ok(text), Some((edge, pages, written))),
            Err(error) => (Err(error), None),
        },
        Ok(None) => (Ok(written.end()), None),
        Err(error) => {
            tracing::error!(%error, "the ledger's rows break off");
            (Err(error), None)
        }
    })
}

/// The pages of what is asked for, one after the other.
struct Pages {
    rows: LedgerRows,
    after: Option<LedgerKey>,
    ended: bool,
}

impl Pages {
    fn new(rows: LedgerRows) -> Pages {
        Pages {
            rows,
            after: None,
            ended: false,
        }
    }

    async fn next(
        &mut self,
        engine: &Engine,
    ) -> Result<Option<Vec<(LedgerKey, LedgerRow)>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let page = engine.ledger_page(&self.rows, self.after.as_ref(), PAGE);
        let page = page.await?;
        self.ended = page.len() < PAGE;
        self.after = page.last().map(|(key, _)| key.clone());
        Ok(Some(page))
    }
}

/// An answer that is being written.
enum Written {
    Json { tenants: bool, any: bool },
    Csv(CsvRows),
}

impl Written {
    fn begin(format: Format, tenants: bool) -> Written {
        match format {
            Format::Json => Written::Json {
                tenants,
                any: false,
            },
            Format::Csv => Written::Csv(CsvRows { tenants }),
        }
    }

    fn head(&mut self, first: &[(LedgerKey, LedgerRow)]) -> Result<Bytes, StoreError> {
        let head = match self {
            Written::Json { .. } => Bytes::from_static(br#"{"object":"list","data":["#),
            Written::Csv(csv) => csv.head().map_err(StoreError::Io)?,
        };
        Ok([head, self.rows(first)?].concat().into())
    }

    fn rows(&mut self, rows: &[(LedgerKey, LedgerRow)]) -> Result<Bytes, StoreError> {
        let (tenants, any) = match self {
            Written::Json { tenants, any } => (*tenants, any),
            Written::Csv(csv) => return csv.rows(rows).map_err(StoreError::Io),
        };
        let mut text = Vec::new();
        for (key, row) in rows {
            if std::mem::replace(any, true) {
                text.push(b',');
            }
            let row = RowView { key, row, tenants };
            serde_json::to_writer(&mut text, &row).map_err(|error| StoreError::Io(error.into()))?;
        }
        Ok(text.into())
    }

    fn end(&self) -> Bytes {
        match self {
            Written::Json { .. } => Bytes::from_static(b"]}"),
            Written::Csv(_) => Bytes::new(),
        }
    }
}

struct RowView<'a> {
    key: &'a LedgerKey,
    row: &'a LedgerRow,
    tenants: bool,
}

impl Serialize for RowView<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("hour", &Shown(Timestamp::of_hour(self.key.hour)))?;
        if self.tenants {
            map.serialize_entry("tenant", &Shown(self.key.tenant))?;
        }
        map.serialize_entry("lane", &self.key.lane)?;
        map.serialize_entry("model", &self.key.model)?;
        map.serialize_entry("tag", &self.key.tag)?;
        self.row.entries(&mut map)?;
        map.end()
    }
}
