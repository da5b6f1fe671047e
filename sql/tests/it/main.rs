//! Tests through the public interface of the crate.

mod cases;
mod syntax;
mod world;
