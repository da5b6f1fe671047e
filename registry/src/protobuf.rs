//! Whether messages of one Protobuf schema can be read with another.

use std::collections::{HashMap, HashSet};

use millpond_formats::protobuf::ProtoSchema;
use millpond_formats::protobuf::schema::{FieldType, Message, ProtoField};

const FAULTS_MAX: usize = 20;

pub fn faults(reader: &ProtoSchema, writer: &ProtoSchema) -> Vec<String> {
    let mut check = Check { reader, writer, seen: HashSet::new(), faults: Vec::new() };
    let named = by_name(reader, &reader.roots);
    for &root in &writer.roots {
        let name = &writer.messages[root].full_name;
        match named.get(name.as_str()) {
            Some(&found) => check.message(found, root),
            None => check.fault("MESSAGE_REMOVED", format!("#/{name}")),
        }
    }
    check.faults
}

fn by_name<'a>(schema: &'a ProtoSchema, messages: &[usize]) -> HashMap<&'a str, usize> {
    messages.iter().map(|&m| (schema.messages[m].full_name.as_str(), m)).collect()
}

struct Check<'a> {
    reader: &'a ProtoSchema,
    writer: &'a ProtoSchema,
    seen: HashSet<(usize, usize)>,
    faults: Vec<String>,
}

/// Types whose bytes are read alike.
fn group(ty: &FieldType) -> u8 {
    use FieldType as F;
    match ty {
        F::Int32 | F::Uint32 | F::Int64 | F::Uint64 | F::Bool | F::Enum(_) => 0,
        F::Sint32 | F::Sint64 => 1,
        F::String | F::Bytes => 2,
        F::Fixed32 | F::Sfixed32 => 3,
        F::Fixed64 | F::Sfixed64 => 4,
        F::Float => 5,
        F::Double => 6,
        F::Message(_) => 7,
        F::Map(..) => 8,
    }
}

/// The types of key and value of a map, in whichever way it is written. A list in an entry stands only in one of them.
fn entry_of<'a>(schema: &'a ProtoSchema, field: &'a ProtoField) -> Option<(&'a FieldType, &'a FieldType)> {
    match &field.ty {
        FieldType::Map(key, value) => Some((key, value)),
        FieldType::Message(message) if field.repeated => {
            let message = &schema.messages[*message];
            let [key, value] = message.fields.as_slice() else { return None };
            (message.is_entry() && !value.repeated).then_some((&key.ty, &value.ty))
        }
        _ => None,
    }
}

impl Check<'_> {
    fn fault(&mut self, kind: &str, path: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(format!("{{errorType:\"{kind}\", path:\"{path}\"}}"));
        }
    }

    fn message(&mut self, r: usize, w: usize) {
        if !self.seen.insert((r, w)) {
            return;
        }
        let (reader, writer) = (self.reader, self.writer);
        let (to, from): (&Message, &Message) = (&reader.messages[r], &writer.messages[w]);
        // Each message is compared once with each other one that has its place.
        let numbered: HashMap<u32, &ProtoField> = to.fields.iter().map(|f| (f.number, f)).collect();
        for written in &from.fields {
            let path = || format!("#/{}/{}", from.full_name, written.number);
            match numbered.get(&written.number) {
                Some(field) => self.field(field, written, &path()),
                // What is gone is passed over; but of a oneof one could be taken for another.
                None if written.oneof.is_some() => self.fault("ONEOF_FIELD_REMOVED", path()),
                None => {}
            }
        }
        // Entries are compared where they are used: a map may be written in two ways.
        let named = by_name(reader, &to.nested);
        for &nested in from.nested.iter().filter(|nested| !writer.messages[**nested].is_entry()) {
            let name = &writer.messages[nested].full_name;
            match named.get(name.as_str()) {
                Some(&found) => self.message(found, nested),
                None => self.fault("MESSAGE_REMOVED", format!("#/{name}")),
            }
        }
    }

    fn field(&mut self, field: &ProtoField, written: &ProtoField, path: &str) {
        let ways = [&field.ty, &written.ty].map(|ty| matches!(ty, FieldType::Map(..)));
        if ways[0] != ways[1]
            && let (Some((rk, rv)), Some((wk, wv))) = (entry_of(self.reader, field), entry_of(self.writer, written))
        {
            if group(rk) != group(wk) || group(rv) != group(wv) {
                self.fault("FIELD_KIND_CHANGED", path.to_owned());
            }
            return;
        }
        let lists_differ = field.repeated != written.repeated
            && !matches!(field.ty, FieldType::String | FieldType::Bytes | FieldType::Message(_));
        if lists_differ {
            self.fault("FIELD_NUMERIC_LABEL_CHANGED", path.to_owned());
        }
        if group(&field.ty) != group(&written.ty) {
            return self.fault("FIELD_SCALAR_KIND_CHANGED", path.to_owned());
        }
        match (&field.ty, &written.ty) {
            (FieldType::Message(r), FieldType::Message(w)) => {
                if self.reader.messages[*r].full_name != self.writer.messages[*w].full_name {
                    return self.fault("FIELD_NAMED_TYPE_CHANGED", path.to_owned());
                }
                self.message(*r, *w);
            }
            (FieldType::Map(rk, rv), FieldType::Map(wk, wv)) if group(rk) != group(wk) || group(rv) != group(wv) => {
                self.fault("FIELD_KIND_CHANGED", path.to_owned());
            }
            _ => {}
        }
    }
}
