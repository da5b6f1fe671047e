//! The Kafka client of the command line: `millpond topic|produce|consume|group|acl|config` against any broker.
//!
//! Not here: flags and what is printed (`command`). The server and the library do not use it; they hold the log
//! themselves. Bytes of record batches are the broker crate's (`millpond_broker::batch`), and answers are walked by
//! their shape before the codec sees them, as the broker walks requests.
//! Invariant: no answer, however damaged, panics or makes this allocate by a count that it carries.

pub mod apis;
pub mod client;
pub mod connection;
pub mod error;
pub mod fetch;
pub mod member;
pub mod metadata;
pub mod partitioner;
pub mod producer;
pub mod properties;
pub mod sasl;
pub mod settings;
pub mod tls;

pub use client::{Client, Lane, To};
pub use error::Error;
pub use settings::Settings;

use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}
