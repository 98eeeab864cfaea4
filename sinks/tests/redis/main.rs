//! The Redis sink on a real server. Each test starts one of its own and ends it.

mod faults;
mod foreign;
mod gate;
mod names;
mod place;
mod security;
mod server;
mod serving;

mod json {
    use crate::place::RedisTestPlace;
    use materializer_model::definition::RedisShape;

    materializer_sinks::conformance_suite!(
        ignore = "needs redis-server: ./dev test",
        RedisTestPlace::start(RedisShape::Json)
    );
}

mod hash {
    use crate::place::RedisTestPlace;
    use materializer_model::definition::RedisShape;

    materializer_sinks::conformance_suite!(
        ignore = "needs redis-server: ./dev test",
        RedisTestPlace::start(RedisShape::Hash)
    );
}
