//! What queries remember: keys, values, the view a step works on, and the results that pull queries read.
//!
//! Not here: what operators mean by their entries (`ops`), storage itself (the ports in `types`).
//! Invariants: committed state is changed only by the write of a step; every key that a step touched is in its write;
//! nothing but the read cache outlives a step in memory.

pub mod cells;
pub mod key;
pub mod points;
pub mod row;
pub mod shards;
pub mod table;
pub mod view;

pub use key::query_range;
