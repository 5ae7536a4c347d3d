//! What a scrape tells.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::TestApp;

/// What `/metrics` tells, read.
#[derive(Debug, Default)]
pub struct Scrape {
    pub text: String,
    pub families: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// By name and labels as they stand there.
    pub samples: BTreeMap<String, f64>,
    /// Without `le`.
    pub labels: BTreeSet<String>,
}

/// Of the text format.
pub async fn scrape(app: &TestApp) -> Scrape {
    let mut caller = app.caller().await;
    let answer = caller.call("GET /metrics", &[], "").await;
    assert_eq!(answer.status(), 200);
    let kind = answer.head.get("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    Scrape::read(String::from_utf8(answer.body).unwrap())
}

impl Scrape {
    pub fn read(text: String) -> Scrape {
        let mut scrape = Scrape::default();
        let mut last = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                last = name.to_owned();
                let family = scrape.families.entry(last.clone()).or_default();
                assert!(family.help.is_empty(), "{name} is told twice");
                family.help = help.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, last);
                scrape.families.get_mut(name).unwrap().kind = kind.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let family = scrape.families.get_mut(&last).unwrap();
                assert!(series.starts_with(last.as_str()), "{series} below {last}");
                let labels = series.split_once('{').map_or("", |(_, labels)| labels);
                // No label's value has a comma or an equals sign in it.
                let names = labels.split(',').filter_map(|pair| pair.split_once('='));
                let names = names.map(|(name, _)| name).filter(|name| *name != "le");
                family.labels.extend(names.map(str::to_owned));
                let earlier = family
                    .samples
                    .insert(series.to_owned(), value.parse().unwrap());
                assert!(earlier.is_none(), "{series} is told twice");
            }
        }
        scrape.text = text;
        scrape
    }

    /// The value of one series, which must be told.
    pub fn value(&self, series: &str) -> f64 {
        let samples = self.families.values().map(|family| &family.samples);
        let found = samples.filter_map(|samples| samples.get(series)).next();
        *found.unwrap_or_else(|| panic!("{series} is not told:\n{}", self.text))
    }

    /// The sum of all series of this name.
    pub fn sum(&self, name: &str) -> f64 {
        let samples = self.families.values().flat_map(|family| &family.samples);
        let of_name = samples.filter(|(series, _)| series.split('{').next() == Some(name));
        of_name.map(|(_, value)| value).sum()
    }

    pub fn series(&self) -> BTreeSet<&str> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples.map(|(series, _)| series.as_str()).collect()
    }

    /// Every name that a query may use.
    pub fn names(&self) -> BTreeSet<&str> {
        let series = self.series().into_iter();
        series.map(|one| one.split('{').next().unwrap()).collect()
    }

    pub fn label_names(&self) -> BTreeSet<&str> {
        let labels = self.families.values().flat_map(|family| &family.labels);
        labels.map(String::as_str).chain(["le"]).collect()
    }
}
