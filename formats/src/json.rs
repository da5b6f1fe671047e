//! JSON: the byte scanner, decoding into columns, encoding from columns, and a tree with exact numbers for everything
//! that is not the data path.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod members;
pub(crate) mod scan;
mod tree;

pub use encode::write_json_string;
pub use tree::{Comments, Json};
