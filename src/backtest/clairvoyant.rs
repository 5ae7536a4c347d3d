//! Who knows every draw. Each request has a batch of its own, begun on arrival;
//! of a batch that will not end in time the cancel is asked for at once, and the
//! next one begins when that has taken effect. If any of these batches, or of the
//! flex calls beside them, ends in time, the request costs the cheap lane's price,
//! else an ordinary call's. Live capacity is no bound.
//!
//! No policy's expected cost is lower; nor is its cost on the same luck where no
//! two requests share a batch (a line of a shared batch has the luck of another).

use std::time::Duration;

use super::{
    latency::Law,
    tally::Tally,
    trace::Request,
    world::{RequestIx, World},
};

/// Attempts looked at: enough for a week of cancels that take no time.
const ATTEMPTS: u8 = 100;

pub fn clairvoyant(requests: &[Request], law: &Law, seed: u64) -> Tally {
    let mut world = World::new(requests, law, seed);
    for (index, request) in requests.iter().enumerate() {
        let index = index as RequestIx;
        let expires = Duration::from_secs_f64(law.batch.expires);
        let mut begun = request.arrival;
        let mut answered = None;
        for attempt in 0..ATTEMPTS {
            let flex = world.foresee_flex(index, attempt).map(|age| begun + age);
            let batch = world.foresee(begun, index, attempt).min(begun + expires);
            let expired = batch == begun + expires;
            let ends = (flex.into_iter()).chain((!expired).then_some(batch)).min();
            answered = ends.filter(|&at| at <= request.deadline);
            begun = begun + law.cancel();
            if answered.is_some() || begun >= request.deadline {
                break;
            }
        }
        world.progress[index as usize].answered = true;
        let (at, paid) = match answered {
            Some(at) => (at, request.cheap),
            None => (request.arrival + law.latency(), request.standard),
        };
        let standard = answered.is_none();
        (world.tally).answer(request, index, at, paid, standard, false);
    }
    world.tally.over(requests, &world.progress);
    world.tally
}
