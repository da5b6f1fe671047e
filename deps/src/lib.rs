//! No code: it names every outside crate once, so that building one crate of ours beside it selects the same features,
//! and so reuses the same objects, as building all. `cargo test -p millpond-sql -p millpond-deps` then compiles only `sql`.
