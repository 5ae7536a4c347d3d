//! A disk that is full at times: some of what belongs together is written, and
//! the rest is not. The counts stay true, and nothing is lost or bought twice.

use offpeak::model::request::OnLate;

use super::{
    asking::{HOUR, MINUTE, ask},
    world::{World, succeeded},
};

#[tokio::test(start_paused = true)]
async fn some_writes_find_no_room() {
    for one_in in [2, 3, 5] {
        let world = World::seeded(one_in, None, |settings, _| settings.packing.max_lines = 7).await;
        let keys = world
            .ask_many(40, |n| match n % 4 {
                0 => ask(format!("live {n}")).within(2 * MINUTE),
                1 => ask(format!("rescued {n}")).within(2 * HOUR).sim("never"),
                2 => ask(format!("hooked {n}")).webhook().within(5 * HOUR),
                _ => ask(format!("late {n}"))
                    .on_late(OnLate::Wait)
                    .within(3 * HOUR),
            })
            .await;
        world.trouble.refuse_one_in(one_in);
        world.pass(20 * MINUTE).await;
        world.trouble.refuse_one_in(0);
        world.pass(MINUTE).await;
        world.check_counts().await;
        world.trouble.refuse_one_in(one_in);
        world.pass(HOUR).await;
        world.trouble.refuse_one_in(0);
        world.all_done(&keys).await.iter().for_each(succeeded);
        world.finish().await;
    }
}
