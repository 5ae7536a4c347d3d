//! The whole engine against the simulator, in virtual time: real wire code over
//! pipes, real vault, the store in memory. A day takes milliseconds.

mod asking;
mod crash;
mod day;
mod deadlines;
mod life;
mod world;

mod batches;
mod bills;
mod budget;
mod callers;
mod cancels;
mod capacity;
mod crashes;
mod erased;
mod every_step;
mod full_disk;
mod hanging;
mod hints;
mod house;
mod hung;
mod issued;
mod ladder;
mod lanes;
mod learning;
mod live;
mod misses;
mod moved;
mod poison;
mod promises;
mod receivers;
mod refused;
mod rescue;
mod shadow;
mod short;
mod spending;
mod spoiled;
mod submit;
mod throttle;
mod tokens;
mod turns;
mod twins;
mod unpacked;
mod webhooks;
mod worst;
