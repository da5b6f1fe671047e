//! Tests through the public interface of the crate.

mod syntax;
