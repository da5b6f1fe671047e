//! Words and tokens of the dialect.

mod keyword;

pub use keyword::*;
