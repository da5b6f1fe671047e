//! A JSON value as a tree that keeps number literals and the order of members. For statements, requests and test files;
//! records on the data path never become trees.

use std::collections::HashMap;
use std::fmt;

use millpond_types::{Error, Result};

use super::encode::write_json_string;
use super::scan::{Cursor, DEPTH_MAX, Scan, fail, unescape};
use crate::number::{into_string, write_literal_as_java};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    /// The literal as it stands in the text.
    Number(String),
    String(String),
    Array(Vec<Json>),
    /// Members in order, each name once: of several with one name the last value stands in the first one's place.
    Object(Vec<(String, Json)>),
}

/// Whether `/* */` and `//` may stand between tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comments {
    Allowed,
    Refused,
}

/// Objects with more members than this find repeated names by hash.
const SCANNED_MAX: usize = 16;

impl Json {
    /// Reads one value; anything but white space after it is an error.
    pub fn parse(text: &str, comments: Comments) -> Result<Self> {
        let mut parser = Parser { cursor: Cursor::new(text.as_bytes()), comments };
        let result = parser.value(0).and_then(|json| match parser.next()? {
            None => Ok(json),
            Some(_) => parser.cursor.unexpected("nothing after the value"),
        });
        result.map_err(|failure| {
            let before = text.get(..failure.at.min(text.len())).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            Error::bad_request(format!("not valid JSON: {} at line {line} column {column}", failure.message))
        })
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// A whole number that fits; `1.0` is not one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(literal) => literal.parse().ok(),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&[(String, Json)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.as_object()?.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// Appends compact JSON; numbers as they were read.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_with(out, &|out, literal| out.extend_from_slice(literal));
    }

    /// As [`Self::write`], but numbers with a point or exponent as Java's `BigDecimal.toString` has them.
    pub fn write_as_java(&self, out: &mut Vec<u8>) {
        self.write_with(out, &write_literal_as_java);
    }

    fn write_with(&self, out: &mut Vec<u8>, number: &dyn Fn(&mut Vec<u8>, &[u8])) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(literal) => number(out, literal.as_bytes()),
            Self::String(text) => write_json_string(out, text.as_bytes()),
            Self::Array(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write_with(out, number);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_json_string(out, name.as_bytes());
                    out.push(b':');
                    value.write_with(out, number);
                }
                out.push(b'}');
            }
        }
    }
}

/// Compact JSON.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        self.write(&mut out);
        f.write_str(&into_string(out))
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    comments: Comments,
}

impl Parser<'_> {
    /// The next byte after white space and comments.
    fn next(&mut self) -> Scan<Option<u8>> {
        loop {
            let next = self.cursor.next();
            if next != Some(b'/') || self.comments == Comments::Refused {
                return Ok(next);
            }
            let rest = &self.cursor.bytes[self.cursor.pos..];
            let len = match rest.get(1) {
                Some(b'/') => memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
                Some(b'*') => match memchr::memmem::find(&rest[2..], b"*/") {
                    Some(end) => end + 4,
                    None => return fail(self.cursor.pos, "a comment that does not end"),
                },
                _ => return self.cursor.unexpected("a JSON value"),
            };
            self.cursor.pos += len;
        }
    }

    fn value(&mut self, depth: usize) -> Scan<Json> {
        if depth > DEPTH_MAX {
            return fail(self.cursor.pos, format!("nested deeper than {DEPTH_MAX} levels"));
        }
        Ok(match self.next()? {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Json::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Json::Number(String::from_utf8_lossy(self.cursor.number()?.text).into_owned()),
            Some(b't') => self.cursor.word(b"true").map(|()| Json::Bool(true))?,
            Some(b'f') => self.cursor.word(b"false").map(|()| Json::Bool(false))?,
            Some(b'n') => self.cursor.word(b"null").map(|()| Json::Null)?,
            _ => return self.cursor.unexpected("a JSON value"),
        })
    }

    fn string(&mut self) -> Scan<String> {
        let (raw, escaped) = self.cursor.raw_string()?;
        if !escaped {
            return Ok(String::from_utf8_lossy(raw).into_owned());
        }
        let mut plain = Vec::with_capacity(raw.len());
        unescape(&mut plain, raw);
        Ok(into_string(plain))
    }

    fn array(&mut self, depth: usize) -> Scan<Json> {
        self.cursor.pos += 1;
        let mut items = Vec::new();
        if self.next()? != Some(b']') {
            loop {
                items.push(self.value(depth + 1)?);
                match self.next()? {
                    Some(b',') => self.cursor.pos += 1,
                    Some(b']') => break,
                    _ => return self.cursor.unexpected("',' or ']'"),
                }
            }
        }
        self.cursor.pos += 1;
        Ok(Json::Array(items))
    }

    fn object(&mut self, depth: usize) -> Scan<Json> {
        self.cursor.pos += 1;
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        if self.next()? != Some(b'}') {
            loop {
                if self.next()? != Some(b'"') {
                    return self.cursor.unexpected("a member name");
                }
                let name = self.string()?;
                if self.next()? != Some(b':') {
                    return self.cursor.unexpected("':'");
                }
                self.cursor.pos += 1;
                let value = self.value(depth + 1)?;
                if places.is_empty() && members.len() > SCANNED_MAX {
                    places = members.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
                }
                let before = if places.is_empty() {
                    members.iter().position(|(n, _)| *n == name)
                } else {
                    places.get(&name).copied()
                };
                match before {
                    Some(place) => members[place].1 = value,
                    None => {
                        if !places.is_empty() {
                            places.insert(name.clone(), members.len());
                        }
                        members.push((name, value));
                    }
                }
                match self.next()? {
                    Some(b',') => self.cursor.pos += 1,
                    Some(b'}') => break,
                    _ => return self.cursor.unexpected("',' or '}'"),
                }
            }
        }
        self.cursor.pos += 1;
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_order_are_kept() {
        let text = r#" {"b": [12.30, 1E+2, -0], "a": {"x": null, "y": "\u0041\n"}, "b": true} "#;
        let json = Json::parse(text, Comments::Refused).unwrap();
        assert_eq!(json.to_string(), r#"{"b":true,"a":{"x":null,"y":"A\n"}}"#);
        let many = (0..100).map(|i| format!("\"{}\":{i}", i % 60)).collect::<Vec<_>>().join(",");
        let json = Json::parse(&format!("{{{many}}}"), Comments::Refused).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 60);
        assert_eq!(json.get("5"), Some(&Json::Number("65".into())));
    }

    #[test]
    fn comments_only_where_allowed() {
        let text = "/* a */ [1, // b\n 2 /**/ ] // end";
        assert_eq!(Json::parse(text, Comments::Allowed).unwrap().to_string(), "[1,2]");
        assert!(Json::parse(text, Comments::Refused).is_err());
        for bad in ["[1] x", "[1", "{\"a\":}", "/* x", "", "[1,]"] {
            assert!(Json::parse(bad, Comments::Allowed).is_err(), "{bad}");
        }
        let error = Json::parse("{\"a\":\n 1,\n x}", Comments::Refused).unwrap_err();
        assert!(error.message().ends_with("at line 3 column 2"), "{error}");
        assert!(Json::parse(&"[".repeat(100_000), Comments::Refused).is_err());
    }
}
