//! Walks a message's bytes by its shape before the codec sees them: requests here, answers in the command's client.
//!
//! The codec reserves memory for an array by the count on the wire, so that twenty bytes could ask for all memory there
//! is and abort the process. What passes here has all the elements that its counts promise, no more of them than
//! `elements_max` in all, and no length past its end; decoding it then allocates in proportion to what was checked.
//!
//! Invariant: every byte is read here as the codec reads it, or refused. Where the codec is lax (varints that are too
//! long, a known tagged field of another length than it says) this is strict, so that the two cannot part ways.

use super::Error;

/// Versions of a request that has no flexible form.
pub const NEVER: i16 = i16::MAX;

pub struct Shape {
    /// First version with compact lengths and tagged fields.
    pub flexible: i16,
    pub(super) fields: &'static [Field],
}

pub struct Field {
    name: &'static str,
    pub(super) kind: Kind,
    since: i16,
    until: i16,
    pub(super) tag: Option<u32>,
}

#[derive(Clone, Copy)]
pub enum Kind {
    Fixed(usize),
    Text,
    Blob,
    List(&'static [Field]),
    One(&'static [Field]),
    /// One byte before it says whether it is there.
    Option(&'static [Field]),
    ListOf(&'static Kind),
}

pub const BOOL: Kind = Kind::Fixed(1);
pub const I8: Kind = Kind::Fixed(1);
pub const I16: Kind = Kind::Fixed(2);
pub const I32: Kind = Kind::Fixed(4);
pub const I64: Kind = Kind::Fixed(8);
pub const UUID: Kind = Kind::Fixed(16);
pub const TEXT: Kind = Kind::Text;
pub const BLOB: Kind = Kind::Blob;

pub const fn shape(flexible: i16, fields: &'static [Field]) -> Shape {
    Shape { flexible, fields }
}

pub const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, since: 0, until: i16::MAX, tag: None }
}

pub const fn list(name: &'static str, fields: &'static [Field]) -> Field {
    field(name, Kind::List(fields))
}

/// A struct by itself.
pub const fn one(name: &'static str, fields: &'static [Field]) -> Field {
    field(name, Kind::One(fields))
}

pub const fn option(name: &'static str, fields: &'static [Field]) -> Field {
    field(name, Kind::Option(fields))
}

pub const fn list_of(name: &'static str, kind: &'static Kind) -> Field {
    field(name, Kind::ListOf(kind))
}

impl Field {
    pub const fn since(self, version: i16) -> Self {
        Self { since: version, ..self }
    }

    pub const fn until(self, version: i16) -> Self {
        Self { until: version, ..self }
    }

    /// Sent among the tagged fields, under this number.
    pub const fn tag(self, tag: u32) -> Self {
        Self { tag: Some(tag), ..self }
    }

    pub(super) const fn has(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }
}

impl Shape {
    /// Accepts a body that the codec can decode without allocating for more than `elements_max` array elements and tagged
    /// fields in all. Bytes past the end of the shape are left alone, as Kafka leaves them.
    pub fn check(&self, version: i16, body: &[u8], elements_max: usize) -> Result<(), Error> {
        let mut walk = Walk { rest: body, version, flexible: version >= self.flexible, elements_left: elements_max };
        walk.fields(self.fields)
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements_left: usize,
}

/// Bytes of one text in a message, in every version.
const TEXT_BYTES_MAX: usize = i16::MAX as usize;

impl Walk<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), Error> {
        let version = self.version;
        for field in fields.iter().filter(|f| f.tag.is_none() && f.has(version)) {
            self.kind(field.name, field.kind)?;
        }
        if self.flexible { self.tagged_fields(fields) } else { Ok(()) }
    }

    fn kind(&mut self, name: &'static str, kind: Kind) -> Result<(), Error> {
        match kind {
            Kind::Fixed(len) => self.skip(name, len),
            Kind::Text => {
                let len = if self.flexible { self.compact_len(name)? } else { self.short_len(name)? };
                let len = len.unwrap_or(0);
                // As Kafka: what is kept under a name stays small, however its length is written.
                if len > TEXT_BYTES_MAX {
                    return Err(Error::malformed(format!(
                        "\"{name}\" has {len} bytes; a text may have {TEXT_BYTES_MAX}"
                    )));
                }
                self.skip(name, len)
            }
            Kind::Blob => {
                let len = if self.flexible { self.compact_len(name)? } else { self.long_len(name)? };
                self.skip(name, len.unwrap_or(0))
            }
            Kind::List(fields) => {
                for _ in 0..self.count(name)? {
                    self.fields(fields)?;
                }
                Ok(())
            }
            Kind::One(fields) => self.fields(fields),
            Kind::Option(fields) => match self.take::<1>(name)? {
                [1] => self.fields(fields),
                [0xff] => Ok(()),
                [other] => {
                    Err(Error::malformed(format!("\"{name}\" begins with {other}, which is neither there nor not")))
                }
            },
            Kind::ListOf(kind) => {
                for _ in 0..self.count(name)? {
                    self.kind(name, *kind)?;
                }
                Ok(())
            }
        }
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), Error> {
        let count = self.varint("tagged fields")? as usize;
        self.charge("tagged fields", count)?;
        for _ in 0..count {
            let tag = self.varint("tag")?;
            let len = self.varint("tagged field")? as usize;
            let before = self.rest.len();
            match fields.iter().find(|f| f.tag == Some(tag) && f.has(self.version)) {
                None => self.skip("tagged field", len)?,
                Some(field) => {
                    self.kind(field.name, field.kind)?;
                    if before - self.rest.len() != len {
                        return Err(Error::malformed(format!(
                            "tagged field \"{}\" is not as long as it says",
                            field.name
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// How many elements the array that begins here has; they are charged to the budget.
    fn count(&mut self, name: &'static str) -> Result<usize, Error> {
        let count = if self.flexible { self.compact_len(name)? } else { self.long_len(name)? }.unwrap_or(0);
        self.charge(name, count)?;
        Ok(count)
    }

    fn charge(&mut self, name: &'static str, count: usize) -> Result<(), Error> {
        // Every element takes at least a byte.
        if count > self.rest.len() {
            let rest = self.rest.len();
            return Err(Error::malformed(format!("\"{name}\" claims {count} elements with {rest} bytes left")));
        }
        match self.elements_left.checked_sub(count) {
            Some(left) => self.elements_left = left,
            None => return Err(Error::malformed("it has more elements than \"request_elements_max\" allows")),
        }
        Ok(())
    }

    fn compact_len(&mut self, name: &'static str) -> Result<Option<usize>, Error> {
        Ok(self.varint(name)?.checked_sub(1).map(|n| n as usize))
    }

    fn short_len(&mut self, name: &'static str) -> Result<Option<usize>, Error> {
        let bytes = self.take::<2>(name)?;
        non_negative(name, i16::from_be_bytes(bytes).into())
    }

    fn long_len(&mut self, name: &'static str) -> Result<Option<usize>, Error> {
        let bytes = self.take::<4>(name)?;
        non_negative(name, i32::from_be_bytes(bytes))
    }

    fn varint(&mut self, name: &'static str) -> Result<u32, Error> {
        let mut value = 0u32;
        for i in 0..5 {
            let [byte] = self.take::<1>(name)?;
            if i == 4 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::malformed(format!("the varint at \"{name}\" does not fit 32 bits")))
    }

    fn take<const N: usize>(&mut self, name: &'static str) -> Result<[u8; N], Error> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| cut_short(name))?;
        self.rest = rest;
        Ok(*head)
    }

    fn skip(&mut self, name: &'static str, len: usize) -> Result<(), Error> {
        self.rest = self.rest.get(len..).ok_or_else(|| cut_short(name))?;
        Ok(())
    }
}

fn non_negative(name: &'static str, len: i32) -> Result<Option<usize>, Error> {
    match len {
        -1 => Ok(None),
        len => usize::try_from(len).map(Some).map_err(|_| Error::malformed(format!("\"{name}\" has the length {len}"))),
    }
}

fn cut_short(name: &'static str) -> Error {
    Error::malformed(format!("it ends within \"{name}\""))
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::{ApiKey, RequestKind};

    use super::*;
    use crate::api::APIS;
    use crate::wire::sample::{Random, write};
    use crate::wire::shapes::*;

    const ELEMENTS_MAX: usize = 1000;

    /// What the walk takes for a request of this shape is what the codec takes for one, to the byte: every API in every
    /// version that is answered.
    #[test]
    fn shapes_are_the_codecs() {
        let mut random = Random::seeded();
        for api in APIS {
            let key = ApiKey::try_from(api.key).unwrap();
            for version in api.min..=api.max {
                let what = format!("{} v{version}", api.name);
                let codec = key.valid_versions();
                assert!(codec.min <= version && version <= codec.max, "{what} is not the codec's");
                for _ in 0..60 {
                    let mut body = Vec::new();
                    write(api.shape.fields, version, version >= api.shape.flexible, &mut random, &mut body);
                    api.shape.check(version, &body, ELEMENTS_MAX).unwrap_or_else(|e| panic!("{what}: {e}"));
                    let mut bytes = Bytes::from(body.clone());
                    let read = RequestKind::decode(key, &mut bytes, version)
                        .unwrap_or_else(|e| panic!("{what}: {e}: {body:?}"));
                    assert!(bytes.is_empty(), "{what}: the codec leaves {} bytes", bytes.len());
                    // And what the codec writes is what the walk takes.
                    let mut written = BytesMut::new();
                    read.encode(&mut written, version).unwrap_or_else(|e| panic!("{what}: {e}: {read:?}"));
                    api.shape.check(version, &written, ELEMENTS_MAX).unwrap_or_else(|e| panic!("{what}: {e}"));
                    let again = RequestKind::decode(key, &mut written.freeze(), version).unwrap();
                    // By how they are shown: a quota that is not a number is not equal to itself.
                    assert_eq!(format!("{again:?}"), format!("{read:?}"), "{what}");
                    if let Some((_, cut)) = body.split_last() {
                        assert!(api.shape.check(version, cut, ELEMENTS_MAX).is_err(), "{what} cut short");
                    }
                }
            }
        }
    }

    /// What the walk lets pass after some bytes were changed, the codec reads to the same place or refuses.
    #[test]
    fn damage_is_read_as_the_codec_reads_it() {
        let mut random = Random::seeded();
        for api in APIS {
            let key = ApiKey::try_from(api.key).unwrap();
            let mut passed = 0;
            for version in api.min..=api.max {
                for _ in 0..200 {
                    let flexible = version >= api.shape.flexible;
                    let mut body = Vec::new();
                    write(api.shape.fields, version, flexible, &mut random, &mut body);
                    for _ in 0..=random.below(2) {
                        if let Some(at) = (!body.is_empty()).then(|| random.below(body.len() as u64) as usize) {
                            body[at] = random.next() as u8;
                        }
                    }
                    let mut walk = Walk { rest: &body, version, flexible, elements_left: ELEMENTS_MAX };
                    if walk.fields(api.shape.fields).is_err() {
                        continue;
                    }
                    passed += 1;
                    let left = walk.rest.len();
                    let mut bytes = Bytes::from(body.clone());
                    if RequestKind::decode(key, &mut bytes, version).is_ok() {
                        assert_eq!(bytes.len(), left, "{} v{version}: {body:?}", api.name);
                    }
                }
            }
            assert!(passed > 0, "{}", api.name);
        }
    }

    #[test]
    fn counts_are_held_against_what_is_there() {
        let claims = |count: i32| METADATA.check(1, &count.to_be_bytes(), ELEMENTS_MAX);
        assert!(claims(0).is_ok());
        assert!(claims(-1).is_ok());
        assert!(claims(i32::MAX).is_err());
        assert!(claims(i32::MIN).is_err());
        let mut many = 1001i32.to_be_bytes().to_vec();
        many.extend([0; 2002]);
        assert!(METADATA.check(1, &many, 1001).is_ok());
        assert!(METADATA.check(1, &many, 1000).is_err());
    }

    #[test]
    fn a_known_tagged_field_is_as_long_as_it_says() {
        let mut body = Vec::new();
        write(FETCH.fields, 12, true, &mut Random(1), &mut body);
        let cluster = body.len() - 4;
        assert_eq!(&body[cluster..], &[99, 2, 7, 7]);
        let mut body = vec![0; 25];
        body.extend([1, 1, 1, 1, 0, 5, 2, b'x', 0, 0, 0]);
        assert!(FETCH.check(12, &body, ELEMENTS_MAX).is_err());
    }
}
