//! The embedded storage as its callers see it.

mod crash;
mod directory;
mod fixture;
mod model;
mod storage;
