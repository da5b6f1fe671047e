//! Tests through the public interface of the crate.

mod analyse;
mod cases;
mod syntax;
mod world;
