//! How a record is printed: its value, as JSON, in hexadecimal, or by a pattern such as `%t %p %o %k %s\n`.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use millpond_types::record::{Header, decode_headers};
use serde_json::{Map, Value as Json};

use crate::kafka::fetch::Record;

/// Of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    Headers,
}

#[derive(Clone, Debug)]
enum Shape {
    Pattern(Vec<Part>),
    Json,
    Hex,
}

pub struct Format {
    shape: Shape,
    null: Vec<u8>,
    /// Data must not be able to move the cursor of a terminal.
    escape: bool,
}

impl Format {
    /// `text`, `json`, `hex`, or a pattern.
    pub fn parse(text: &str, key_separator: Option<&str>, null: &str, terminal: bool) -> Result<Self> {
        let shape = match (text, key_separator) {
            ("json", None) => Shape::Json,
            ("hex", None) => Shape::Hex,
            ("text", None) => Shape::Pattern(vec![Part::Value, Part::Literal(b"\n".to_vec())]),
            ("text", Some(separator)) => Shape::Pattern(vec![
                Part::Key,
                Part::Literal(unescape(separator).context("--key-separator")?),
                Part::Value,
                Part::Literal(b"\n".to_vec()),
            ]),
            (_, Some(_)) => bail!("--key-separator is for --format text; a pattern has %k"),
            (pattern, None) if pattern.contains('%') => Shape::Pattern(pattern_of(pattern)?),
            (other, None) => bail!(
                "format \"{other}\" is not known; there are text, json, hex and patterns such as \"%t %p %o %k %s\\n\""
            ),
        };
        Ok(Self { shape, null: null.as_bytes().to_vec(), escape: terminal })
    }

    pub fn write(&self, record: &Record<'_>, out: &mut impl Write) -> io::Result<()> {
        match &self.shape {
            Shape::Json => {
                serde_json::to_writer(&mut *out, &json(record))?;
                out.write_all(b"\n")
            }
            Shape::Hex => self.hex(record, out),
            Shape::Pattern(parts) => parts.iter().try_for_each(|part| self.part(part, record, out)),
        }
    }

    fn part(&self, part: &Part, record: &Record<'_>, out: &mut impl Write) -> io::Result<()> {
        let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |b| b.len() as i64);
        match part {
            Part::Literal(bytes) => out.write_all(bytes),
            Part::Topic => out.write_all(record.topic.as_bytes()),
            Part::Partition => write!(out, "{}", record.partition),
            Part::Offset => write!(out, "{}", record.offset),
            Part::Timestamp => write!(out, "{}", record.timestamp),
            Part::Key => self.bytes(record.key, out),
            Part::KeyLength => write!(out, "{}", length(record.key)),
            Part::Value => self.bytes(record.value, out),
            Part::ValueLength => write!(out, "{}", length(record.value)),
            Part::Headers => {
                for (i, header) in headers(record).iter().enumerate() {
                    if i > 0 {
                        out.write_all(b",")?;
                    }
                    self.bytes(Some(header.key.as_bytes()), out)?;
                    out.write_all(b"=")?;
                    self.bytes(header.value.as_deref(), out)?;
                }
                Ok(())
            }
        }
    }

    fn bytes(&self, bytes: Option<&[u8]>, out: &mut impl Write) -> io::Result<()> {
        let Some(bytes) = bytes else { return out.write_all(&self.null) };
        if !self.escape || !bytes.iter().any(|b| b.is_ascii_control() && !matches!(b, b'\n' | b'\t')) {
            return out.write_all(bytes);
        }
        for c in String::from_utf8_lossy(bytes).chars() {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                write!(out, "{}", c.escape_default())?;
            } else {
                write!(out, "{c}")?;
            }
        }
        Ok(())
    }

    /// Key and value, with a blank between.
    fn hex(&self, record: &Record<'_>, out: &mut impl Write) -> io::Result<()> {
        for (bytes, after) in [(record.key, b" "), (record.value, b"\n")] {
            match bytes {
                None => out.write_all(&self.null)?,
                Some(bytes) => bytes.iter().try_for_each(|b| write!(out, "{b:02x}"))?,
            }
            out.write_all(after)?;
        }
        Ok(())
    }
}

fn headers(record: &Record<'_>) -> Vec<Header> {
    if record.headers.is_empty() { Vec::new() } else { decode_headers(record.headers).unwrap_or_default() }
}

/// Under its name as text, or with `_base64` where it is none.
fn put(fields: &mut Map<String, Json>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => fields.insert(name.to_string(), Json::Null),
        Some(Ok(text)) => fields.insert(name.to_string(), Json::from(text)),
        Some(Err(_)) => fields.insert(format!("{name}_base64"), Json::from(BASE64.encode(bytes.unwrap_or_default()))),
    };
}

fn json(record: &Record<'_>) -> Json {
    let mut fields = Map::new();
    fields.insert("topic".into(), Json::from(record.topic));
    fields.insert("partition".into(), Json::from(record.partition));
    fields.insert("offset".into(), Json::from(record.offset));
    fields.insert("timestamp".into(), Json::from(record.timestamp));
    put(&mut fields, "key", record.key);
    put(&mut fields, "value", record.value);
    let headers = headers(record);
    if !headers.is_empty() {
        let all = headers.iter().map(|header| {
            let mut one = Map::new();
            one.insert("key".into(), Json::from(header.key.as_str()));
            put(&mut one, "value", header.value.as_deref());
            Json::Object(one)
        });
        fields.insert("headers".into(), Json::Array(all.collect()));
    }
    Json::Object(fields)
}

fn pattern_of(text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('%') {
        if !literal.is_empty() {
            parts.push(Part::Literal(unescape(literal)?));
        }
        let mut chars = after.chars();
        parts.push(match chars.next() {
            Some('t') => Part::Topic,
            Some('p') => Part::Partition,
            Some('o') => Part::Offset,
            Some('T') => Part::Timestamp,
            Some('k') => Part::Key,
            Some('K') => Part::KeyLength,
            Some('s') => Part::Value,
            Some('S') => Part::ValueLength,
            Some('h') => Part::Headers,
            Some('%') => Part::Literal(b"%".to_vec()),
            other => bail!(
                "\"%{}\" in the pattern is not known; there are %t topic, %p partition, %o offset, %T time, %k key, \
                 %K its length, %s value, %S its length, %h headers and %%",
                other.map(String::from).unwrap_or_default()
            ),
        });
        rest = chars.as_str();
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(unescape(rest)?));
    }
    Ok(parts)
}

/// Text with `\n`, `\t`, `\r`, `\0`, `\\` and `\xHH`.
pub fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, after)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let mut chars = after.chars();
        match chars.next() {
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('r') => out.push(b'\r'),
            Some('0') => out.push(0),
            Some('\\') => out.push(b'\\'),
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                match u8::from_str_radix(&digits, 16) {
                    Ok(byte) => out.push(byte),
                    Err(_) => bail!("\"\\x{digits}\" is not a byte; expected two hexadecimal digits"),
                }
            }
            Some(other) => bail!("\"\\{other}\" is not known; there are \\n, \\t, \\r, \\0, \\\\ and \\xHH"),
            None => bail!("it ends with a backslash; a backslash itself is \\\\"),
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use millpond_types::record::encode_headers;

    use super::*;

    fn shown(format: &str, separator: Option<&str>, terminal: bool) -> String {
        let headers = encode_headers(&[
            Header { key: "a".into(), value: Some(b"1".to_vec()) },
            Header { key: "a".into(), value: None },
        ]);
        let record = Record {
            topic: "t",
            partition: 3,
            offset: 7,
            timestamp: 1000,
            key: None,
            value: Some(b"v\x1b[2J"),
            headers: &headers,
        };
        let mut out = Vec::new();
        Format::parse(format, separator, "NULL", terminal).unwrap().write(&record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn forms() {
        assert_eq!(shown("%t|%p|%o|%T|%k|%K|%S|%h|100%%\\n", None, false), "t|3|7|1000|NULL|-1|5|a=1,a=NULL|100%\n");
        assert_eq!(shown("text", Some("\\t"), false), "NULL\tv\x1b[2J\n");
        assert_eq!(shown("text", None, true), "v\\u{1b}[2J\n");
        assert_eq!(shown("hex", None, false), "NULL 761b5b324a\n");
        let json: Json = serde_json::from_str(&shown("json", None, false)).unwrap();
        assert_eq!(json["value"], "v\x1b[2J");
        assert_eq!(json["headers"][1], serde_json::json!({"key": "a", "value": null}));
        for wrong in ["xml", "%q", "%", "%s\\", "%s\\q", "%s\\xZZ"] {
            assert!(Format::parse(wrong, None, "", false).is_err(), "{wrong}");
        }
    }
}
