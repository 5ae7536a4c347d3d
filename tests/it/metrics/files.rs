//! docs/metrics.md lists what is told; the dashboard and the alerts ask for nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{linted::lint, scrape::Scrape, work::worked};

const PAGE: &str = include_str!("../../../docs/metrics.md");
const ALERTS: &str = include_str!("../../../config/alerts.yml");
const DASHBOARD: &str = include_str!("../../../config/grafana.json");

#[tokio::test]
async fn documents_and_queries_name_what_there_is() {
    let worked = worked().await;
    let scrape = &worked.scrape;
    assert_eq!(documented(PAGE), told(scrape));

    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    assert!(queries.len() > 50, "the search finds nothing");
    let known: BTreeSet<&str> = scrape
        .names()
        .union(&scrape.label_names())
        .copied()
        .collect();
    for text in queries.iter().map(String::as_str).chain([ALERTS]) {
        for name in ours(text) {
            assert!(known.contains(name), "{name} is not told: {text}");
        }
    }
    for family in scrape.families.keys() {
        // What nobody looks at needs no counting.
        let shown = queries.iter().any(|query| query.contains(family.as_str()));
        let shown = shown || ALERTS.contains(family.as_str());
        assert!(
            shown || unshown(family),
            "{family} is nowhere on the dashboard"
        );
    }
    worked.app.finish().await;
}

/// As promtool reads PromQL: each expression stands in a rule of its own.
#[test]
fn the_dashboards_queries_are_valid() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$__range", "1d")
                .replace("$instance", ".*");
            serde_json::json!({"record": format!("panel:{number}"), "expr": query})
        })
        .collect();
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let kept = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kept.path(), file.to_string()).unwrap();
    lint(&["check", "rules", kept.path().to_str().unwrap()], "");
}

/// What ready-made dashboards show, and what is asked of a label only.
fn unshown(family: &str) -> bool {
    family.starts_with("process_") || family == "offpeak_build_info"
}

type Families = BTreeMap<String, (String, BTreeSet<String>)>;

fn told(scrape: &Scrape) -> Families {
    let families = scrape.families.iter();
    families
        .map(|(name, family)| {
            assert!(!family.samples.is_empty(), "{name} has no sample");
            (name.clone(), (family.kind.clone(), family.labels.clone()))
        })
        .collect()
}

/// The tables' rows.
fn documented(page: &str) -> Families {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let kinds = ["counter", "gauge", "histogram"];
    let rows = rows.filter(|cells| kinds.contains(&cells[1]));
    rows.map(|cells| {
        let name = cells[0].trim_end_matches('`').to_owned();
        let labels = cells[2]
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty());
        let labels = labels.map(str::to_owned).collect();
        (name, (cells[1].to_owned(), labels))
    })
    .collect()
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// Words that begin like a metric of ours.
fn ours(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let prefixes = ["offpeak_", "gen_ai_", "process_"];
    words.filter(move |word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
}
