//! Whether data that one JSON Schema allows is allowed by another.
//!
//! Held to be incompatible in doubt, as Confluent's rules are: a property that comes to an object which allows others could have been
//! there already with another type.

use millpond_formats::Json;

const DEPTH_MAX: usize = 64;
const FAULTS_MAX: usize = 20;
/// Most pairs that are compared: what has several branches multiplies.
const PAIRS_MAX: usize = 200_000;

pub fn faults(reader: &Json, writer: &Json) -> Vec<String> {
    let mut check = Check { reader, writer, faults: Vec::new(), pairs: 0 };
    check.pair(reader, writer, "#", 0);
    check.faults
}

struct Check<'a> {
    reader: &'a Json,
    writer: &'a Json,
    faults: Vec<String>,
    pairs: usize,
}

fn resolve<'a>(root: &'a Json, mut at: &'a Json) -> &'a Json {
    for _ in 0..DEPTH_MAX {
        let Some(path) = at.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/")) else { return at };
        let mut found = root;
        for part in path.split('/') {
            match found.get(&part.replace("~1", "/").replace("~0", "~")) {
                Some(next) => found = next,
                None => return at,
            }
        }
        at = found;
    }
    at
}

/// Allows anything.
fn is_open(schema: &Json) -> bool {
    match schema {
        Json::Bool(b) => *b,
        Json::Object(members) => !members.iter().any(|(name, _)| {
            let told =
                ["type", "oneOf", "anyOf", "allOf", "enum", "const", "properties", "items", "required", "not", "$ref"];
            told.contains(&name.as_str())
        }),
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

fn branches(schema: &Json) -> Option<&[Json]> {
    schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array)
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
        self.pairs += 1;
        if self.pairs > PAIRS_MAX {
            return self.fault("TOO_COMPLEX", path);
        }
        if depth > DEPTH_MAX {
            return;
        }
        let (root, written) = (self.reader, self.writer);
        let (reader, writer) = (resolve(root, reader), resolve(written, writer));
        if reader == writer || is_open(reader) {
            return;
        }
        if is_open(writer) {
            return self.fault("TYPE_NARROWED", path);
        }
        if let Some(from) = branches(writer) {
            for one in from {
                if !self.fits(reader, one, path, depth + 1) {
                    return self.fault("SUM_TYPE_NARROWED", path);
                }
            }
            return;
        }
        if let Some(to) = branches(reader) {
            if !to.iter().any(|one| self.fits(one, writer, path, depth + 1)) {
                self.fault("TYPE_CHANGED", path);
            }
            return;
        }
        let (to, from) = (types(reader), types(writer));
        let allowed = |t: &&str| to.contains(t) || (*t == "integer" && to.contains(&"number"));
        if !to.is_empty() && (from.is_empty() || !from.iter().all(allowed)) {
            let kind = if from.iter().any(allowed) { "TYPE_NARROWED" } else { "TYPE_CHANGED" };
            return self.fault(kind, path);
        }
        if let Some(to) = reader.get("enum").and_then(Json::as_array) {
            match writer.get("enum").and_then(Json::as_array) {
                Some(from) if from.iter().all(|v| to.contains(v)) => {}
                _ => self.fault("ENUM_ARRAY_NARROWED", path),
            }
        }
        if let (Some(to), Some(from)) = (reader.get("items"), writer.get("items")) {
            self.pair(to, from, &format!("{path}/items"), depth + 1);
        }
        self.object(reader, writer, path, depth);
    }

    fn object(&mut self, reader: &Json, writer: &Json, path: &str, depth: usize) {
        let empty: &[(String, Json)] = &[];
        let of = |s: &Json| s.get("properties").and_then(Json::as_object).map_or_else(|| empty.to_vec(), <[_]>::to_vec);
        let (to, from) = (of(reader), of(writer));
        for (name, schema) in &to {
            let path = format!("{path}/properties/{name}");
            match from.iter().find(|(n, _)| n == name) {
                Some((_, written)) => self.pair(schema, written, &path, depth + 1),
                None if is_open(schema) => {}
                None if is_open_content(writer) => self.fault("PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", &path),
                None => {}
            }
        }
        for (name, _) in from.iter().filter(|(n, _)| !to.iter().any(|(m, _)| m == n)) {
            if !is_open_content(reader) {
                self.fault("PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL", &format!("{path}/properties/{name}"));
            }
        }
        if is_open_content(writer) && !is_open_content(reader) {
            self.fault("ADDITIONAL_PROPERTIES_REMOVED", path);
        }
        let before = strings(writer, "required");
        for name in strings(reader, "required") {
            let default = to.iter().find(|(n, _)| n == name).is_some_and(|(_, s)| s.get("default").is_some());
            if !before.contains(&name) && !default {
                self.fault("REQUIRED_ATTRIBUTE_ADDED", &format!("{path}/required/{name}"));
            }
        }
    }
}
