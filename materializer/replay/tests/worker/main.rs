//! The worker by itself, where the simulator does not reach: what it refuses, what it is told to do, and
//! what it says of itself.

mod bench;
mod directives;
mod growth;
mod parts;
mod poison;
mod refusals;
mod work;
