//! The number of series does not depend on callers.

use futures_util::future::join_all;

use super::{
    scrape::scrape,
    work::{CHAT, MADE_UP, SIX_HOURS, chat, worked_before},
};
use crate::app::{self, TestApp};

/// A series may begin with the first event of its kind. After these, no thousand more
/// tenants, models and tags make another.
const FIRST: usize = 3;
const MORE: usize = 1_000;
/// At the same time.
const CALLERS: usize = 8;

#[tokio::test]
async fn callers_cannot_make_series() {
    let mut provider = app::provider();
    let like = provider.models["gpt-4o-mini"];
    // It knows them all, and there is a price for none.
    let known = (0..FIRST + MORE).map(|number| (made_up(number), like));
    provider.models.extend(known);
    let worked = worked_before(provider).await;
    let app = &worked.app;
    call_as(app, 0..FIRST).await;
    let before = scrape(app).await;
    let shares = (0..CALLERS).map(|caller| (FIRST + caller..FIRST + MORE).step_by(CALLERS));
    join_all(shares.map(|numbers| call_as(app, numbers))).await;
    let after = scrape(app).await;

    assert_eq!(after.series(), before.series());
    assert!(after.series().len() < 1_500, "{}", after.series().len());
    assert!(!after.text.contains(MADE_UP));
    // They were counted all the same.
    for counted in [
        "offpeak_requests_admitted_total",
        "offpeak_answers_unpriced_total",
        r#"offpeak_requests_refused_total"#,
    ] {
        let more = after.sum(counted) - before.sum(counted);
        assert!(more >= MORE as f64, "{counted}: {more}");
    }
    worked.app.finish().await;
}

fn made_up(number: usize) -> String {
    format!("{MADE_UP}-{number}")
}

/// Each number is another tenant with a model and a tag of its own: one call is answered,
/// one is refused by the provider, one by us, and one passes through.
async fn call_as(app: &TestApp, numbers: impl Iterator<Item = usize>) {
    let mut caller = app.caller().await;
    for number in numbers {
        let name = made_up(number);
        let key = format!("authorization: Bearer sk-{name}");
        let tag = format!("offpeak-tag: {name}");
        let mut call = async |headers: &[&str], model: &str| {
            let headers = [&[key.as_str(), &tag], headers].concat();
            let answer = caller.call(CHAT, &headers, chat(model, &name)).await;
            answer.status()
        };
        let live = "openai-beta: live=v1";
        assert_eq!(call(&[SIX_HOURS, live], &name).await, 200);
        let unknown = format!("{MADE_UP}-unknown-{number}");
        assert_eq!(call(&[SIX_HOURS], &unknown).await, 404);
        let bad = format!("offpeak-{name}: 1");
        assert_eq!(call(&[SIX_HOURS, &bad], &name).await, 400);
        assert_eq!(call(&[], &unknown).await, 404);
    }
}
