//! Random bytes of a shape: the opposite of the walk, for tests that hold shapes against the codec.

use super::shape::{Field, Kind, Shape};

/// Small, fast, and the same for the same seed.
pub struct Random(pub u64);

impl Random {
    /// From MILLPOND_SEED, else from anywhere; says which.
    #[cfg(test)]
    pub fn seeded() -> Self {
        let given = std::env::var("MILLPOND_SEED").ok().map(|seed| seed.parse().expect("MILLPOND_SEED is a number"));
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        println!("MILLPOND_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl Shape {
    /// A message of this shape with every field, some elements in each array, and a tagged field that nobody knows.
    pub fn sample(&self, version: i16, seed: &mut u64) -> Vec<u8> {
        let mut random = Random(*seed);
        let mut out = Vec::new();
        write(self.fields, version, version >= self.flexible, &mut random, &mut out);
        *seed = random.0;
        out
    }
}

pub fn write(fields: &[Field], version: i16, flexible: bool, random: &mut Random, out: &mut Vec<u8>) {
    for field in fields.iter().filter(|f| f.tag.is_none() && f.has(version)) {
        write_kind(field.kind, version, flexible, random, out);
    }
    if flexible {
        let tagged: Vec<_> = fields.iter().filter(|f| f.tag.is_some() && f.has(version)).collect();
        out.push(tagged.len() as u8 + 1);
        for field in tagged {
            let mut content = Vec::new();
            write_kind(field.kind, version, flexible, random, &mut content);
            put_varint(field.tag.unwrap_or_default(), out);
            put_varint(content.len() as u32, out);
            out.extend(content);
        }
        out.extend([99, 2, 7, 7]);
    }
}

fn put_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_kind(kind: Kind, version: i16, flexible: bool, random: &mut Random, out: &mut Vec<u8>) {
    let len = |bytes: usize, len: u64, out: &mut Vec<u8>| match (flexible, bytes) {
        (true, _) => out.push(len as u8 + 1),
        (false, 2) => out.extend((len as u16).to_be_bytes()),
        (false, _) => out.extend((len as u32).to_be_bytes()),
    };
    match kind {
        Kind::Fixed(n) => out.extend((0..n).map(|_| random.next() as u8)),
        Kind::Text | Kind::Blob => {
            let n = random.below(20);
            len(if matches!(kind, Kind::Text) { 2 } else { 4 }, n, out);
            out.extend((0..n).map(|_| b'a' + random.below(26) as u8));
        }
        Kind::List(fields) => {
            let n = random.below(4);
            len(4, n, out);
            (0..n).for_each(|_| write(fields, version, flexible, random, out));
        }
        Kind::One(fields) => write(fields, version, flexible, random, out),
        Kind::Option(fields) => {
            let there = random.below(2) == 1;
            out.push(if there { 1 } else { 0xff });
            if there {
                write(fields, version, flexible, random, out);
            }
        }
        Kind::ListOf(kind) => {
            let n = random.below(4);
            len(4, n, out);
            (0..n).for_each(|_| write_kind(*kind, version, flexible, random, out));
        }
    }
}
