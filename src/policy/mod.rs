//! What to do, and why. Pure: `now` and chance come as arguments, and every
//! decision carries its reason in words, because the reason reaches headers,
//! the API and the logs.

pub mod allowance;
pub mod backoff;
pub mod bucket;
pub mod budget;
pub mod circuit;
pub mod demand;
pub mod fading;
pub mod ladder;
pub mod lane;
pub mod limits;
pub mod pack;
pub mod plan;
pub mod poll;
pub mod rescue;
pub mod retry;
pub mod share;
pub mod throttle;
pub mod turnaround;
