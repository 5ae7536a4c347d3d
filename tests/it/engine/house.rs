//! What is kept, and for how long.

use super::{
    asking::{HOUR, MINUTE, ask, credential},
    world::{World, succeeded},
};

#[tokio::test(start_paused = true)]
async fn results_and_orphans_are_kept_for_a_time() {
    let world = World::with(|settings, _| settings.retention.results = 10 * HOUR).await;
    let key = world.ask(&ask("kept")).await;
    let orphan = world.ask(&ask("orphan").held()).await;
    world.all_done(&[key, orphan]).await;
    world.finish().await;
    world.pass(9 * HOUR).await;
    assert!(world.engine().head(key).await.unwrap().is_some());
    assert_eq!(world.engine().gauges().held, 1);
    world.pass(2 * HOUR).await;
    assert!(world.engine().head(key).await.unwrap().is_none());
    assert_eq!(world.batches().await, []);
    assert_eq!(world.engine().gauges().held, 0);
    assert_eq!(world.store.unreleased().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_kept_only_while_there_is_work() {
    let mut world = World::new().await;
    let credential = world.admit(&ask("first")).await.request.credential;
    let kept = async |world: &World| world.store.credential(credential).await.unwrap().is_some();
    assert!(kept(&world).await);
    world.finish().await;
    world.pass(2 * MINUTE).await;
    assert!(!kept(&world).await);

    let again = world.ask(&ask("again")).await;
    assert!(kept(&world).await);
    world.restart(None).await;
    succeeded(&world.outcome(again).await);
    world.finish().await;
    world.pass(2 * MINUTE).await;
    assert!(!kept(&world).await);
}

/// A tenant that is never idle keeps no credential whose own work is done.
#[tokio::test(start_paused = true)]
async fn a_credential_goes_with_its_own_work() {
    let mut world = World::new().await;
    let of_org = |world: &World, text: &str, org: &str, within| {
        let mut call = ask(text).within(within).call(world.engine());
        let mut presented = credential("sk-test");
        let header = ("openai-organization".to_owned(), org.to_owned());
        presented.headers.push(header);
        call.caller = world.engine().caller(presented);
        call
    };
    let calls = [
        of_org(&world, "soon", "org-1", MINUTE),
        of_org(&world, "in a batch", "org-2", 6 * HOUR),
    ];
    let mut asked = Vec::new();
    for call in calls {
        let request = world.engine().admit(call).await.unwrap().request;
        world.note(request.key, "of an organization");
        asked.push(request);
    }
    assert_eq!(asked[0].key.tenant, asked[1].key.tenant);
    let kept = async |world: &World| {
        let mut kept = Vec::new();
        for request in &asked {
            let sealed = world.store.credential(request.credential).await.unwrap();
            kept.push(sealed.is_some());
        }
        kept
    };
    assert_eq!(kept(&world).await, [true, true]);
    succeeded(&world.outcome(asked[0].key).await);
    world.pass(2 * MINUTE).await;
    assert_eq!(kept(&world).await, [false, true]);
    world.restart(None).await;
    succeeded(&world.outcome(asked[1].key).await);
    world.finish().await;
    world.pass(2 * HOUR).await;
    assert_eq!(kept(&world).await, [false, false]);
}

#[tokio::test(start_paused = true)]
async fn destinations_are_kept_while_what_was_spent_counts() {
    let world = World::new().await;
    let key = world.ask(&ask("one")).await;
    succeeded(&world.outcome(key).await);
    world.finish().await;
    world.pass(46 * HOUR).await;
    assert_eq!(world.store.destinations().await.unwrap().len(), 1);
    world.pass(4 * HOUR).await;
    assert_eq!(world.store.destinations().await.unwrap(), []);
}
