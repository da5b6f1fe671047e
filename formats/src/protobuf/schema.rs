//! Protobuf schemas, read from their `.proto` text: messages, enums and what they refer to.
//!
//! Read in two passes: declarations with the names that they mention, then the names are looked up by protobuf's rules of scope.
//! Options but `packed`, features and those that say a decimal's digits, services and extensions mean nothing here and are
//! passed over.
//!
//! Invariants: every index has its message or enum; nesting is bounded, and all else by the text's length.

use std::collections::{HashMap, HashSet};

use millpond_types::{Error, Result};

use super::features::{Features, Syntax, Target};

/// Deepest nesting of messages and of brackets that are passed over.
const DEPTH_MAX: usize = 32;

/// Longest full name of a message or enum.
const NAME_BYTES_MAX: usize = 4096;
/// All full names together: a package counts for every name in it.
const NAMES_BYTES_MAX: usize = 8 << 20;
/// Most messages, and most enums, of a schema with its imports.
const TYPES_MAX: usize = 20_000;
/// Bytes of names that the types of all fields may be looked up by: one for each scope that a field is in.
const LOOKUP_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Debug)]
pub struct ProtoSchema {
    pub messages: Vec<Message>,
    pub enums: Vec<Enum>,
    /// The messages on top of the schema itself, in order; references have none here.
    pub roots: Vec<usize>,
    pub package: String,
    pub imports: Vec<String>,
    pub syntax: Syntax,
    /// How many of the enums are the schema's own: they come first.
    pub own_enums: usize,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub full_name: String,
    pub fields: Vec<ProtoField>,
    pub nested: Vec<usize>,
    pub oneofs: Vec<String>,
}

/// How the names of messages end that Connect's converter makes for the entries of a map.
pub const ENTRY: &str = "Entry";

impl Message {
    /// Whether a list of these is a map.
    pub fn is_entry(&self) -> bool {
        match self.fields.as_slice() {
            [key, value] => {
                self.full_name.ends_with(ENTRY)
                    && (key.name.as_str(), key.number, key.repeated) == ("key", 1, false)
                    && (value.name.as_str(), value.number) == ("value", 2)
                    && key.ty == FieldType::String
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Enum {
    pub full_name: String,
    pub values: Vec<(String, i32)>,
    /// A field with another value counts as not there.
    pub closed: bool,
}

#[derive(Clone, Debug)]
pub struct ProtoField {
    pub name: String,
    pub number: u32,
    pub repeated: bool,
    /// Whether a scalar tells not being there from its default.
    pub optional: bool,
    /// Whether a list of numbers is written in one piece; either way is read.
    pub packed: bool,
    pub oneof: Option<usize>,
    pub ty: FieldType,
    /// Precision and scale of a decimal, where the field says them.
    pub digits: (Option<u8>, Option<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldType {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
    Map(Box<FieldType>, Box<FieldType>),
}

/// Messages that stand for one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WellKnown {
    Timestamp,
    Date,
    Time,
    Decimal,
    /// One of the messages around a scalar.
    Wrapper,
}

impl ProtoSchema {
    pub fn parse(text: &str, references: &[(String, String)]) -> Result<Self> {
        let mut builder = Builder::default();
        let mut done = HashSet::new();
        let main = builder.file(text)?;
        let own_enums = builder.enums.len();
        builder.imports(&main, references, &mut done, 0)?;
        builder.resolve(main, own_enums)
    }

    /// A message by its full name, or by the part behind the package.
    pub fn message(&self, full_name: &str) -> Option<usize> {
        let exact = self.messages.iter().position(|m| m.full_name == full_name);
        exact.or_else(|| {
            let suffix = format!(".{full_name}");
            self.messages.iter().position(|m| m.full_name.ends_with(&suffix))
        })
    }

    /// Where a message stands: its place on top, then within each message that it is nested in.
    pub fn path_of(&self, message: usize) -> Option<Vec<u32>> {
        fn within(schema: &ProtoSchema, among: &[usize], message: usize, path: &mut Vec<u32>) -> bool {
            for (i, &one) in among.iter().enumerate() {
                path.push(i as u32);
                if one == message || within(schema, &schema.messages[one].nested, message, path) {
                    return true;
                }
                path.pop();
            }
            false
        }
        let mut path = Vec::new();
        within(self, &self.roots, message, &mut path).then_some(path)
    }

    /// The message at a place.
    pub fn at_path(&self, path: &[u32]) -> Option<usize> {
        let mut among = &self.roots;
        let mut found = None;
        for &i in path {
            let one = *among.get(usize::try_from(i).ok()?)?;
            found = Some(one);
            among = &self.messages.get(one)?.nested;
        }
        found
    }

    /// A wrapper goes by its shape too: a schema can declare such a name itself, even one that contains itself.
    pub fn well_known(&self, message: usize) -> Option<WellKnown> {
        let message = self.messages.get(message)?;
        let wraps = || match message.fields.as_slice() {
            [value] => {
                let scalar = !matches!(value.ty, FieldType::Message(_) | FieldType::Enum(_) | FieldType::Map(..));
                value.number == 1 && !value.repeated && scalar
            }
            _ => false,
        };
        Some(match message.full_name.as_str() {
            "google.protobuf.Timestamp" => WellKnown::Timestamp,
            "google.type.Date" => WellKnown::Date,
            "google.type.TimeOfDay" => WellKnown::Time,
            "confluent.type.Decimal" => WellKnown::Decimal,
            "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue"
                if wraps() =>
            {
                WellKnown::Wrapper
            }
            _ => return None,
        })
    }
}

/// Files that every schema can import.
fn built_in(name: &str) -> Option<&'static str> {
    Some(match name {
        "google/protobuf/timestamp.proto" => {
            "syntax = \"proto3\"; package google.protobuf; message Timestamp { int64 seconds = 1; int32 nanos = 2; }"
        }
        "google/protobuf/duration.proto" => {
            "syntax = \"proto3\"; package google.protobuf; message Duration { int64 seconds = 1; int32 nanos = 2; }"
        }
        "google/protobuf/empty.proto" => "syntax = \"proto3\"; package google.protobuf; message Empty {}",
        "google/protobuf/wrappers.proto" => {
            "syntax = \"proto3\"; package google.protobuf; message DoubleValue { double value = 1; } message FloatValue { float value = 1; } \
             message Int64Value { int64 value = 1; } message UInt64Value { uint64 value = 1; } message Int32Value { \
             int32 value = 1; } message UInt32Value { uint32 value = 1; } message BoolValue { bool value = 1; } message \
             StringValue { string value = 1; } message BytesValue { bytes value = 1; }"
        }
        "google/type/date.proto" => {
            "syntax = \"proto3\"; package google.type; message Date { int32 year = 1; int32 month = 2; int32 day = 3; }"
        }
        "google/type/timeofday.proto" => {
            "syntax = \"proto3\"; package google.type; message TimeOfDay { int32 hours = 1; int32 minutes = 2; int32 seconds = 3; int32 nanos = \
             4; }"
        }
        "confluent/type/decimal.proto" => {
            "syntax = \"proto3\"; package confluent.type; message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }"
        }
        "confluent/meta.proto" | "google/protobuf/descriptor.proto" => "",
        _ => return None,
    })
}

/// A field as it was written, with the name of its type.
struct RawField {
    message: usize,
    field: usize,
    /// The name to look up; a map's value.
    name: String,
}

struct File {
    messages: Vec<usize>,
    imports: Vec<String>,
    package: String,
    syntax: Syntax,
}

/// What a field's label and place say of its presence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    None,
    Repeated,
    /// Labelled so, or one of a oneof.
    Optional,
}

/// What a field's options say.
struct Options {
    features: Features,
    digits: (Option<u8>, Option<u8>),
}

#[derive(Default)]
struct Builder {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    open: Vec<RawField>,
    names: HashMap<String, FieldType>,
    /// Bytes of them.
    names_bytes: usize,
    /// Numbers and names of the fields of each message.
    numbers: HashSet<(usize, u32)>,
    field_names: HashSet<(usize, String)>,
}

impl Builder {
    fn imports(
        &mut self,
        file: &File,
        references: &[(String, String)],
        done: &mut HashSet<String>,
        depth: usize,
    ) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(bad("imports are nested too deeply"));
        }
        for import in &file.imports {
            if !done.insert(import.clone()) {
                continue;
            }
            let text = references.iter().find(|(name, _)| name == import).map(|(_, text)| text.as_str());
            let Some(text) = text.or_else(|| built_in(import)) else {
                return Err(bad(format!("\"{import}\" is imported, but no reference has that name")));
            };
            let imported = self.file(text).map_err(|e| bad(format!("\"{import}\": {}", e.message())))?;
            self.imports(&imported, references, done, depth + 1)?;
        }
        Ok(())
    }

    fn resolve(mut self, main: File, own_enums: usize) -> Result<ProtoSchema> {
        let mut left = LOOKUP_BYTES_MAX;
        for raw in &self.open {
            let message = &self.messages[raw.message];
            let found = match raw.name.strip_prefix('.') {
                Some(full) => self.names.get(full),
                None => {
                    // From the innermost scope outwards.
                    let mut scope = message.full_name.as_str();
                    loop {
                        left = match left.checked_sub(scope.len() + raw.name.len()) {
                            Some(left) => left,
                            None => return Err(bad("the names of the fields' types are too long to be looked up")),
                        };
                        let full = if scope.is_empty() { raw.name.clone() } else { format!("{scope}.{}", raw.name) };
                        if let Some(found) = self.names.get(&full) {
                            break Some(found);
                        }
                        if scope.is_empty() {
                            break None;
                        }
                        scope = scope.rsplit_once('.').map_or("", |(outer, _)| outer);
                    }
                }
            };
            let Some(found) = found.cloned() else {
                let field = &message.fields[raw.field].name;
                return Err(bad(format!("field \"{field}\" has type \"{}\", which is not defined", raw.name)));
            };
            match &mut self.messages[raw.message].fields[raw.field].ty {
                FieldType::Map(_, value) => **value = found,
                ty => *ty = found,
            }
        }
        let File { messages: roots, imports, package, syntax } = main;
        Ok(ProtoSchema { messages: self.messages, enums: self.enums, roots, package, imports, syntax, own_enums })
    }

    fn file(&mut self, text: &str) -> Result<File> {
        let mut tokens = Tokens { text, pos: 0, line: 1 };
        let mut file =
            // What a file is that does not say it.
            File { messages: Vec::new(), imports: Vec::new(), package: String::new(), syntax: Syntax::Proto2 };
        let mut package = String::new();
        let mut features = Features::of(file.syntax);
        while let Some(token) = tokens.next()? {
            match token {
                Token::Word("syntax") => {
                    tokens.symbol('=')?;
                    file.syntax = Syntax::named(&tokens.string()?)?;
                    tokens.symbol(';')?;
                    features = Features::of(file.syntax);
                }
                Token::Word("edition") => {
                    tokens.symbol('=')?;
                    file.syntax = Syntax::edition(&tokens.string()?)?;
                    tokens.symbol(';')?;
                    features = Features::of(file.syntax);
                    // Wherever they stand, they are of the whole file.
                    tokens.clone().features_of_file(file.syntax, &mut features)?;
                }
                Token::Word("package") => {
                    package = tokens.word()?.to_owned();
                    tokens.symbol(';')?;
                }
                Token::Word("import") => {
                    let mut import = tokens.required()?;
                    if let Token::Word("option") = import {
                        // Of a file that says options alone.
                        tokens.skip_statement()?;
                        continue;
                    }
                    if let Token::Word("public" | "weak") = import {
                        import = tokens.required()?;
                    }
                    match import {
                        Token::String(name) => file.imports.push(name),
                        _ => return Err(tokens.expected("the name of a file")),
                    }
                    tokens.symbol(';')?;
                }
                Token::Word("message") => {
                    let index = self.message(&mut tokens, &package, (file.syntax, features), 0)?;
                    file.messages.push(index);
                }
                Token::Word("enum") => self.enumeration(&mut tokens, &package, (file.syntax, features))?,
                // In front of messages and enums.
                Token::Word("export" | "local") if file.syntax.is_edition() => {}
                Token::Word("option" | "service" | "extend") => tokens.skip_statement()?,
                Token::Symbol(';') => {}
                _ => return Err(tokens.expected("a declaration")),
            }
        }
        file.package = package;
        Ok(file)
    }

    /// The full name of what is defined next.
    fn define(&mut self, scope: &str, name: &str, ty: FieldType) -> Result<String> {
        let bytes = scope.len() + 1 + name.len();
        if bytes > NAME_BYTES_MAX {
            return Err(bad(format!("a name has {bytes} bytes with its package, more than {NAME_BYTES_MAX}")));
        }
        self.names_bytes += bytes;
        if self.names_bytes > NAMES_BYTES_MAX {
            return Err(bad(format!("the names have more than {NAMES_BYTES_MAX} bytes with their packages")));
        }
        if self.messages.len().max(self.enums.len()) >= TYPES_MAX {
            return Err(bad(format!("the schema has more than {TYPES_MAX} messages or enums")));
        }
        let name = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        match self.names.insert(name.clone(), ty) {
            None => Ok(name),
            Some(_) => Err(bad(format!("\"{name}\" is defined twice"))),
        }
    }

    fn message(
        &mut self,
        tokens: &mut Tokens<'_>,
        scope: &str,
        (syntax, features): (Syntax, Features),
        depth: usize,
    ) -> Result<usize> {
        if depth > DEPTH_MAX {
            return Err(bad(format!("messages are nested deeper than {DEPTH_MAX} levels")));
        }
        let name = tokens.word()?;
        let index = self.messages.len();
        let full_name = self.define(scope, name, FieldType::Message(index))?;
        let (fields, nested, oneofs) = (Vec::new(), Vec::new(), Vec::new());
        self.messages.push(Message { full_name: full_name.clone(), fields, nested, oneofs });
        tokens.symbol('{')?;
        loop {
            match tokens.required()? {
                Token::Symbol('}') => break,
                Token::Symbol(';') => {}
                Token::Word("message") => {
                    let nested = self.message(tokens, &full_name, (syntax, features), depth + 1)?;
                    self.messages[index].nested.push(nested);
                }
                Token::Word("enum") => self.enumeration(tokens, &full_name, (syntax, features))?,
                Token::Word("export" | "local") if syntax.is_edition() && tokens.is_type_ahead()? => {}
                Token::Word("option") if syntax.is_edition() => {
                    // None that counts here can be set on a message.
                    let mut ignored = Options { features, digits: (None, None) };
                    tokens.option(syntax, Target::Message, &mut ignored)?;
                }
                Token::Word("option" | "reserved" | "extensions" | "extend") => tokens.skip_statement()?,
                Token::Word("oneof") => {
                    let name = tokens.word()?.to_owned();
                    let oneof = self.messages[index].oneofs.len();
                    self.messages[index].oneofs.push(name);
                    tokens.symbol('{')?;
                    loop {
                        match tokens.required()? {
                            Token::Symbol('}') => break,
                            Token::Symbol(';') => {}
                            Token::Word("option") => tokens.skip_statement()?,
                            Token::Word(ty) => {
                                self.field(tokens, index, ty, Label::Optional, Some(oneof), (syntax, features))?;
                            }
                            _ => return Err(tokens.expected("a field")),
                        }
                    }
                }
                Token::Word(label @ ("repeated" | "optional" | "required")) => {
                    if syntax.is_edition() && label != "repeated" {
                        return Err(tokens.refused(&format!(
                            "editions have no label \"{label}\"; the feature \"field_presence\" says it"
                        )));
                    }
                    let ty = tokens.word()?;
                    let label = if label == "repeated" { Label::Repeated } else { Label::Optional };
                    self.field(tokens, index, ty, label, None, (syntax, features))?;
                }
                Token::Word(ty) => self.field(tokens, index, ty, Label::None, None, (syntax, features))?,
                _ => return Err(tokens.expected("a field")),
            }
        }
        Ok(index)
    }

    fn field(
        &mut self,
        tokens: &mut Tokens<'_>,
        message: usize,
        ty: &str,
        label: Label,
        oneof: Option<usize>,
        (syntax, features): (Syntax, Features),
    ) -> Result<()> {
        let mut open = None;
        let ty = if ty == "map" {
            tokens.symbol('<')?;
            let key = scalar(tokens.word()?).ok_or_else(|| bad("a map's key is a number, a bool or a string"))?;
            tokens.symbol(',')?;
            let name = tokens.word()?;
            let value = scalar(name).unwrap_or_else(|| {
                open = Some(name.to_owned());
                FieldType::Bool
            });
            tokens.symbol('>')?;
            FieldType::Map(Box::new(key), Box::new(value))
        } else {
            scalar(ty).unwrap_or_else(|| {
                open = Some(ty.to_owned());
                FieldType::Bool
            })
        };
        let name = tokens.word()?.to_owned();
        tokens.symbol('=')?;
        let number = tokens.word()?;
        let number = parse_number(number).and_then(|n| u32::try_from(n).ok()).filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or_else(|| bad(format!("field \"{name}\" has no number of 1 to 536870911")))?;
        let mut options = Options { features, digits: (None, None) };
        match tokens.required()? {
            Token::Symbol(';') => {}
            Token::Symbol('[') => {
                while tokens.option(syntax, Target::Field, &mut options)? == ',' {}
                tokens.symbol(';')?;
            }
            _ => return Err(tokens.expected("';'")),
        }
        let Options { features, digits } = options;
        let repeated = label == Label::Repeated;
        let optional = label == Label::Optional || label == Label::None && features.presence;
        let fields = &mut self.messages[message].fields;
        if !self.numbers.insert((message, number)) || !self.field_names.insert((message, name.clone())) {
            return Err(bad(format!("field \"{name}\" or its number {number} is there twice")));
        }
        if let Some(name) = open {
            self.open.push(RawField { message, field: fields.len(), name });
        }
        fields.push(ProtoField { name, number, repeated, optional, packed: features.packed, oneof, ty, digits });
        Ok(())
    }

    fn enumeration(
        &mut self,
        tokens: &mut Tokens<'_>,
        scope: &str,
        (syntax, features): (Syntax, Features),
    ) -> Result<()> {
        let name = tokens.word()?;
        let full_name = self.define(scope, name, FieldType::Enum(self.enums.len()))?;
        let mut values = Vec::new();
        let mut options = Options { features, digits: (None, None) };
        tokens.symbol('{')?;
        loop {
            match tokens.required()? {
                Token::Symbol('}') => break,
                Token::Symbol(';') => {}
                Token::Word("option") if syntax.is_edition() => {
                    tokens.option(syntax, Target::Enum, &mut options)?;
                }
                Token::Word("option" | "reserved") => tokens.skip_statement()?,
                Token::Word(symbol) => {
                    tokens.symbol('=')?;
                    let negative = tokens.take_symbol('-')?;
                    let number = parse_number(tokens.word()?).map(|n| if negative { -n } else { n });
                    let number = number.and_then(|n| i32::try_from(n).ok());
                    values.push((symbol.to_owned(), number.ok_or_else(|| bad("an enum's value is a number"))?));
                    match tokens.required()? {
                        Token::Symbol(';') => {}
                        Token::Symbol('[') => {
                            // Nothing that counts here can be set on a value.
                            tokens.skip_brackets()?;
                            tokens.symbol(';')?;
                        }
                        _ => return Err(tokens.expected("';'")),
                    }
                }
                _ => return Err(tokens.expected("a value")),
            }
        }
        self.enums.push(Enum { full_name, values, closed: options.features.closed });
        Ok(())
    }
}

fn bad(message: impl Into<String>) -> Error {
    Error::bad_request(message)
}

fn parse_number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn scalar(name: &str) -> Option<FieldType> {
    Some(match name {
        "double" => FieldType::Double,
        "float" => FieldType::Float,
        "int32" => FieldType::Int32,
        "int64" => FieldType::Int64,
        "uint32" => FieldType::Uint32,
        "uint64" => FieldType::Uint64,
        "sint32" => FieldType::Sint32,
        "sint64" => FieldType::Sint64,
        "fixed32" => FieldType::Fixed32,
        "fixed64" => FieldType::Fixed64,
        "sfixed32" => FieldType::Sfixed32,
        "sfixed64" => FieldType::Sfixed64,
        "bool" => FieldType::Bool,
        "string" => FieldType::String,
        "bytes" => FieldType::Bytes,
        _ => return None,
    })
}

enum Token<'a> {
    /// A name with its points, or a number.
    Word(&'a str),
    String(String),
    Symbol(char),
}

#[derive(Clone)]
struct Tokens<'a> {
    text: &'a str,
    pos: usize,
    line: usize,
}

impl<'a> Tokens<'a> {
    fn expected(&self, what: &str) -> Error {
        bad(format!("not a protobuf schema: expected {what} in line {}", self.line))
    }

    fn refused(&self, why: &str) -> Error {
        bad(format!("{why}, in line {}", self.line))
    }

    fn next(&mut self) -> Result<Option<Token<'a>>> {
        loop {
            let rest = &self.text[self.pos..];
            let Some(c) = rest.chars().next() else { return Ok(None) };
            if c.is_whitespace() {
                self.line += usize::from(c == '\n');
                self.pos += c.len_utf8();
                continue;
            }
            if rest.starts_with("//") {
                self.pos += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            if rest.starts_with("/*") {
                let Some(end) = rest.find("*/") else { return Err(self.expected("the end of a comment")) };
                self.line += rest[..end].matches('\n').count();
                self.pos += end + 2;
                continue;
            }
            if c == '"' || c == '\'' {
                let mut text = String::new();
                let mut chars = rest.char_indices().skip(1);
                while let Some((at, one)) = chars.next() {
                    if one == c {
                        self.pos += at + 1;
                        return Ok(Some(Token::String(text)));
                    }
                    if one == '\\' {
                        text.extend(chars.next().map(|(_, escaped)| escaped));
                    } else {
                        text.push(one);
                    }
                }
                return Err(self.expected("the end of a text"));
            }
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            if is_word(c) {
                let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                self.pos += len;
                return Ok(Some(Token::Word(&rest[..len])));
            }
            self.pos += c.len_utf8();
            return Ok(Some(Token::Symbol(c)));
        }
    }

    fn required(&mut self) -> Result<Token<'a>> {
        match self.next()? {
            Some(token) => Ok(token),
            None => Err(self.expected("more")),
        }
    }

    fn word(&mut self) -> Result<&'a str> {
        match self.required()? {
            Token::Word(word) => Ok(word),
            _ => Err(self.expected("a name")),
        }
    }

    fn string(&mut self) -> Result<String> {
        match self.required()? {
            Token::String(text) => Ok(text),
            _ => Err(self.expected("a text in quotes")),
        }
    }

    fn symbol(&mut self, wanted: char) -> Result<()> {
        match self.required()? {
            Token::Symbol(c) if c == wanted => Ok(()),
            _ => Err(self.expected(&format!("'{wanted}'"))),
        }
    }

    fn take_symbol(&mut self, wanted: char) -> Result<bool> {
        let (pos, line) = (self.pos, self.line);
        if let Some(Token::Symbol(c)) = self.next()?
            && c == wanted
        {
            return Ok(true);
        }
        (self.pos, self.line) = (pos, line);
        Ok(false)
    }

    /// Up to the semicolon, or to the end of the braces that come before it.
    fn skip_statement(&mut self) -> Result<()> {
        let mut depth = 0;
        loop {
            match self.required()? {
                Token::Symbol('{' | '[' | '(') => depth += 1,
                Token::Symbol(']' | ')') if depth > 0 => depth -= 1,
                Token::Symbol('}') if depth > 0 => {
                    depth -= 1;
                    if depth == 0 {
                        self.take_symbol(';')?;
                        return Ok(());
                    }
                }
                Token::Symbol(';') if depth == 0 => return Ok(()),
                _ => {}
            }
        }
    }

    /// Up to the bracket that closes the one before it.
    fn skip_brackets(&mut self) -> Result<()> {
        let mut depth = 1;
        while depth > 0 {
            match self.required()? {
                Token::Symbol('[' | '{' | '(') => depth += 1,
                Token::Symbol(']' | '}' | ')') => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a message or an enum is declared next.
    fn is_type_ahead(&self) -> Result<bool> {
        let mut ahead = self.clone();
        // A field of a type that is called so has `name = number` there.
        let declares = matches!(ahead.required()?, Token::Word("message" | "enum"));
        Ok(declares && matches!(ahead.required()?, Token::Word(_)))
    }

    /// Features that the rest of a file sets for all of it.
    fn features_of_file(mut self, syntax: Syntax, features: &mut Features) -> Result<()> {
        let mut options = Options { features: *features, digits: (None, None) };
        while let Some(token) = self.next()? {
            match token {
                Token::Word("option") => {
                    self.option(syntax, Target::File, &mut options)?;
                }
                Token::Symbol(';') => {}
                _ => self.skip_statement()?,
            }
        }
        *features = options.features;
        Ok(())
    }

    /// One option up to what ends it, which is returned: a semicolon, or in brackets a comma or the bracket. Of interest are
    /// features of editions, `packed` of the others, and the digits of a decimal, which stand as pairs of `key` and `value` in
    /// either order.
    fn option(&mut self, syntax: Syntax, target: Target, options: &mut Options) -> Result<char> {
        let mut name = String::new();
        loop {
            match self.required()? {
                Token::Word(word) => name.push_str(word),
                Token::Symbol('=') => break,
                Token::Symbol(end @ (';' | ',' | ']')) => return Ok(end),
                Token::Symbol(c) => name.push(c),
                Token::String(_) => return Err(self.expected("an option")),
            }
        }
        let features = syntax.is_edition().then(|| name.strip_prefix("features")).flatten();
        let features = features.filter(|rest| rest.is_empty() || rest.starts_with('.'));
        let mut depth = 0;
        let (mut key, mut value) = (None::<String>, None::<String>);
        let mut last = "";
        let end = loop {
            match self.required()? {
                Token::Symbol(end @ (';' | ',' | ']')) if depth == 0 => break end,
                Token::Symbol('[' | '{' | '(') => depth += 1,
                Token::Symbol(']' | '}' | ')') => {
                    depth -= 1;
                    if depth < 0 {
                        return Err(self.expected("the end of an option"));
                    }
                    match (key.take(), value.take()) {
                        (Some(key), Some(number)) if key == "precision" => {
                            options.digits.0 = number.trim().parse().ok();
                        }
                        (Some(key), Some(number)) if key == "scale" => options.digits.1 = number.trim().parse().ok(),
                        _ => {}
                    }
                }
                Token::Word(word) => {
                    match features {
                        // Several in braces, `name: VALUE` each.
                        Some("") if depth == 1 && last.is_empty() => last = word,
                        Some("") if depth == 1 => self.feature(options, std::mem::take(&mut last), word, target)?,
                        Some(one) if depth == 0 => {
                            self.feature(options, one.trim_start_matches('.'), word, target)?;
                        }
                        _ => {}
                    }
                    if features.is_some() {
                        continue;
                    }
                    if depth == 0 && name == "packed" {
                        if syntax.is_edition() {
                            let why =
                                "editions have no option \"packed\"; the feature \"repeated_field_encoding\" says it";
                            return Err(self.refused(why));
                        }
                        options.features.packed = word == "true";
                    }
                    last = word;
                }
                Token::String(text) if last == "key" => key = Some(text),
                Token::String(text) if last == "value" => value = Some(text),
                _ => {}
            }
        };
        Ok(end)
    }

    fn feature(&self, options: &mut Options, name: &str, value: &str, target: Target) -> Result<()> {
        options.features.set(name, value, target).map_err(|e| self.refused(e.message()))
    }
}
