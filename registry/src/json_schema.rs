//! Whether data that one JSON Schema allows is allowed by another.
//!
//! Held to be incompatible in doubt, as Confluent's rules are: a property that comes to an object which allows others could have been
//! there already with another type.

use std::collections::{HashMap, HashSet};

use millpond_formats::Json;

const DEPTH_MAX: usize = 64;
const FAULTS_MAX: usize = 20;
/// Most pairs that are compared: what has several branches multiplies.
const PAIRS_MAX: usize = 200_000;
/// Most keywords, properties and steps of references that are looked at meanwhile.
const PARTS_MAX: usize = 20_000_000;
/// Longest path that is told.
const PATH_BYTES_MAX: usize = 1024;

pub fn faults(reader: &Json, writer: &Json) -> Vec<String> {
    let mut check = Check { reader, writer, faults: Vec::new(), pairs: 0, parts: 0, within: Vec::new() };
    check.pair(reader, writer, "#", 0);
    check.faults
}

struct Check<'a> {
    reader: &'a Json,
    writer: &'a Json,
    faults: Vec<String>,
    pairs: usize,
    parts: usize,
    /// What is being compared, from the root.
    within: Vec<(*const Json, *const Json)>,
}

/// What a reference stands for; counts what it looks at.
fn resolve<'a>(root: &'a Json, mut at: &'a Json, parts: &mut usize) -> &'a Json {
    for _ in 0..DEPTH_MAX {
        *parts += len(at);
        let Some(path) = at.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/")) else { return at };
        let mut found = root;
        for part in path.split('/') {
            *parts += 1 + len(found);
            if *parts > PARTS_MAX {
                return at;
            }
            match found.get(&part.replace("~1", "/").replace("~0", "~")) {
                Some(next) => found = next,
                None => return at,
            }
        }
        at = found;
    }
    at
}

/// How many members or items there are to look at.
fn len(json: &Json) -> usize {
    json.as_object().map_or(0, <[_]>::len) + json.as_array().map_or(0, <[_]>::len)
}

/// What of a schema is looked at beside its subschemas.
fn parts(schema: &Json) -> usize {
    schema.as_object().unwrap_or(&[]).iter().map(|(_, value)| 1 + len(value)).sum()
}

/// All there is in a value, to be compared as a whole.
fn weight(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Json::Object(members) => 1 + members.iter().map(|(_, value)| 1 + weight(value)).sum::<usize>(),
        Json::String(text) | Json::Number(text) => 1 + text.len() / 64,
        _ => 1,
    }
}

/// A path with one more part, as far as it is told.
fn below(path: &str, part: &str) -> String {
    if path.len() + part.len() < PATH_BYTES_MAX { format!("{path}/{part}") } else { path.to_owned() }
}

/// Says nothing of what is allowed.
fn is_annotation(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "title",
        "description",
        "default",
        "examples",
        "example",
        "$schema",
        "$id",
        "id",
        "$comment",
        "$defs",
        "definitions",
        "deprecated",
        "readOnly",
        "writeOnly",
    ];
    NAMES.contains(&name) || name.starts_with("connect.")
}

/// Compared by its meaning; all others must be the same.
fn is_handled(name: &str) -> bool {
    ["type", "oneOf", "anyOf", "enum", "items", "properties", "required", "additionalProperties"].contains(&name)
}

/// Only ever refuses: without it more is allowed.
fn is_limit(name: &str) -> bool {
    const NAMES: [&str; 15] = [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "const",
    ];
    NAMES.contains(&name)
}

/// Allows anything.
fn is_open(schema: &Json) -> bool {
    match schema {
        Json::Bool(b) => *b,
        Json::Object(members) => members.iter().all(|(name, _)| is_annotation(name)),
        _ => false,
    }
}

fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The lists of which a branch must fit: each of them.
fn branches(schema: &Json) -> Vec<&[Json]> {
    ["oneOf", "anyOf"].iter().filter_map(|name| schema.get(name).and_then(Json::as_array)).collect()
}

fn strings<'a>(schema: &'a Json, name: &str) -> Vec<&'a str> {
    schema.get(name).and_then(Json::as_array).unwrap_or(&[]).iter().filter_map(Json::as_str).collect()
}

/// Whether an object may have properties that are not listed.
fn is_open_content(schema: &Json) -> bool {
    schema.get("additionalProperties").is_none_or(|a| *a != Json::Bool(false))
}

impl Check<'_> {
    fn fault(&mut self, kind: &str, path: &str) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(format!("{{errorType:\"{kind}\", path:\"{path}\"}}"));
        }
    }

    fn fits(&mut self, reader: &Json, writer: &Json, path: &str, depth: usize) -> bool {
        let told = self.faults.len();
        self.pair(reader, writer, path, depth);
        let fits = self.faults.len() == told;
        self.faults.truncate(told);
        fits
    }

    fn pair(&mut self, reader: &Json, writer: &Json, path: &str, depth: usize) {
        let (reader, writer) =
            (resolve(self.reader, reader, &mut self.parts), resolve(self.writer, writer, &mut self.parts));
        self.parts = self.parts.saturating_add(parts(reader)).saturating_add(parts(writer));
        // What refers to itself fits if everything else does.
        let both: (*const Json, *const Json) = (reader, writer);
        if self.within.contains(&both) {
            return;
        }
        if !self.counts(1) || depth > DEPTH_MAX {
            return self.fault("TOO_COMPLEX", path);
        }
        self.within.push(both);
        self.resolved(reader, writer, path, depth);
        self.within.pop();
    }

    fn counts(&mut self, pairs: usize) -> bool {
        self.pairs = self.pairs.saturating_add(pairs);
        self.pairs <= PAIRS_MAX && self.parts <= PARTS_MAX
    }

    fn resolved(&mut self, reader: &Json, writer: &Json, path: &str, depth: usize) {
        if is_open(reader) || *writer == Json::Bool(false) {
            return;
        }
        if is_open(writer) {
            return self.fault("TYPE_NARROWED", path);
        }
        // What is written is of one of each list's branches: it is enough if all of one list can be read.
        let from = branches(writer);
        if !from.is_empty() {
            if !from.iter().any(|list| list.iter().all(|one| self.fits(reader, one, path, depth + 1))) {
                self.fault("SUM_TYPE_NARROWED", path);
            }
            return;
        }
        for to in branches(reader) {
            if !to.iter().any(|one| self.fits(one, writer, path, depth + 1)) {
                return self.fault("TYPE_CHANGED", path);
            }
        }
        self.others(reader, writer, path);
        let (to, from): (HashSet<&str>, HashSet<&str>) =
            (types(reader).into_iter().collect(), types(writer).into_iter().collect());
        let allowed = |t: &&str| to.contains(*t) || (*t == "integer" && to.contains("number"));
        if !to.is_empty() && (from.is_empty() || !from.iter().all(allowed)) {
            let kind = if from.iter().any(allowed) { "TYPE_NARROWED" } else { "TYPE_CHANGED" };
            return self.fault(kind, path);
        }
        if let Some(to) = reader.get("enum").and_then(Json::as_array) {
            match writer.get("enum").and_then(Json::as_array) {
                Some(from) if from == to => {}
                Some(from) if !self.counts(from.len().saturating_mul(to.len())) => self.fault("TOO_COMPLEX", path),
                Some(from) if from.iter().all(|v| to.contains(v)) => {}
                _ => self.fault("ENUM_ARRAY_NARROWED", path),
            }
        }
        let has_items = from.is_empty() || from.contains("array");
        if let Some(to) = reader.get("items").filter(|_| has_items) {
            let path = below(path, "items");
            match writer.get("items") {
                Some(from) => self.pair(to, from, &path, depth + 1),
                None if is_open(to) => {}
                None => self.fault("SCHEMA_ADDED", &path),
            }
        }
        self.object(reader, writer, path, depth);
    }

    /// What is not compared by its meaning is the same, or gone where that allows more.
    fn others(&mut self, reader: &Json, writer: &Json, path: &str) {
        let (Some(to), Some(from)) = (reader.as_object(), writer.as_object()) else {
            if reader != writer {
                self.fault("TYPE_CHANGED", path);
            }
            return;
        };
        let compared = |name: &str| !is_annotation(name) && !is_handled(name);
        let written: HashMap<&str, &Json> = from.iter().rev().map(|(name, value)| (name.as_str(), value)).collect();
        for (name, value) in to.iter().filter(|(name, _)| compared(name)) {
            self.parts = self.parts.saturating_add(weight(value));
            if self.parts > PARTS_MAX || written.get(name.as_str()) != Some(&value) {
                self.fault("KEYWORD_CHANGED", &below(path, name));
            }
        }
        let read: HashSet<&str> = to.iter().map(|(name, _)| name.as_str()).collect();
        for (name, _) in from.iter().filter(|(name, _)| compared(name) && !is_limit(name)) {
            if !read.contains(name.as_str()) {
                self.fault("KEYWORD_CHANGED", &below(path, name));
            }
        }
        let others = |s| Json::get(s, "additionalProperties").filter(|a| a.as_object().is_some());
        if others(reader).is_some_and(|a| !is_open(a)) && others(reader) != others(writer) {
            self.fault("KEYWORD_CHANGED", &format!("{path}/additionalProperties"));
        }
    }

    fn object(&mut self, reader: &Json, writer: &Json, path: &str, depth: usize) {
        let of = |s| Json::as_object(Json::get(s, "properties")?);
        let (to, from) = (of(reader).unwrap_or(&[]), of(writer).unwrap_or(&[]));
        let named = |list: &'_ [(String, Json)]| -> HashMap<String, usize> {
            list.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect()
        };
        let (to_names, from_names) = (named(to), named(from));
        for (name, schema) in to {
            let path = below(&below(path, "properties"), name);
            match from_names.get(name).and_then(|i| from.get(*i)) {
                Some((_, written)) => self.pair(schema, written, &path, depth + 1),
                None if is_open(schema) => {}
                None if is_open_content(writer) => self.fault("PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", &path),
                None => {}
            }
        }
        for (name, _) in from.iter().filter(|(n, _)| !to_names.contains_key(n)) {
            if !is_open_content(reader) {
                self.fault("PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL", &below(&below(path, "properties"), name));
            }
        }
        if is_open_content(writer) && !is_open_content(reader) {
            self.fault("ADDITIONAL_PROPERTIES_REMOVED", path);
        }
        let before: HashSet<&str> = strings(writer, "required").into_iter().collect();
        for name in strings(reader, "required") {
            let default = to_names.get(name).and_then(|i| to.get(*i)).is_some_and(|(_, s)| s.get("default").is_some());
            if !before.contains(name) && !default {
                self.fault("REQUIRED_ATTRIBUTE_ADDED", &below(&below(path, "required"), name));
            }
        }
    }
}
