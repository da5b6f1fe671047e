//! What members of type "consumer" say when they join, and are told when they sync. Everything else about groups keeps
//! these bytes opaque.
//!
//! ```text
//! subscription = i16 version │ topics │ bytes user data │ from v1: partitions owned │ from v2: i32 generation
//!                │ from v3: str rack
//! assignment   = i16 version │ partitions │ bytes user data
//! topics       = i32 n │ n × str          partitions = i32 n │ n × (str topic │ i32 m │ m × i32)
//! str = i16 length (-1: null) │ bytes     bytes = i32 length (-1: null) │ bytes
//! ```
//! Later versions put more at the end.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Subscription<'a> {
    pub topics: Vec<&'a str>,
    pub owned: Vec<(&'a str, Vec<i32>)>,
    pub rack: Option<&'a str>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn i16(&mut self) -> Option<i16> {
        self.number().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.number().map(i32::from_be_bytes)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// Outer `None`: damaged; inner: null.
    fn text(&mut self) -> Option<Option<&'a str>> {
        match self.i16()? {
            -1 => Some(None),
            length => std::str::from_utf8(self.take(usize::try_from(length).ok()?)?).ok().map(Some),
        }
    }

    fn skip_bytes(&mut self) -> Option<()> {
        match self.i32()? {
            -1 => Some(()),
            length => self.take(usize::try_from(length).ok()?).map(drop),
        }
    }

    /// As many as are said to be there; each takes at least `size` bytes, so that no more is reserved than that.
    fn list<T>(&mut self, size: usize, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.i32()?).ok()?;
        let mut out = Vec::with_capacity(count.min(self.0.len() / size));
        for _ in 0..count {
            out.push(one(self)?);
        }
        Some(out)
    }

    fn partitions(&mut self) -> Option<Vec<(&'a str, Vec<i32>)>> {
        self.list(6, |r| Some((r.text()??, r.list(4, Self::i32)?)))
    }
}

/// `None`: not what a consumer sends.
pub(super) fn parse(metadata: &[u8]) -> Option<Subscription<'_>> {
    let mut r = Reader(metadata);
    let version = r.i16()?;
    let mut out = Subscription { topics: r.list(2, |r| r.text()?)?, ..Subscription::default() };
    r.skip_bytes()?;
    if version >= 1 {
        out.owned = r.partitions()?;
    }
    if version >= 2 {
        r.i32()?;
    }
    if version >= 3 {
        out.rack = r.text()?.filter(|rack| !rack.is_empty());
    }
    Some(out)
}

/// The topics alone, of which something can be said even where the rest cannot be read.
pub(super) fn topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let mut r = Reader(metadata);
    r.i16()?;
    r.list(2, |r| r.text()?)
}

pub(super) fn assignment(bytes: &[u8]) -> Option<Vec<(&str, Vec<i32>)>> {
    let mut r = Reader(bytes);
    r.i16()?;
    r.partitions()
}

pub(super) fn encode_assignment<'a>(topics: impl Iterator<Item = (&'a str, &'a BTreeSet<i32>)>) -> Bytes {
    let topics: Vec<_> = topics.collect();
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for (name, indexes) in topics {
        // Names of topics have at most 249 bytes.
        out.put_i16(name.len() as i16);
        out.put_slice(name.as_bytes());
        out.put_i32(indexes.len() as i32);
        indexes.iter().for_each(|index| out.put_i32(*index));
    }
    out.put_i32(-1);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_of_all_versions() {
        let mut bytes = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff".to_vec();
        assert_eq!(topics(&bytes), Some(vec!["a", "bc"]));
        assert_eq!(parse(&bytes), None, "version 3 has more");
        bytes.extend(b"\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x07\0\0\0\x05\0\x01r");
        let owned = vec![("a", vec![0, 7])];
        assert_eq!(parse(&bytes), Some(Subscription { topics: vec!["a", "bc"], owned, rack: Some("r") }));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None);
        }
        bytes[1] = 0;
        assert_eq!(parse(&bytes).map(|s| (s.topics.len(), s.owned.len())), Some((2, 0)));
        assert_eq!(topics(b"\0\x01\x7f\xff\xff\xff\0\x01a"), None);
        assert_eq!(topics(b""), None);
    }

    #[test]
    fn assignments_survive_the_round_trip() {
        let indexes = BTreeSet::from([1, 4]);
        let bytes = encode_assignment([("t", &indexes)].into_iter());
        assert_eq!(assignment(&bytes), Some(vec![("t", vec![1, 4])]));
        assert_eq!(bytes.last_chunk::<4>(), Some(&[255; 4]));
    }
}
