//! `/metrics` of a server that has done all kinds of work, and what is made of it:
//! docs/metrics.md, config/alerts.yml, config/grafana.json.

mod bounded;
mod counted;
mod files;
mod linted;
mod scrape;
mod work;

pub use self::{scrape::scrape, work::until};
