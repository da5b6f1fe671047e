//! Strings on their way to the codec.

use kafka_protocol::protocol::StrBytes;

/// The codec's string of one of ours.
pub fn text<T>(s: &str) -> T
where
    T: From<StrBytes>,
{
    StrBytes::from_string(s.to_owned()).into()
}
