//! Lists that come in pages.

use serde_json::{Value, json};

use super::{
    Failure,
    server::{Server, Who},
};

/// The most on one page.
const PAGE: usize = 100;

/// As many pages of the list at `path`, asked for by `query`, as the limit takes.
///
/// # Errors
/// As [`Server::ask`].
pub async fn list(
    server: &Server,
    who: Who,
    (path, query): (&str, &str),
    limit: usize,
) -> Result<Value, Failure> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let size = (limit - found.len()).clamp(1, PAGE);
        let asked = who.path(&format!("{path}?{query}&limit={size}{after}"));
        let page = server.get(who, &asked).await?;
        found.extend(page["data"].as_array().cloned().unwrap_or_default());
        let next = page["next"].as_str().filter(|_| page["has_more"] == true);
        match next {
            // Cursors are fit to stand in a query as they are.
            Some(next) if found.len() < limit => after = format!("&after={next}"),
            next => {
                let has_more = next.is_some();
                return Ok(
                    json!({"object": "list", "data": found, "has_more": has_more, "next": next}),
                );
            }
        }
    }
}

/// What is said below a list that was cut.
pub fn more(list: &Value) -> &'static str {
    match list["has_more"] == true {
        true => "There are more: --limit.\n",
        false => "",
    }
}
