//! Whether data of one Avro schema can be read with another, by Avro's rules of resolution.
//!
//! Not here: reading them (`decode`), which follows the columns instead of a reader's schema.

use std::collections::{HashMap, HashSet};

use super::schema::{AvroSchema, Name, Record, Shape, branch_name};

/// Most faults that are told of.
const FAULTS_MAX: usize = 20;
/// Most pairs of types that are compared: unions multiply. Fields, symbols and aliases count too, by the hundred.
const PAIRS_MAX: usize = 200_000;
const PARTS_PER_PAIR: usize = 100;
/// Longest path that is told.
const PATH_BYTES_MAX: usize = 1024;
/// Most symbols of an enum that are told.
const SYMBOLS_TOLD: usize = 20;

/// What stands in the way of reading data of `writer` with `reader`; empty where nothing does.
pub fn faults(reader: &AvroSchema, writer: &AvroSchema) -> Vec<String> {
    let (seen, trail, faults, names, enums) = Default::default();
    let mut check = Check { reader, writer, seen, trail, faults, pairs: 0, parts: 0, names, enums };
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
    parts: usize,
    /// Fields of the writer's records by their names.
    names: HashMap<usize, HashMap<&'a str, usize>>,
    /// Enums that were compared: what the reader lacks.
    enums: HashMap<(usize, usize), Option<String>>,
}

/// A path with one more part, as far as it is told.
fn below(path: &str, part: &str) -> String {
    if path.len() + part.len() < PATH_BYTES_MAX { format!("{path}{part}/") } else { path.to_owned() }
}

impl<'a> Check<'a> {
    fn fault(&mut self, kind: &str, path: &str, message: String) -> bool {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(format!("{kind} at {path}: {message}"));
        }
        false
    }

    /// Whether so many more parts of types may be compared.
    fn counts(&mut self, parts: usize) -> bool {
        self.parts = self.parts.saturating_add(parts);
        self.pairs + self.parts / PARTS_PER_PAIR <= PAIRS_MAX
    }

    fn same_name(&mut self, reader: &Name, writer: &Name) -> bool {
        reader.simple() == writer.simple()
            || (self.counts(reader.aliases.len()) && reader.aliases.contains(&writer.full))
    }

    fn pair(&mut self, r: usize, w: usize, path: &str) -> bool {
        self.pairs += 1;
        if !self.counts(0) {
            return self.fault("TOO_COMPLEX", path, "the schemas are too large to be compared".into());
        }
        let (reader, writer) = (self.reader, self.writer);
        let (to, from) = (&reader.node(r).shape, &writer.node(w).shape);
        if let (Shape::Record(to), Shape::Record(from)) = (to, from) {
            if !self.seen.insert((r, w)) {
                return true;
            }
            self.trail.push((r, w));
            return self.record(to, from, w, path);
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
            (Shape::Array(to), Shape::Array(from)) => self.pair(*to, *from, &below(path, "items")),
            (Shape::Map(to), Shape::Map(from)) => self.pair(*to, *from, &below(path, "values")),
            (Shape::Fixed { name: to, size: a }, Shape::Fixed { name: from, size: b }) => {
                if !self.same_name(to, from) {
                    return self.fault("NAME_MISMATCH", path, format!("expected: {}", from.full));
                }
                a == b || self.fault("FIXED_SIZE_MISMATCH", path, format!("expected: {b}, found: {a}"))
            }
            (Shape::Enum { name: to, symbols: known, default }, Shape::Enum { name: from, symbols, .. }) => {
                if !self.same_name(to, from) {
                    return self.fault("NAME_MISMATCH", path, format!("expected: {}", from.full));
                }
                if default.is_some() {
                    return true;
                }
                let missing = match self.enums.get(&(r, w)).cloned() {
                    Some(missing) => missing,
                    None if !self.counts(known.len() + symbols.len()) => {
                        return self.fault("TOO_COMPLEX", path, "the schemas are too large to be compared".into());
                    }
                    None => {
                        let known: HashSet<&str> = known.iter().map(String::as_str).collect();
                        let missing = symbols.iter().map(String::as_str).filter(|s| !known.contains(s));
                        let missing: Vec<&str> = missing.take(SYMBOLS_TOLD).collect();
                        let missing = (!missing.is_empty()).then(|| format!("[{}]", missing.join(", ")));
                        self.enums.insert((r, w), missing.clone());
                        missing
                    }
                };
                missing.is_none_or(|missing| self.fault("MISSING_ENUM_SYMBOLS", path, missing))
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

    fn record(&mut self, to: &Record, from: &'a Record, w: usize, path: &str) -> bool {
        if !self.same_name(&to.name, &from.name) {
            return self.fault("NAME_MISMATCH", path, format!("expected: {}", from.name.full));
        }
        let aliases: usize = to.fields.iter().map(|f| f.aliases.len()).sum();
        if !self.counts(to.fields.len() + aliases) {
            return self.fault("TOO_COMPLEX", path, "the schemas are too large to be compared".into());
        }
        let mut names = self.names.remove(&w).unwrap_or_else(|| {
            // Of a name that is there twice the first counts.
            from.fields.iter().enumerate().rev().map(|(i, f)| (f.name.as_str(), i)).collect()
        });
        let found = |names: &HashMap<&str, usize>, field: &super::schema::AvroField| {
            let named = |name: &str| names.get(name).copied();
            named(&field.name).or_else(|| field.aliases.iter().find_map(|a| named(a)))
        };
        let written: Vec<Option<usize>> = to.fields.iter().map(|field| found(&names, field)).collect();
        self.names.entry(w).or_insert_with(|| std::mem::take(&mut names));
        let mut all = true;
        for (field, written) in to.fields.iter().zip(written) {
            let path = below(&below(path, "fields"), &field.name);
            match written.and_then(|at| from.fields.get(at)) {
                Some(written) => all &= self.pair(field.node, written.node, &path),
                None if field.default.is_some() => {}
                None => all &= self.fault("READER_FIELD_MISSING_DEFAULT_VALUE", &path, field.name.clone()),
            }
        }
        all
    }
}
