//! Whether data of one Avro schema can be read with another, by Avro's rules of resolution.
//!
//! Not here: reading them (`decode`), which follows the columns instead of a reader's schema.

use std::collections::HashSet;

use super::schema::{AvroSchema, Name, Record, Shape, branch_name};

/// Most faults that are told of.
const FAULTS_MAX: usize = 20;
/// Most pairs of types that are compared: unions multiply.
const PAIRS_MAX: usize = 200_000;

/// What stands in the way of reading data of `writer` with `reader`; empty where nothing does.
pub fn faults(reader: &AvroSchema, writer: &AvroSchema) -> Vec<String> {
    let mut check = Check { reader, writer, seen: HashSet::new(), trail: Vec::new(), faults: Vec::new(), pairs: 0 };
    check.pair(reader.root, writer.root, "/");
    check.faults
}

struct Check<'a> {
    reader: &'a AvroSchema,
    writer: &'a AvroSchema,
    /// Pairs that were compared, or are being compared: a type that contains itself fits if the rest does.
    seen: HashSet<(usize, usize)>,
    /// The same in order, to take back what a branch that did not fit has seen.
    trail: Vec<(usize, usize)>,
    faults: Vec<String>,
    pairs: usize,
}

fn same_name(reader: &Name, writer: &Name) -> bool {
    reader.simple() == writer.simple() || reader.aliases.contains(&writer.full)
}

impl Check<'_> {
    fn fault(&mut self, kind: &str, path: &str, message: String) -> bool {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(format!("{kind} at {path}: {message}"));
        }
        false
    }

    fn pair(&mut self, r: usize, w: usize, path: &str) -> bool {
        self.pairs += 1;
        if self.pairs > PAIRS_MAX {
            return self.fault("TOO_COMPLEX", path, "the schemas are too large to be compared".into());
        }
        let (reader, writer) = (self.reader, self.writer);
        let (to, from) = (&reader.node(r).shape, &writer.node(w).shape);
        if let (Shape::Record(to), Shape::Record(from)) = (to, from) {
            if !self.seen.insert((r, w)) {
                return true;
            }
            self.trail.push((r, w));
            return self.record(to, from, path);
        }
        let mismatch = |check: &mut Self| {
            let (to, from) = (branch_name(to), branch_name(from));
            check.fault("TYPE_MISMATCH", path, format!("reader type: {to} not compatible with writer type: {from}"))
        };
        match (to, from) {
            (_, Shape::Union(branches)) => {
                let mut all = true;
                for &branch in branches {
                    all &= self.pair(r, branch, path);
                }
                all
            }
            (Shape::Union(branches), _) => {
                for &branch in branches {
                    let (told, seen) = (self.faults.len(), self.trail.len());
                    if self.pair(branch, w, path) {
                        self.faults.truncate(told);
                        return true;
                    }
                    self.faults.truncate(told);
                    for pair in self.trail.split_off(seen) {
                        self.seen.remove(&pair);
                    }
                }
                let name = branch_name(from);
                self.fault("MISSING_UNION_BRANCH", path, format!("reader union lacking writer type: {name}"))
            }
            (Shape::Array(to), Shape::Array(from)) => self.pair(*to, *from, &format!("{path}items/")),
            (Shape::Map(to), Shape::Map(from)) => self.pair(*to, *from, &format!("{path}values/")),
            (Shape::Fixed { name: to, size: a }, Shape::Fixed { name: from, size: b }) => {
                if !same_name(to, from) {
                    return self.fault("NAME_MISMATCH", path, format!("expected: {}", from.full));
                }
                a == b || self.fault("FIXED_SIZE_MISMATCH", path, format!("expected: {b}, found: {a}"))
            }
            (Shape::Enum { name: to, symbols: known, default }, Shape::Enum { name: from, symbols, .. }) => {
                if !same_name(to, from) {
                    return self.fault("NAME_MISMATCH", path, format!("expected: {}", from.full));
                }
                let missing: Vec<&str> = symbols.iter().filter(|s| !known.contains(s)).map(String::as_str).collect();
                if missing.is_empty() || default.is_some() {
                    return true;
                }
                self.fault("MISSING_ENUM_SYMBOLS", path, format!("[{}]", missing.join(", ")))
            }
            (Shape::Null, Shape::Null)
            | (Shape::Boolean, Shape::Boolean)
            | (Shape::Int, Shape::Int)
            | (Shape::Long, Shape::Long | Shape::Int)
            | (Shape::Float, Shape::Float | Shape::Long | Shape::Int)
            | (Shape::Double, Shape::Double | Shape::Float | Shape::Long | Shape::Int)
            | (Shape::Bytes | Shape::String, Shape::Bytes | Shape::String) => true,
            _ => mismatch(self),
        }
    }

    fn record(&mut self, to: &Record, from: &Record, path: &str) -> bool {
        if !same_name(&to.name, &from.name) {
            return self.fault("NAME_MISMATCH", path, format!("expected: {}", from.name.full));
        }
        let mut all = true;
        for field in &to.fields {
            let named = |name: &str| from.fields.iter().find(|f| f.name == name);
            let path = format!("{path}fields/{}/", field.name);
            match named(&field.name).or_else(|| field.aliases.iter().find_map(|a| named(a))) {
                Some(written) => all &= self.pair(field.node, written.node, &path),
                None if field.default.is_some() => {}
                None => all &= self.fault("READER_FIELD_MISSING_DEFAULT_VALUE", &path, field.name.clone()),
            }
        }
        all
    }
}
