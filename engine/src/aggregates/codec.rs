//! States and values as bytes.
//!
//! ```text
//! state := version(1) tag(1) body
//!   1 I64: i64        2 F64: bits u64     3 I128: i128      4 Moments: i64, 5 x f64 bits
//!   5 Value: value    6 Seen: 0 | 1 value 7 Values: n, n x value
//!   8 Counts: n, n x (value, i64)         9 Distinct: sketch                10 Bytes: the rest
//!   11 Sum: i128, i64
//! value := 0 NULL | 1 false | 2 true | 3 i32 | 4 i64 | 5 f64 | 6 precision scale i128 | 7 text | 8 bytes | 9 days i32
//!   | 10 ms i32 | 11 ms i64 | 12 ARRAY n, values | 13 MAP n, (value, value) | 14 STRUCT n, (text, value)
//! text, bytes := length u32, bytes. Numbers are little-endian.
//! ```
//! Retired tags: none.

use millpond_types::{Error, Result, Value};

use super::distinct::Sketch;
use super::{Moments, State};

const VERSION: u8 = 1;
/// Nesting that a value may have; a schema cannot nest as deep.
const DEPTH_MAX: usize = 64;

pub fn encode_state(state: &State, out: &mut Vec<u8>) {
    out.push(VERSION);
    match state {
        State::I64(v) => {
            out.push(1);
            out.extend_from_slice(&v.to_le_bytes());
        }
        State::F64(v) => {
            out.push(2);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        State::I128(v) => {
            out.push(3);
            out.extend_from_slice(&v.to_le_bytes());
        }
        State::Moments(m) => {
            out.push(4);
            out.extend_from_slice(&m.count.to_le_bytes());
            for v in [m.sum_x, m.sum_y, m.sum_xx, m.sum_yy, m.sum_xy] {
                out.extend_from_slice(&v.to_bits().to_le_bytes());
            }
        }
        State::Value(v) => {
            out.push(5);
            encode_value(v, out);
        }
        State::Seen(v) => {
            out.push(6);
            out.push(u8::from(v.is_some()));
            if let Some(v) = v {
                encode_value(v, out);
            }
        }
        State::Values(values) => {
            out.push(7);
            length(values.len(), out);
            values.iter().for_each(|v| encode_value(v, out));
        }
        State::Counts(counts) => {
            out.push(8);
            length(counts.len(), out);
            for (value, count) in counts {
                encode_value(value, out);
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
        State::Distinct(sketch) => {
            out.push(9);
            sketch.encode(out);
        }
        State::Sum { sum, count } => {
            out.push(11);
            out.extend_from_slice(&sum.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        }
        State::Bytes(bytes) => {
            out.push(10);
            out.extend_from_slice(bytes);
        }
    }
}

fn length(n: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(n as u32).to_le_bytes());
}

fn bytes(b: &[u8], out: &mut Vec<u8>) {
    length(b.len(), out);
    out.extend_from_slice(b);
}

/// Appends a value's bytes.
pub fn encode_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0),
        Value::Boolean(false) => out.push(1),
        Value::Boolean(true) => out.push(2),
        Value::Integer(v) => {
            out.push(3);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::BigInt(v) => {
            out.push(4);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Double(v) => {
            out.push(5);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        Value::Decimal { unscaled, precision, scale } => {
            out.extend_from_slice(&[6, *precision, *scale]);
            out.extend_from_slice(&unscaled.to_le_bytes());
        }
        Value::String(v) => {
            out.push(7);
            bytes(v.as_bytes(), out);
        }
        Value::Bytes(v) => {
            out.push(8);
            bytes(v, out);
        }
        Value::Date(v) => {
            out.push(9);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Time(v) => {
            out.push(10);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Timestamp(v) => {
            out.push(11);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Array(items) => {
            out.push(12);
            length(items.len(), out);
            items.iter().for_each(|v| encode_value(v, out));
        }
        Value::Map(entries) => {
            out.push(13);
            length(entries.len(), out);
            for (k, v) in entries {
                encode_value(k, out);
                encode_value(v, out);
            }
        }
        Value::Struct(fields) => {
            out.push(14);
            length(fields.len(), out);
            for (name, v) in fields {
                bytes(name.as_bytes(), out);
                encode_value(v, out);
            }
        }
    }
}

/// Bytes that are read from the front.
pub struct Reader<'a>(pub &'a [u8]);

fn corrupt() -> Error {
    Error::corrupt("an aggregate's state is damaged")
}

impl<'a> Reader<'a> {
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or_else(corrupt)?;
        self.0 = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| corrupt())
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn f64(&mut self) -> Result<f64> {
        self.array().map(u64::from_le_bytes).map(f64::from_bits)
    }

    /// A count of things of at least one byte each, so not more than bytes are left.
    pub fn count(&mut self) -> Result<usize> {
        let n = self.array().map(u32::from_le_bytes)? as usize;
        if n <= self.0.len() { Ok(n) } else { Err(corrupt()) }
    }

    fn text(&mut self) -> Result<String> {
        let n = self.count()?;
        std::str::from_utf8(self.take(n)?).map(str::to_owned).map_err(|_| corrupt())
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > DEPTH_MAX {
            return Err(corrupt());
        }
        Ok(match self.byte()? {
            0 => Value::Null,
            1 => Value::Boolean(false),
            2 => Value::Boolean(true),
            3 => Value::Integer(self.array().map(i32::from_le_bytes)?),
            4 => Value::BigInt(self.i64()?),
            5 => Value::Double(self.f64()?),
            6 => {
                let [precision, scale] = self.array()?;
                Value::Decimal { unscaled: self.array().map(i128::from_le_bytes)?, precision, scale }
            }
            7 => Value::String(self.text()?),
            8 => {
                let n = self.count()?;
                Value::Bytes(self.take(n)?.to_vec())
            }
            9 => Value::Date(self.array().map(i32::from_le_bytes)?),
            10 => Value::Time(self.array().map(i32::from_le_bytes)?),
            11 => Value::Timestamp(self.i64()?),
            12 => {
                let n = self.count()?;
                Value::Array((0..n).map(|_| self.value(depth + 1)).collect::<Result<_>>()?)
            }
            13 => {
                let n = self.count()?;
                let entry = |r: &mut Self| Ok((r.value(depth + 1)?, r.value(depth + 1)?));
                Value::Map((0..n).map(|_| entry(self)).collect::<Result<_>>()?)
            }
            14 => {
                let n = self.count()?;
                let field = |r: &mut Self| Ok((r.text()?, r.value(depth + 1)?));
                Value::Struct((0..n).map(|_| field(self)).collect::<Result<_>>()?)
            }
            _ => return Err(corrupt()),
        })
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(corrupt()) }
    }
}

/// The value of `encode_value`'s bytes, which must be all of it.
pub fn decode_value(bytes: &[u8]) -> Result<Value> {
    let mut reader = Reader(bytes);
    let value = reader.value(0)?;
    reader.end()?;
    Ok(value)
}

pub fn decode_state(bytes: &[u8]) -> Result<State> {
    let mut r = Reader(bytes);
    let version = r.byte()?;
    if version != VERSION {
        return Err(Error::corrupt(format!("an aggregate's state has version {version}, which is not known")));
    }
    let state = match r.byte()? {
        1 => State::I64(r.i64()?),
        2 => State::F64(r.f64()?),
        3 => State::I128(r.array().map(i128::from_le_bytes)?),
        4 => State::Moments(Moments {
            count: r.i64()?,
            sum_x: r.f64()?,
            sum_y: r.f64()?,
            sum_xx: r.f64()?,
            sum_yy: r.f64()?,
            sum_xy: r.f64()?,
        }),
        5 => State::Value(r.value(0)?),
        6 => match r.byte()? {
            0 => State::Seen(None),
            1 => State::Seen(Some(r.value(0)?)),
            _ => return Err(corrupt()),
        },
        7 => {
            let n = r.count()?;
            State::Values((0..n).map(|_| r.value(0)).collect::<Result<_>>()?)
        }
        8 => {
            let n = r.count()?;
            State::Counts((0..n).map(|_| Ok((r.value(0)?, r.i64()?))).collect::<Result<_>>()?)
        }
        9 => State::Distinct(Box::new(Sketch::decode(&mut r)?)),
        10 => {
            let rest = r.0.len();
            State::Bytes(r.take(rest)?.to_vec())
        }
        11 => State::Sum { sum: r.array().map(i128::from_le_bytes)?, count: r.i64()? },
        _ => return Err(corrupt()),
    };
    r.end()?;
    Ok(state)
}
