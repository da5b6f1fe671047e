//! Topics out of the metadata that members of type "consumer" join with. Everything else about it stays opaque.
//!
//! ```text
//! i16 version │ i32 count │ count × i16-string topic │ ...
//! ```

/// The topics, or `None` where the bytes are not what a consumer sends.
pub(super) fn topics(mut metadata: &[u8]) -> Option<Vec<&str>> {
    fn number<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
        let (head, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(head)
    }
    number::<2>(&mut metadata)?;
    let count = usize::try_from(i32::from_be_bytes(*number::<4>(&mut metadata)?)).ok()?;
    let mut topics = Vec::with_capacity(count.min(metadata.len() / 2));
    for _ in 0..count {
        let length = usize::try_from(i16::from_be_bytes(*number::<2>(&mut metadata)?)).ok()?;
        let (topic, rest) = metadata.split_at_checked(length)?;
        metadata = rest;
        topics.push(std::str::from_utf8(topic).ok()?);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::topics;

    #[test]
    fn topics_of_a_subscription() {
        assert_eq!(topics(b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff"), Some(vec!["a", "bc"]));
        assert_eq!(topics(b"\0\x01\x7f\xff\xff\xff\0\x01a"), None);
        assert_eq!(topics(b""), None);
    }
}
