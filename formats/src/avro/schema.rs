//! Avro schemas, read from their JSON.
//!
//! Types are nodes of one table and refer to each other by index, so that a record may contain itself. Invariants: an
//! index always has a node; nesting in the text and the number of nodes are bounded.

use std::collections::{HashMap, HashSet};

use millpond_types::{Error, Result};

use crate::json::{Comments, Json};

/// Most types that one schema can have.
const NODES_MAX: usize = 20_000;
/// Deepest nesting of types.
const DEPTH_MAX: usize = 64;
/// Longest full name of a type.
const NAME_BYTES_MAX: usize = 4096;
/// All full names and aliases together: a namespace counts for every name in it.
const NAMES_BYTES_MAX: usize = 8 << 20;
/// Largest `fixed`.
const FIXED_MAX: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct AvroSchema {
    nodes: Vec<Node>,
    pub root: usize,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub shape: Shape,
    pub logical: Logical,
}

/// What a number or bytes stand for; what does not fit its type counts as not said, as Avro demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logical {
    None,
    Decimal { precision: u32, scale: u32 },
    Date,
    TimeMillis,
    TimeMicros,
    TimestampMillis,
    TimestampMicros,
}

#[derive(Clone, Debug)]
pub enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed { name: Name, size: usize },
    Enum { name: Name, symbols: Vec<String>, default: Option<String> },
    Array(usize),
    Map(usize),
    Record(Record),
    Union(Vec<usize>),
}

/// A full name, and others by which it is also known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub full: String,
    pub aliases: Vec<String>,
}

impl Name {
    /// The part behind the last point.
    pub fn simple(&self) -> &str {
        self.full.rsplit('.').next().unwrap_or(&self.full)
    }
}

#[derive(Clone, Debug)]
pub struct Record {
    pub name: Name,
    pub fields: Vec<AvroField>,
    /// Connect's marks: the record is an entry of a map that is written as an array.
    pub is_entry: bool,
}

#[derive(Clone, Debug)]
pub struct AvroField {
    pub name: String,
    pub aliases: Vec<String>,
    pub node: usize,
    pub default: Option<Json>,
}

impl AvroSchema {
    /// Reads a schema; `references` are read first, and their types can be named.
    pub fn parse(json: &Json, references: &[(String, String)]) -> Result<Self> {
        let mut parser = Parser { nodes: Vec::new(), names: HashMap::new(), names_left: NAMES_BYTES_MAX };
        for (name, text) in references {
            let json = Json::parse(text, Comments::Refused)
                .map_err(|e| Error::bad_request(format!("reference \"{name}\": {}", e.message())))?;
            parser.ty(&json, "", 0)?;
        }
        let root = parser.ty(json, "", 0)?;
        Ok(Self { nodes: parser.nodes, root })
    }

    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// Which branch of how many a type is, where `of` is a union.
    pub fn branch_of(&self, of: usize, one: usize) -> Option<(usize, usize)> {
        let Shape::Union(branches) = &self.node(of).shape else { return None };
        Some((branches.iter().position(|b| *b == one)?, branches.len()))
    }

    /// The one type of a union with null or of a union of one; the index itself for anything else. True where null is possible.
    pub fn nullable(&self, index: usize) -> (usize, bool) {
        let Shape::Union(branches) = &self.node(index).shape else { return (index, false) };
        let is_null = |i: &&usize| matches!(self.node(**i).shape, Shape::Null);
        let mut others = branches.iter().filter(|i| !is_null(i));
        let null = branches.iter().any(|i| is_null(&i));
        match (others.next(), others.next()) {
            (Some(one), None) => (*one, null),
            _ => (index, null),
        }
    }
}

struct Parser {
    nodes: Vec<Node>,
    names: HashMap<String, usize>,
    /// Bytes of names that may still come.
    names_left: usize,
}

fn bad(message: impl Into<String>) -> Error {
    Error::bad_request(message)
}

/// Letters, digits and underscores, not beginning with a digit; else ksqlDB's words for what is wrong.
pub fn check_name(name: &str) -> std::result::Result<(), String> {
    let mut chars = name.chars();
    match chars.next() {
        None => return Err("Empty name".into()),
        Some(c) if c.is_ascii_alphabetic() || c == '_' => {}
        Some(_) => return Err(format!("Illegal initial character: {name}")),
    }
    if chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(format!("Illegal character in: {name}"))
}

fn strings(json: Option<&Json>) -> Vec<String> {
    let items = json.and_then(Json::as_array).unwrap_or(&[]);
    items.iter().filter_map(|i| i.as_str().map(str::to_owned)).collect()
}

fn aliases(json: &Json) -> impl Iterator<Item = &str> {
    json.get("aliases").and_then(Json::as_array).unwrap_or(&[]).iter().filter_map(Json::as_str)
}

impl Parser {
    fn push(&mut self, shape: Shape, logical: Logical) -> Result<usize> {
        if self.nodes.len() >= NODES_MAX {
            return Err(bad(format!("the schema has more than {NODES_MAX} types")));
        }
        self.nodes.push(Node { shape, logical });
        Ok(self.nodes.len() - 1)
    }

    fn ty(&mut self, json: &Json, namespace: &str, depth: usize) -> Result<usize> {
        if depth > DEPTH_MAX {
            return Err(bad(format!("types are nested deeper than {DEPTH_MAX} levels")));
        }
        match json {
            Json::String(name) => self.named(name, namespace),
            Json::Array(branches) => self.union(branches, namespace, depth),
            Json::Object(_) => self.object(json, namespace, depth),
            other => Err(bad(format!("{other} is not an Avro type"))),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<usize> {
        if let Some(shape) = primitive(name) {
            return self.push(shape, Logical::None);
        }
        let full =
            if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") };
        let found = self.names.get(&full).or_else(|| self.names.get(name)).copied();
        found.ok_or_else(|| bad(format!("\"{name}\" is not a defined name")))
    }

    fn union(&mut self, branches: &[Json], namespace: &str, depth: usize) -> Result<usize> {
        let mut nodes = Vec::with_capacity(branches.len());
        let mut seen: HashSet<String> = HashSet::new();
        for branch in branches {
            let index = self.ty(branch, namespace, depth + 1)?;
            let kind = match &self.nodes[index].shape {
                Shape::Union(_) => return Err(bad("a union cannot stand directly in a union")),
                shape => branch_name(shape).to_owned(),
            };
            if seen.contains(&kind) {
                return Err(bad(format!("duplicate in union: {kind}")));
            }
            seen.insert(kind);
            nodes.push(index);
        }
        self.push(Shape::Union(nodes), Logical::None)
    }

    fn object(&mut self, json: &Json, namespace: &str, depth: usize) -> Result<usize> {
        let ty = json.get("type").ok_or_else(|| bad(format!("no type: {json}")))?;
        let Json::String(ty) = ty else { return self.ty(ty, namespace, depth + 1) };
        match ty.as_str() {
            "record" | "error" => self.record(json, namespace, depth),
            "enum" => {
                let (name, _) = self.name(json, namespace)?;
                let symbols = strings(json.get("symbols"));
                if symbols.is_empty() {
                    return Err(bad(format!("enum \"{}\" has no symbols", name.full)));
                }
                let mut seen = HashSet::with_capacity(symbols.len());
                for symbol in &symbols {
                    check_name(symbol).map_err(bad)?;
                    if !seen.insert(symbol) {
                        return Err(bad(format!("duplicate enum symbol: {symbol}")));
                    }
                }
                let default = json.get("default").and_then(Json::as_str).map(str::to_owned);
                if let Some(default) = &default
                    && !symbols.contains(default)
                {
                    return Err(bad(format!("the enum default \"{default}\" is not one of its symbols")));
                }
                let full = name.clone();
                let index = self.push(Shape::Enum { name, symbols, default }, Logical::None)?;
                self.define(&full, index)
            }
            "fixed" => {
                let (name, _) = self.name(json, namespace)?;
                let size = json.get("size").and_then(Json::as_i64).and_then(|n| usize::try_from(n).ok());
                let size = size.filter(|n| *n <= FIXED_MAX).ok_or_else(|| bad("a fixed has a size of 0 to 1048576"))?;
                let logical = logical(json, "fixed");
                let full = name.clone();
                let index = self.push(Shape::Fixed { name, size }, logical)?;
                self.define(&full, index)
            }
            "array" => {
                let items = json.get("items").ok_or_else(|| bad("an array has no items"))?;
                let items = self.ty(items, namespace, depth + 1)?;
                self.push(Shape::Array(items), Logical::None)
            }
            "map" => {
                let values = json.get("values").ok_or_else(|| bad("a map has no values"))?;
                let values = self.ty(values, namespace, depth + 1)?;
                self.push(Shape::Map(values), Logical::None)
            }
            name => match primitive(name) {
                Some(shape) => self.push(shape, logical(json, name)),
                None => self.named(name, namespace),
            },
        }
    }

    fn record(&mut self, json: &Json, namespace: &str, depth: usize) -> Result<usize> {
        let (name, namespace) = self.name(json, namespace)?;
        let is_entry = json.get("connect.internal.type").and_then(Json::as_str) == Some("MapEntry")
            || name.full == "io.confluent.connect.avro.MapEntry";
        let empty = Record { name: name.clone(), fields: Vec::new(), is_entry };
        // Its name counts inside it already.
        let index = self.push(Shape::Record(empty), Logical::None)?;
        self.define(&name, index)?;
        let list = json.get("fields").and_then(Json::as_array);
        let list = list.ok_or_else(|| bad(format!("record \"{}\" has no fields", name.full)))?;
        let mut fields: Vec<AvroField> = Vec::with_capacity(list.len());
        let mut seen = std::collections::HashSet::with_capacity(list.len());
        for field in list {
            let label = field.get("name").and_then(Json::as_str).ok_or_else(|| bad("a field has no name"))?;
            check_name(label).map_err(bad)?;
            if !seen.insert(label) {
                return Err(bad(format!("duplicate field \"{label}\" in record \"{}\"", name.full)));
            }
            let ty = field.get("type").ok_or_else(|| bad(format!("field \"{label}\" has no type")))?;
            let node = self.ty(ty, &namespace, depth + 1)?;
            fields.push(AvroField {
                name: label.to_owned(),
                aliases: strings(field.get("aliases")),
                node,
                default: field.get("default").cloned(),
            });
        }
        if let Shape::Record(record) = &mut self.nodes[index].shape {
            record.fields = fields;
        }
        Ok(index)
    }

    /// The full name of a definition, and the namespace that holds in it.
    fn name(&mut self, json: &Json, enclosing: &str) -> Result<(Name, String)> {
        let name = json.get("name").and_then(Json::as_str).ok_or_else(|| bad(format!("no name in: {json}")))?;
        let given = json.get("namespace").and_then(Json::as_str);
        let (namespace, simple) = match name.rsplit_once('.') {
            Some((namespace, simple)) => (namespace, simple),
            None => (given.unwrap_or(enclosing), name),
        };
        check_name(simple).map_err(bad)?;
        for part in namespace.split('.').filter(|p| !p.is_empty()) {
            check_name(part).map_err(bad)?;
        }
        let full = |simple: &str| {
            if namespace.is_empty() || simple.contains('.') {
                simple.to_owned()
            } else {
                format!("{namespace}.{simple}")
            }
        };
        let mut names = Vec::new();
        for one in std::iter::once(simple).chain(aliases(json)) {
            let bytes = namespace.len() + 1 + one.len();
            if bytes > NAME_BYTES_MAX {
                return Err(bad(format!("a name has {bytes} bytes with its namespace, more than {NAME_BYTES_MAX}")));
            }
            let left = self.names_left.checked_sub(bytes);
            self.names_left = left.ok_or_else(|| {
                bad(format!("the names have more than {NAMES_BYTES_MAX} bytes with their namespaces"))
            })?;
            names.push(full(one));
        }
        let full = names.remove(0);
        Ok((Name { full, aliases: names }, namespace.to_owned()))
    }

    fn define(&mut self, name: &Name, index: usize) -> Result<usize> {
        if self.names.insert(name.full.clone(), index).is_some() {
            return Err(bad(format!("can't redefine: {}", name.full)));
        }
        Ok(index)
    }
}

fn primitive(name: &str) -> Option<Shape> {
    Some(match name {
        "null" => Shape::Null,
        "boolean" => Shape::Boolean,
        "int" => Shape::Int,
        "long" => Shape::Long,
        "float" => Shape::Float,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "string" => Shape::String,
        _ => return None,
    })
}

/// What tells the branches of a union apart.
pub fn branch_name(shape: &Shape) -> &str {
    match shape {
        Shape::Null => "null",
        Shape::Boolean => "boolean",
        Shape::Int => "int",
        Shape::Long => "long",
        Shape::Float => "float",
        Shape::Double => "double",
        Shape::Bytes => "bytes",
        Shape::String => "string",
        Shape::Array(_) => "array",
        Shape::Map(_) => "map",
        Shape::Union(_) => "union",
        Shape::Fixed { name, .. } | Shape::Enum { name, .. } => &name.full,
        Shape::Record(record) => &record.name.full,
    }
}

fn logical(json: &Json, ty: &str) -> Logical {
    let name = json.get("logicalType").and_then(Json::as_str).unwrap_or_default();
    let number = |name: &str| json.get(name).and_then(Json::as_i64).and_then(|n| u32::try_from(n).ok());
    match (name, ty) {
        ("decimal", "bytes" | "fixed") => {
            // Connect's converter takes 64 for a precision that is not said.
            let (precision, scale) = (number("precision").unwrap_or(64), number("scale").unwrap_or(0));
            if precision == 0 || scale > precision { Logical::None } else { Logical::Decimal { precision, scale } }
        }
        ("date", "int") => Logical::Date,
        ("time-millis", "int") => Logical::TimeMillis,
        ("time-micros", "long") => Logical::TimeMicros,
        ("timestamp-millis", "long") => Logical::TimestampMillis,
        ("timestamp-micros", "long") => Logical::TimestampMicros,
        _ => Logical::None,
    }
}
