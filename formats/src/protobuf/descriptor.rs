//! Protobuf schemas in their compiled form, `FileDescriptorProto`: some clients register and ask for them so.
//!
//! What text cannot say through this crate's reading of it (comments, options but `packed`, features and those of decimals,
//! reserved numbers, that a field is required) is lost.

use std::fmt::Write as _;

use millpond_types::{Error, Result};

use super::encode::write_bytes;
use super::features::{Features, Syntax, numbers, words};
use super::schema::{FieldType, ProtoField, ProtoSchema};
use super::wire::{Kind, Payload, Reader, write_tag, write_varint};

/// Deepest nesting of messages.
const DEPTH_MAX: usize = 32;
/// Number of Confluent's option that says the digits of a decimal.
const FIELD_META: usize = 1088;
/// Numbers of the features among the options of files, fields and enums.
const FILE_FEATURES: usize = 50;
const FIELD_FEATURES: usize = 21;
const ENUM_FEATURES: usize = 7;
/// The syntax of a file that has an edition.
const EDITIONS: &str = "editions";

fn damaged() -> Error {
    Error::bad_request("neither the text of a protobuf schema nor a file descriptor")
}

type Fields<'a> = Vec<(usize, Payload<'a>)>;

fn fields(mut reader: Reader<'_>) -> Result<Fields<'_>> {
    let mut all = Vec::new();
    while !reader.is_at_end() {
        all.push(reader.field().map_err(|_| damaged())?);
    }
    Ok(all)
}

fn texts(fields: &Fields<'_>, number: usize) -> Result<Vec<String>> {
    let found = messages(fields, number);
    found.map(|r| String::from_utf8(r.rest().to_vec()).map_err(|_| damaged())).collect()
}

/// Names come from the wire: only what can be one becomes part of a text.
fn name(fields: &Fields<'_>, number: usize) -> Result<String> {
    let text = texts(fields, number)?.pop().unwrap_or_default();
    let fits = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    if fits { Ok(text) } else { Err(damaged()) }
}

fn messages<'a>(fields: &Fields<'a>, number: usize) -> impl Iterator<Item = Reader<'a>> {
    let wanted = fields.iter().filter(move |(n, _)| *n == number);
    wanted
        .filter_map(|(_, payload)| if let Payload::Len(reader) = payload { Some(*reader) } else { None })
        .collect::<Vec<_>>()
        .into_iter()
}

fn number(fields: &Fields<'_>, number: usize) -> Option<u64> {
    fields.iter().rev().find_map(|(n, payload)| match payload {
        Payload::Varint(value) if *n == number => Some(*value),
        _ => None,
    })
}

/// The text of a compiled schema.
pub fn text_of(bytes: &[u8]) -> Result<String> {
    let file = fields(Reader::new(bytes))?;
    let syntax = match texts(&file, 12)?.pop().as_deref() {
        None | Some("") => Syntax::Proto2,
        Some(EDITIONS) => Syntax::edition_numbered(number(&file, 14).unwrap_or(0))?,
        Some(name) => Syntax::named(name)?,
    };
    let mut out = String::new();
    let _ = match syntax {
        Syntax::Proto2 => writeln!(out, "syntax = \"proto2\";"),
        Syntax::Proto3 => writeln!(out, "syntax = \"proto3\";"),
        Syntax::Edition(edition) => writeln!(out, "edition = \"{}\";", edition.name),
    };
    let package = name(&file, 2)?;
    if !package.is_empty() {
        let _ = writeln!(out, "package {package};");
    }
    let imports = texts(&file, 3)?;
    if !imports.is_empty() {
        out.push('\n');
    }
    for import in imports {
        if import.chars().any(|c| c == '"' || c == '\\' || c.is_control()) {
            return Err(damaged());
        }
        let _ = writeln!(out, "import \"{import}\";");
    }
    for (feature, value) in features(&file, 8, FILE_FEATURES)? {
        let _ = writeln!(out, "option features.{feature} = {value};");
    }
    for message in messages(&file, 4) {
        out.push('\n');
        write_message(&mut out, &fields(message)?, syntax, 0)?;
    }
    for one in messages(&file, 5) {
        out.push('\n');
        write_enum(&mut out, &fields(one)?, 0)?;
    }
    Ok(out)
}

/// The features that the options of something, at `options` in it, set at `at`.
fn features(of: &Fields<'_>, options: usize, at: usize) -> Result<Vec<(&'static str, &'static str)>> {
    let mut all = Vec::new();
    for options in messages(of, options) {
        for set in messages(&fields(options)?, at) {
            for (feature, payload) in fields(set)? {
                if let Payload::Varint(value) = payload {
                    all.extend(words(feature, value).transpose()?);
                }
            }
        }
    }
    Ok(all)
}

fn write_enum(out: &mut String, one: &Fields<'_>, depth: usize) -> Result<()> {
    let indent = "  ".repeat(depth);
    let _ = writeln!(out, "{indent}enum {} {{", name(one, 1)?);
    for (feature, value) in features(one, 3, ENUM_FEATURES)? {
        let _ = writeln!(out, "{indent}  option features.{feature} = {value};");
    }
    for value in messages(one, 2) {
        let value = fields(value)?;
        let _ = writeln!(out, "{indent}  {} = {};", name(&value, 1)?, number(&value, 2).unwrap_or(0) as i32);
    }
    let _ = writeln!(out, "{indent}}}");
    Ok(())
}

fn write_message(out: &mut String, message: &Fields<'_>, syntax: Syntax, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(damaged());
    }
    let indent = "  ".repeat(depth);
    let _ = writeln!(out, "{indent}message {} {{", name(message, 1)?);
    let mut nested = Vec::new();
    let mut entries = Vec::new();
    for one in messages(message, 3) {
        let one = fields(one)?;
        let is_entry = match messages(&one, 7).next() {
            Some(options) => number(&fields(options)?, 7) == Some(1),
            None => false,
        };
        if is_entry { entries.push((name(&one, 1)?, one)) } else { nested.push(one) }
    }
    let declared = messages(message, 2).map(fields).collect::<Result<Vec<_>>>()?;
    for (i, oneof) in messages(message, 8).enumerate() {
        let members: Vec<&Fields<'_>> =
            declared.iter().filter(|f| number(f, 9) == Some(i as u64) && number(f, 17) != Some(1)).collect();
        if members.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{indent}  oneof {} {{", name(&fields(oneof)?, 1)?);
        for field in members {
            write_field(out, field, "", &entries, depth + 2)?;
        }
        let _ = writeln!(out, "{indent}  }}");
    }
    for field in &declared {
        let synthetic = number(field, 17) == Some(1);
        if number(field, 9).is_some() && !synthetic {
            continue;
        }
        let label = match number(field, 4) {
            Some(3) => "repeated ",
            Some(2) => "required ",
            _ if synthetic || syntax == Syntax::Proto2 => "optional ",
            _ => "",
        };
        write_field(out, field, label, &entries, depth + 1)?;
    }
    for one in nested {
        out.push('\n');
        write_message(out, &one, syntax, depth + 1)?;
    }
    for one in messages(message, 4) {
        out.push('\n');
        write_enum(out, &fields(one)?, depth + 1)?;
    }
    let _ = writeln!(out, "{indent}}}");
    Ok(())
}

fn write_field(
    out: &mut String,
    field: &Fields<'_>,
    label: &str,
    entries: &[(String, Fields<'_>)],
    depth: usize,
) -> Result<()> {
    let indent = "  ".repeat(depth);
    let ty = type_name(field)?;
    let simple = ty.rsplit('.').next().unwrap_or_default();
    let entry = entries.iter().find(|(n, _)| number(field, 5) == Some(11) && n == simple);
    let shown = match entry {
        Some((_, entry)) => {
            let parts = messages(entry, 2).map(fields).collect::<Result<Vec<_>>>()?;
            let part = |n: u64| parts.iter().find(|p| number(p, 3) == Some(n)).ok_or_else(damaged);
            format!("map<{}, {}>", type_name(part(1)?)?, type_name(part(2)?)?)
        }
        None => format!("{label}{ty}"),
    };
    let mut options = Vec::new();
    for (feature, value) in features(field, 8, FIELD_FEATURES)? {
        options.push(format!("features.{feature} = {value}"));
    }
    if let Some(given) = messages(field, 8).next()
        && let Some(packed) = number(&fields(given)?, 2)
    {
        options.push(format!("packed = {}", packed != 0));
    }
    if let Some(given) = messages(field, 8).next()
        && let Some(meta) = messages(&fields(given)?, FIELD_META).next()
    {
        let mut pairs = Vec::new();
        for pair in messages(&fields(meta)?, 2) {
            let pair = fields(pair)?;
            pairs.push(format!("{{ key: \"{}\", value: \"{}\" }}", name(&pair, 1)?, name(&pair, 2)?));
        }
        options.push(format!("(confluent.field_meta) = {{ params: [{}] }}", pairs.join(", ")));
    }
    let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join(", ")) };
    let _ = writeln!(out, "{indent}{shown} {} = {}{options};", name(field, 1)?, number(field, 3).unwrap_or(0));
    Ok(())
}

const TYPES: [(&str, FieldType); 15] = [
    ("double", FieldType::Double),
    ("float", FieldType::Float),
    ("int64", FieldType::Int64),
    ("uint64", FieldType::Uint64),
    ("int32", FieldType::Int32),
    ("fixed64", FieldType::Fixed64),
    ("fixed32", FieldType::Fixed32),
    ("bool", FieldType::Bool),
    ("string", FieldType::String),
    ("bytes", FieldType::Bytes),
    ("uint32", FieldType::Uint32),
    ("sfixed32", FieldType::Sfixed32),
    ("sfixed64", FieldType::Sfixed64),
    ("sint32", FieldType::Sint32),
    ("sint64", FieldType::Sint64),
];
/// The numbers that a descriptor has for these types, in their order.
const TYPE_NUMBERS: [u64; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 18];
const MESSAGE: u64 = 11;
const ENUM: u64 = 14;

fn type_name(field: &Fields<'_>) -> Result<String> {
    let ty = number(field, 5).unwrap_or(0);
    if ty == MESSAGE || ty == ENUM {
        return name(field, 6);
    }
    let at = TYPE_NUMBERS.iter().position(|n| *n == ty).ok_or_else(damaged)?;
    Ok(TYPES[at].0.to_owned())
}

fn put_text(out: &mut Vec<u8>, number: usize, text: &str) {
    write_bytes(out, number, text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, number: usize, value: u64) {
    write_tag(out, number, Kind::Varint);
    write_varint(out, value);
}

/// The compiled form of a schema, under a file name.
pub fn descriptor_of(schema: &ProtoSchema, file: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, file);
    if !schema.package.is_empty() {
        put_text(&mut out, 2, &schema.package);
    }
    schema.imports.iter().for_each(|import| put_text(&mut out, 3, import));
    for &root in &schema.roots {
        write_bytes(&mut out, 4, &message_of(schema, root));
    }
    for one in enums_in(schema, &schema.package, schema.own_enums) {
        write_bytes(&mut out, 5, &one);
    }
    match schema.syntax {
        Syntax::Proto2 => put_text(&mut out, 12, "proto2"),
        Syntax::Proto3 => put_text(&mut out, 12, "proto3"),
        Syntax::Edition(edition) => {
            put_text(&mut out, 12, EDITIONS);
            put_number(&mut out, 14, edition.number);
        }
    }
    out
}

fn enums_in(schema: &ProtoSchema, scope: &str, own: usize) -> Vec<Vec<u8>> {
    let here = schema.enums.iter().take(own).filter(|e| e.full_name.rsplit_once('.').map_or("", |(s, _)| s) == scope);
    here.map(|one| {
        let mut out = Vec::new();
        put_text(&mut out, 1, simple(&one.full_name));
        for (label, value) in &one.values {
            let mut entry = Vec::new();
            put_text(&mut entry, 1, label);
            put_number(&mut entry, 2, i64::from(*value) as u64);
            write_bytes(&mut out, 2, &entry);
        }
        let mut set = Vec::new();
        if schema.syntax.is_edition() && one.closed != Features::of(schema.syntax).closed {
            put_feature(&mut set, "enum_type", if one.closed { "CLOSED" } else { "OPEN" });
        }
        put_options(&mut out, 3, ENUM_FEATURES, &set, &[]);
        out
    })
    .collect()
}

fn simple(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The name of the message that a map's entries are.
fn entry_name(field: &str) -> String {
    let mut out = String::new();
    for word in field.split('_') {
        let mut chars = word.chars();
        out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(chars.as_str());
    }
    out + "Entry"
}

fn put_feature(out: &mut Vec<u8>, name: &str, value: &str) {
    if let Some((feature, value)) = numbers(name, value) {
        put_number(out, feature, value);
    }
}

/// Options, of which the features are one; nothing where there are none.
fn put_options(out: &mut Vec<u8>, number: usize, at: usize, features: &[u8], others: &[u8]) {
    let mut options = others.to_vec();
    if !features.is_empty() {
        write_bytes(&mut options, at, features);
    }
    if !options.is_empty() {
        write_bytes(out, number, &options);
    }
}

/// What a field says otherwise than its file's syntax.
fn put_field_options(out: &mut Vec<u8>, syntax: Syntax, field: &ProtoField) {
    let usual = Features::of(syntax);
    let (mut features, mut others) = (Vec::new(), Vec::new());
    let is_single = !field.repeated && field.oneof.is_none();
    let is_number =
        !matches!(field.ty, FieldType::String | FieldType::Bytes | FieldType::Message(_) | FieldType::Map(..));
    let is_scalar = !matches!(field.ty, FieldType::Message(_) | FieldType::Map(..));
    if syntax.is_edition() && is_single && is_scalar && !field.optional {
        put_feature(&mut features, "field_presence", "IMPLICIT");
    }
    if field.repeated && is_number && field.packed != usual.packed {
        match syntax {
            Syntax::Edition(_) => {
                let value = if field.packed { "PACKED" } else { "EXPANDED" };
                put_feature(&mut features, "repeated_field_encoding", value);
            }
            _ => put_number(&mut others, 2, u64::from(field.packed)),
        }
    }
    put_options(out, 8, FIELD_FEATURES, &features, &others);
}

fn put_type(out: &mut Vec<u8>, schema: &ProtoSchema, ty: &FieldType) {
    match ty {
        FieldType::Message(at) => {
            put_number(out, 5, MESSAGE);
            put_text(out, 6, &format!(".{}", schema.messages[*at].full_name));
        }
        FieldType::Enum(at) => {
            put_number(out, 5, ENUM);
            put_text(out, 6, &format!(".{}", schema.enums[*at].full_name));
        }
        scalar => {
            let at = TYPES.iter().position(|(_, ty)| ty == scalar).unwrap_or(0);
            put_number(out, 5, TYPE_NUMBERS[at]);
        }
    }
}

fn message_of(schema: &ProtoSchema, at: usize) -> Vec<u8> {
    let message = &schema.messages[at];
    let mut out = Vec::new();
    put_text(&mut out, 1, simple(&message.full_name));
    let mut entries = Vec::new();
    // An optional scalar of proto3 is a oneof of its own, behind the real ones.
    let mut synthetic = Vec::new();
    for field in &message.fields {
        let mut one = Vec::new();
        put_text(&mut one, 1, &field.name);
        put_number(&mut one, 3, u64::from(field.number));
        let is_map = matches!(field.ty, FieldType::Map(..));
        put_number(&mut one, 4, if field.repeated || is_map { 3 } else { 1 });
        if let FieldType::Map(key, value) = &field.ty {
            let name = entry_name(&field.name);
            put_number(&mut one, 5, MESSAGE);
            put_text(&mut one, 6, &format!(".{}.{name}", message.full_name));
            let mut entry = Vec::new();
            put_text(&mut entry, 1, &name);
            for (number, label, ty) in [(1, "key", key), (2, "value", value)] {
                let mut part = Vec::new();
                put_text(&mut part, 1, label);
                put_number(&mut part, 3, number);
                put_number(&mut part, 4, 1);
                put_type(&mut part, schema, ty);
                write_bytes(&mut entry, 2, &part);
            }
            // map_entry
            write_bytes(&mut entry, 7, &[0x38, 1]);
            entries.push(entry);
        } else {
            put_type(&mut one, schema, &field.ty);
        }
        match field.oneof {
            Some(oneof) => put_number(&mut one, 9, oneof as u64),
            None if field.optional && schema.syntax == Syntax::Proto3 => {
                put_number(&mut one, 9, (message.oneofs.len() + synthetic.len()) as u64);
                put_number(&mut one, 17, 1);
                synthetic.push(format!("_{}", field.name));
            }
            None => {}
        }
        put_field_options(&mut one, schema.syntax, field);
        write_bytes(&mut out, 2, &one);
    }
    for &nested in &message.nested {
        write_bytes(&mut out, 3, &message_of(schema, nested));
    }
    entries.iter().for_each(|entry| write_bytes(&mut out, 3, entry));
    for one in enums_in(schema, &message.full_name, schema.own_enums) {
        write_bytes(&mut out, 4, &one);
    }
    for label in message.oneofs.iter().chain(&synthetic) {
        let mut one = Vec::new();
        put_text(&mut one, 1, label);
        write_bytes(&mut out, 8, &one);
    }
    out
}
