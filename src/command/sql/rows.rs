//! Rows of a query as the server sends them: its JSON array of `StreamedRow` objects, taken apart while it comes.
//!
//! Values stay the JSON text that they were, so that no digit of a DECIMAL gets lost.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::table::Column;

/// Most bytes of one row.
const ROW_BYTES_MAX: usize = 64 << 20;

/// One member of the array.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamedRow {
    pub header: Option<Header>,
    pub row: Option<DataRow>,
    pub final_message: Option<String>,
    pub error_message: Option<ErrorMessage>,
}

#[derive(Debug, Deserialize)]
pub struct Header {
    #[serde(rename = "queryId", default)]
    pub query_id: Option<String>,
    pub schema: String,
}

#[derive(Debug, Deserialize)]
pub struct DataRow {
    #[serde(default)]
    pub columns: Vec<Box<RawValue>>,
    /// The row of this key is gone.
    #[serde(default)]
    pub tombstone: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ErrorMessage {
    Object { message: String },
    Text(String),
}

impl ErrorMessage {
    pub fn text(&self) -> &str {
        match self {
            Self::Object { message } | Self::Text(message) => message,
        }
    }
}

/// Takes bytes in any pieces, gives members of the array.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Up to here the buffer was given out.
    start: usize,
    /// Up to here it was looked at.
    seen: usize,
    /// Open braces and brackets of the member at `start`.
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.buffer.drain(..self.start);
        self.seen -= self.start;
        self.start = 0;
        if self.buffer.len() > ROW_BYTES_MAX {
            return Err(format!("the server sent a row of more than {ROW_BYTES_MAX} bytes"));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next member, if all of it is there.
    pub fn next(&mut self) -> Result<Option<StreamedRow>, String> {
        while let Some(&byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            if self.depth == 0 {
                match byte {
                    b'{' => {
                        self.start = self.seen - 1;
                        self.depth = 1;
                    }
                    _ if is_between(byte) => self.start = self.seen,
                    _ => return Err(self.wrong("expected a row", self.seen - 1)),
                }
                continue;
            }
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let text = self.buffer.get(self.start..self.seen).unwrap_or_default();
                let row = serde_json::from_slice(text).map_err(|e| self.wrong(&e.to_string(), self.start))?;
                self.start = self.seen;
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Whether the end of the bytes was also the end of the rows.
    pub fn is_empty(&self) -> bool {
        self.buffer.get(self.start..).unwrap_or_default().iter().all(|b| is_between(*b))
    }

    fn wrong(&self, why: &str, at: usize) -> String {
        let rest = self.buffer.get(at..).unwrap_or_default();
        let shown: String = String::from_utf8_lossy(rest).chars().take(120).collect();
        format!("the server sent something that is not a row: {why}: {shown}")
    }
}

/// What stands around the members of the array.
fn is_between(byte: u8) -> bool {
    matches!(byte, b'[' | b',' | b']') || byte.is_ascii_whitespace()
}

/// The columns of a header's schema text: `` `ID` STRING KEY, `V` STRUCT<`A` INTEGER> ``.
pub fn columns(schema: &str) -> Vec<Column> {
    let (mut parts, mut part, mut depth, mut quoted) = (Vec::new(), String::new(), 0_usize, false);
    for c in schema.chars() {
        match c {
            '`' => quoted = !quoted,
            '<' | '(' if !quoted => depth += 1,
            '>' | ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).map(column).collect()
}

fn column(part: &str) -> Column {
    // In a quoted name a back-tick is written twice.
    let (name, ty) = match part.strip_prefix('`') {
        Some(rest) => {
            let mut end = 0;
            let mut chars = rest.char_indices().peekable();
            while let Some((i, c)) = chars.next() {
                if c == '`' && chars.next_if(|(_, c)| *c == '`').is_none() {
                    end = i;
                    break;
                }
            }
            (rest.get(..end).unwrap_or(rest).replace("``", "`"), rest.get(end + 1..).unwrap_or_default())
        }
        None => {
            let (name, ty) = part.split_once(' ').unwrap_or((part, ""));
            (name.to_string(), ty)
        }
    };
    let base = ty.trim_start().split([' ', '<', '(']).next().unwrap_or_default();
    let (right, width_usual) = match base {
        "INTEGER" | "INT" => (true, 11),
        "BIGINT" => (true, 13),
        "DOUBLE" => (true, 12),
        "DECIMAL" => (true, 12),
        "BOOLEAN" => (false, 5),
        "DATE" => (false, 10),
        "TIME" => (false, 8),
        "TIMESTAMP" => (false, 23),
        _ => (false, 16),
    };
    Column { name, right, width_usual }
}

/// A value as a cell shows it.
pub fn cell(value: &RawValue) -> String {
    let text = value.get();
    if text.starts_with('"') {
        serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_string())
    } else {
        text.to_string()
    }
}

/// A row as one JSON object.
pub fn object(columns: &[Column], row: &DataRow) -> String {
    let mut out = String::from("{");
    for (i, (column, value)) in columns.iter().zip(&row.columns).enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&serde_json::Value::from(column.name.as_str()).to_string());
        out.push(':');
        out.push_str(value.get());
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const STREAM: &str = "[{\"header\":{\"queryId\":\"q1\",\"schema\":\"`ID` STRING, `V` DECIMAL(10, 2)\"}},\n\
        {\"row\":{\"columns\":[\"a]\\\"\",1.10]}},\n{\"row\":{\"columns\":[\"b\",null],\"tombstone\":true}},\n\
        {\"finalMessage\":\"Limit Reached\"}]\n";

    fn decode(chunk_bytes: usize) -> String {
        let mut decoder = Decoder::default();
        let mut seen = String::new();
        let mut names = Vec::new();
        for chunk in STREAM.as_bytes().chunks(chunk_bytes) {
            decoder.feed(chunk).expect("small");
            while let Some(row) = decoder.next().expect("rows") {
                if let Some(header) = row.header {
                    names = columns(&header.schema);
                    seen += &format!("{:?} {names:?}\n", header.query_id);
                }
                if let Some(row) = row.row {
                    seen += &format!("{} {}\n", object(&names, &row), row.tombstone);
                }
                if let Some(message) = row.final_message {
                    seen += &message;
                }
            }
        }
        assert!(decoder.is_empty());
        seen
    }

    #[test]
    fn rows_come_out_however_the_bytes_are_cut() {
        expect![[r#"
            Some("q1") [Column { name: "ID", right: false, width_usual: 16 }, Column { name: "V", right: true, width_usual: 12 }]
            {"ID":"a]\"","V":1.10} false
            {"ID":"b","V":null} true
            Limit Reached"#]].assert_eq(&decode(STREAM.len()));
        for chunk_bytes in [1, 2, 3, 7, 50] {
            assert_eq!(decode(chunk_bytes), decode(STREAM.len()));
        }
    }

    #[test]
    fn a_row_shows_before_the_next_one_comes() {
        let mut decoder = Decoder::default();
        decoder.feed(b"[{\"header\":{\"schema\":\"`A` INTEGER\"}}").expect("small");
        assert!(decoder.next().expect("a header").is_some());
        decoder.feed(b",\n{\"row\":{\"columns\":[1]}}").expect("small");
        assert!(decoder.next().expect("a row").is_some_and(|row| row.row.is_some()));
        assert!(decoder.next().expect("nothing").is_none());
        decoder.feed(b",\n{\"row\":{\"colu").expect("small");
        assert!(decoder.next().expect("nothing").is_none());
        assert!(!decoder.is_empty());
        let mut decoder = Decoder::default();
        decoder.feed(b"<html>").expect("small");
        assert!(decoder.next().is_err());
    }

    #[test]
    fn schema_text_is_taken_apart() {
        let found = columns("`a``b, c` INTEGER KEY, `S` STRUCT<`X` INTEGER, `Y` DECIMAL(4, 2)>, `T` TIMESTAMP");
        let shown: Vec<(&str, bool)> = found.iter().map(|c| (c.name.as_str(), c.right)).collect();
        assert_eq!(shown, [("a`b, c", true), ("S", false), ("T", false)]);
    }
}
