//! Avro records into columns.
//!
//! A plan is made once for a writer's schema and the columns that are wanted: fields are found by name, exactly or else in
//! any case; what is not wanted is passed over; what the writer does not have is NULL. A record then runs through the plan.
//!
//! Invariants: how deep reading recurses is bounded by the columns' types, and for what is passed over by a constant; no count in
//! the bytes makes room before the items are there, and items without bytes are counted.

use std::cell::Cell;

use millpond_types::{Field, SqlType};

use super::columns::{entry_of, member_name};
use super::schema::{AvroSchema, Logical, Shape};
use crate::columns::{Column, Data};
use crate::json::encode::write_i64;
use crate::json::scan::{Scan, fail};
use crate::number::write_double;
use crate::protobuf::decode::decimal;

const DAY_MS: i64 = 86_400_000;
/// Deepest nesting of values that are passed over.
const SKIP_DEPTH_MAX: usize = 200;
/// Values that may be passed over for each byte: a record has no bytes of its own, and records without any could double at each
/// level.
const SKIPS_PER_BYTE: usize = 16;
/// Items without bytes that a record may have, beyond one for each of its bytes.
const EMPTY_ITEMS_MAX: usize = 10_000;

/// How records of one schema are read.
#[derive(Debug)]
pub struct Plan {
    schema: std::sync::Arc<crate::registered::Schema>,
    root: Root,
}

#[derive(Debug)]
enum Root {
    /// A record's fields are columns; with the place of the record in a union with null.
    Record {
        branch: Option<usize>,
        fields: Vec<FieldRead>,
        absent: Vec<usize>,
    },
    /// The value is the one column.
    Single(Read),
    /// Nothing is wanted.
    Nothing,
    Mismatch(String),
}

#[derive(Debug)]
struct FieldRead {
    /// The column or the STRUCT's field, and its name.
    target: Option<(usize, String)>,
    read: Read,
}

/// One type of the schema, and what becomes of it.
#[derive(Debug)]
enum Read {
    Skip(usize),
    Mismatch(String),
    Null,
    Scalar(Scalar),
    Union(Vec<Read>),
    List(Box<Read>),
    Map(Box<Read>),
    /// A map as the array of its entries; whether the key comes first. Where entries may be null: which branch of how many
    /// is an entry.
    Entries {
        key: Box<Read>,
        value: Box<Read>,
        key_first: bool,
        branch: Option<(usize, usize)>,
    },
    Record {
        fields: Vec<FieldRead>,
        absent: Vec<usize>,
    },
    /// A branch of a union that is a STRUCT: the other fields are NULL.
    Member(usize, Box<Read>),
}

#[derive(Clone, Copy, Debug)]
enum Scalar {
    Boolean,
    Int,
    Long,
    /// Microseconds, of which columns keep milliseconds.
    Micros,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    /// Node with the symbols.
    Enum(usize),
    /// Bytes, or so many of them, with a scale.
    Decimal(Option<usize>, i32),
}

fn schema_of(registered: &crate::registered::Schema) -> Option<&AvroSchema> {
    match &registered.parsed {
        crate::registered::Parsed::Avro(schema) => Some(schema),
        _ => None,
    }
}

impl Plan {
    /// `targets` are the places of the fields among the columns that are built.
    pub fn new(
        registered: std::sync::Arc<crate::registered::Schema>,
        fields: &[Field],
        targets: &[Option<usize>],
        unwrap_single: bool,
    ) -> Self {
        let root = match schema_of(&registered) {
            Some(schema) => root(schema, fields, targets, unwrap_single),
            None => Root::Mismatch(format!("the schema is a {} schema, not an AVRO one", registered.kind().name())),
        };
        Self { schema: registered, root }
    }

    /// Reads a record behind its frame; true where it is NULL as a whole, when nothing has been appended.
    pub fn record(&self, bytes: &[u8], columns: &mut [Column], spare: &Cell<usize>) -> Scan<bool> {
        let Some(schema) = schema_of(&self.schema) else { return fail(0, "not an AVRO schema") };
        let skips = bytes.len().saturating_mul(SKIPS_PER_BYTE).saturating_add(EMPTY_ITEMS_MAX);
        let mut input = Input { bytes, pos: 0, items: bytes.len() + EMPTY_ITEMS_MAX, skips, spare, schema };
        match &self.root {
            Root::Mismatch(why) => return fail(0, why.clone()),
            Root::Nothing => return Ok(false),
            Root::Record { branch, fields, absent } => {
                if let Some(branch) = branch
                    && input.branch(2)? != *branch
                {
                    return Ok(true);
                }
                record(&mut input, fields, absent, columns)?;
            }
            Root::Single(read) => {
                let Some(column) = columns.first_mut() else { return Ok(false) };
                value(&mut input, read, column)?;
            }
        }
        if input.pos < bytes.len() {
            return fail(input.pos, format!("{} bytes are left behind the record", bytes.len() - input.pos));
        }
        Ok(false)
    }
}

fn root(schema: &AvroSchema, fields: &[Field], targets: &[Option<usize>], unwrap_single: bool) -> Root {
    if unwrap_single {
        return match (fields, targets) {
            ([field], [Some(_)]) => Root::Single(compile(schema, schema.root, &field.ty)),
            _ => Root::Nothing,
        };
    }
    let (node, _) = schema.nullable(schema.root);
    let Shape::Record(written) = &schema.node(node).shape else {
        return Root::Mismatch(format!("expected a record, but the schema is {}", shown(schema, schema.root)));
    };
    let branch = match &schema.node(schema.root).shape {
        Shape::Union(branches) if branches.len() == 2 => branches.iter().position(|b| *b == node),
        Shape::Union(_) => return Root::Mismatch("expected a record, but the schema is a union".into()),
        _ => None,
    };
    let wanted: Vec<(usize, &Field)> =
        fields.iter().zip(targets).filter_map(|(field, target)| Some(((*target)?, field))).collect();
    let (fields, absent) = compile_fields(schema, &written.fields, &wanted);
    Root::Record { branch, fields, absent }
}

/// What to read of a record's fields, in the order of the writer, and the columns that it does not have.
fn compile_fields(
    schema: &AvroSchema,
    written: &[super::schema::AvroField],
    wanted: &[(usize, &Field)],
) -> (Vec<FieldRead>, Vec<usize>) {
    let (places, absent) = crate::names::places(written.iter().map(|w| w.name.as_str()), wanted);
    let mut targets: Vec<Option<(usize, &Field)>> = vec![None; written.len()];
    for (at, wanted) in places {
        targets[at] = Some(wanted);
    }
    let absent = absent.into_iter().map(|(target, _)| target).collect();
    let reads = written.iter().zip(targets).map(|(w, target)| match target {
        Some((target, field)) => {
            FieldRead { target: Some((target, field.name.clone())), read: compile(schema, w.node, &field.ty) }
        }
        None => FieldRead { target: None, read: Read::Skip(w.node) },
    });
    (reads.collect(), absent)
}

fn shown(schema: &AvroSchema, node: usize) -> String {
    super::schema::branch_name(&schema.node(node).shape).to_owned()
}

fn compile(schema: &AvroSchema, node: usize, ty: &SqlType) -> Read {
    let mismatch = || Read::Mismatch(format!("{} cannot be read as {ty}", shown(schema, node)));
    match (&schema.node(node).shape, ty) {
        (Shape::Null, _) => Read::Null,
        (Shape::Union(branches), _) => {
            let as_struct = match (schema.nullable(node), ty) {
                ((one, _), SqlType::Struct(fields)) if one == node => Some(fields),
                _ => None,
            };
            Read::Union(branches.iter().map(|&b| compile_branch(schema, b, ty, as_struct)).collect())
        }
        (Shape::Array(items), SqlType::Array(item)) => Read::List(Box::new(compile(schema, *items, item))),
        (Shape::Array(items), SqlType::Map(key, value)) => match entry_of(schema, *items) {
            Some((key_node, value_node)) => {
                let (entry, _) = schema.nullable(*items);
                let Shape::Record(record) = &schema.node(entry).shape else { return mismatch() };
                Read::Entries {
                    key: Box::new(compile(schema, key_node, key)),
                    value: Box::new(compile(schema, value_node, value)),
                    key_first: record.fields.first().is_some_and(|f| f.name == "key"),
                    branch: schema.branch_of(*items, entry),
                }
            }
            None => mismatch(),
        },
        (Shape::Map(values), SqlType::Map(_, value)) => Read::Map(Box::new(compile(schema, *values, value))),
        (Shape::Record(record), SqlType::Struct(fields)) => {
            let wanted: Vec<(usize, &Field)> = fields.iter().enumerate().collect();
            let (fields, absent) = compile_fields(schema, &record.fields, &wanted);
            Read::Record { fields, absent }
        }
        _ => match scalar_of(schema, node, ty) {
            Some(scalar) => Read::Scalar(scalar),
            None => mismatch(),
        },
    }
}

fn compile_branch(schema: &AvroSchema, branch: usize, ty: &SqlType, as_struct: Option<&Vec<Field>>) -> Read {
    let Some(fields) = as_struct else { return compile(schema, branch, ty) };
    if matches!(schema.node(branch).shape, Shape::Null) {
        return Read::Null;
    }
    let name = member_name(schema, branch);
    let exact = fields.iter().position(|f| f.name == name);
    match exact.or_else(|| fields.iter().position(|f| f.name.eq_ignore_ascii_case(name))) {
        Some(at) => Read::Member(at, Box::new(compile(schema, branch, &fields[at].ty))),
        // A STRUCT all of whose fields are NULL.
        None => Read::Member(usize::MAX, Box::new(Read::Skip(branch))),
    }
}

/// How a scalar is read into such a column, if it can be.
fn scalar_of(schema: &AvroSchema, node: usize, ty: &SqlType) -> Option<Scalar> {
    let written = schema.node(node);
    if let (Logical::Decimal { scale, .. }, SqlType::Decimal { .. }) = (written.logical, ty) {
        let size = if let Shape::Fixed { size, .. } = written.shape { Some(size) } else { None };
        return Some(Scalar::Decimal(size, i32::try_from(scale).ok()?));
    }
    if matches!(written.logical, Logical::Decimal { .. }) {
        return None;
    }
    Some(match (&written.shape, ty) {
        (Shape::Boolean, SqlType::Boolean | SqlType::String) => Scalar::Boolean,
        (
            Shape::Int,
            SqlType::Integer | SqlType::BigInt | SqlType::Double | SqlType::String | SqlType::Date | SqlType::Time,
        ) => Scalar::Int,
        (Shape::Long, SqlType::Timestamp) if written.logical == Logical::TimestampMicros => Scalar::Micros,
        (Shape::Long, SqlType::Time) if written.logical == Logical::TimeMicros => Scalar::Micros,
        (Shape::Long, SqlType::BigInt | SqlType::Double | SqlType::String | SqlType::Timestamp) => Scalar::Long,
        (Shape::Float, SqlType::Double | SqlType::String) => Scalar::Float,
        (Shape::Double, SqlType::Double | SqlType::String) => Scalar::Double,
        (Shape::String, SqlType::String) => Scalar::String,
        (Shape::Bytes, SqlType::Bytes) => Scalar::Bytes,
        (Shape::Fixed { size, .. }, SqlType::Bytes) => Scalar::Fixed(*size),
        (Shape::Enum { .. }, SqlType::String) => Scalar::Enum(node),
        _ => return None,
    })
}

struct Input<'a> {
    bytes: &'a [u8],
    pos: usize,
    /// Items of arrays and maps that may still come.
    items: usize,
    /// Values that may still be passed over.
    skips: usize,
    /// Cells that items may still need beyond their bytes.
    spare: &'a Cell<usize>,
    schema: &'a AvroSchema,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Scan<&'a [u8]> {
        match self.pos.checked_add(len).and_then(|end| self.bytes.get(self.pos..end)) {
            Some(taken) => {
                self.pos += len;
                Ok(taken)
            }
            None => fail(self.pos, format!("a value of {len} bytes is cut off")),
        }
    }

    #[inline]
    fn long(&mut self) -> Scan<i64> {
        let mut value = 0u64;
        for i in 0..10 {
            let Some(&byte) = self.bytes.get(self.pos) else { return fail(self.pos, "a number is cut off") };
            self.pos += 1;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        fail(self.pos, "a number has more than ten bytes")
    }

    fn int(&mut self) -> Scan<i32> {
        let at = self.pos;
        let value = self.long()?;
        i32::try_from(value).or_else(|_| fail(at, format!("{value} is not a 32-bit number")))
    }

    fn boolean(&mut self) -> Scan<bool> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => fail(self.pos - 1, "a boolean is neither 0 nor 1"),
        }
    }

    fn bytes(&mut self) -> Scan<&'a [u8]> {
        let at = self.pos;
        let len = self.long()?;
        match usize::try_from(len) {
            Ok(len) => self.take(len),
            Err(_) => fail(at, format!("{len} is not a length")),
        }
    }

    fn text(&mut self) -> Scan<&'a [u8]> {
        let at = self.pos;
        let bytes = self.bytes()?;
        match simdutf8::basic::from_utf8(bytes) {
            Ok(_) => Ok(bytes),
            Err(_) => fail(at, "the text is not UTF-8"),
        }
    }

    fn branch(&mut self, branches: usize) -> Scan<usize> {
        let at = self.pos;
        let branch = self.long()?;
        match usize::try_from(branch) {
            Ok(branch) if branch < branches => Ok(branch),
            _ => fail(at, format!("a union of {branches} has no branch {branch}")),
        }
    }

    /// How many items the next block has, and of how many bytes if that is said; 0 ends.
    fn block(&mut self) -> Scan<(usize, Option<usize>)> {
        let at = self.pos;
        let count = self.long()?;
        let bytes = if count < 0 { Some(self.long()?) } else { None };
        let bytes = match bytes.map(usize::try_from) {
            Some(Ok(bytes)) => Some(bytes),
            Some(Err(_)) => return fail(at, "a block has a negative size"),
            None => None,
        };
        match usize::try_from(count.unsigned_abs()) {
            Ok(count) if count <= self.items => {
                self.items -= count;
                Ok((count, bytes))
            }
            _ => fail(at, format!("a block of {count} items is more than the record has room for")),
        }
    }

    /// All items of all blocks of an array or map.
    fn items(&mut self, mut one: impl FnMut(&mut Self) -> Scan<()>) -> Scan<()> {
        loop {
            let (count, _) = self.block()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                one(self)?;
            }
        }
    }

    /// An item, which may need no more cells than the batch has left.
    fn item(&mut self, read: &Read, items: &mut Column, width: usize) -> Scan<()> {
        let at = self.pos;
        value(self, read, items)?;
        if !crate::columns::spend(self.spare, width, self.pos - at) {
            return fail(at, "the batch has more empty items than there is room for");
        }
        Ok(())
    }

    fn symbol(&mut self, node: usize) -> Scan<&'a str> {
        let at = self.pos;
        let place = self.int()?;
        let Shape::Enum { symbols, .. } = &self.schema.node(node).shape else { return fail(at, "not an enum") };
        match usize::try_from(place).ok().and_then(|i| symbols.get(i)) {
            Some(symbol) => Ok(symbol),
            None => fail(at, format!("an enum of {} symbols has no symbol {place}", symbols.len())),
        }
    }

    fn skip(&mut self, node: usize, depth: usize) -> Scan<()> {
        if depth > SKIP_DEPTH_MAX {
            return fail(self.pos, format!("values are nested deeper than {SKIP_DEPTH_MAX} levels"));
        }
        match self.skips.checked_sub(1) {
            Some(left) => self.skips = left,
            None => return fail(self.pos, "the record has more values without bytes than can be passed over"),
        }
        let schema = self.schema;
        match &schema.node(node).shape {
            Shape::Null => {}
            Shape::Boolean => {
                self.take(1)?;
            }
            Shape::Int | Shape::Long | Shape::Enum { .. } => {
                self.long()?;
            }
            Shape::Float => {
                self.take(4)?;
            }
            Shape::Double => {
                self.take(8)?;
            }
            Shape::Bytes | Shape::String => {
                self.bytes()?;
            }
            Shape::Fixed { size, .. } => {
                self.take(*size)?;
            }
            Shape::Array(items) | Shape::Map(items) => {
                let is_map = matches!(schema.node(node).shape, Shape::Map(_));
                loop {
                    match self.block()? {
                        (0, _) => break,
                        (_, Some(bytes)) => {
                            self.take(bytes)?;
                        }
                        (count, None) => {
                            for _ in 0..count {
                                if is_map {
                                    self.bytes()?;
                                }
                                self.skip(*items, depth + 1)?;
                            }
                        }
                    }
                }
            }
            Shape::Record(record) => {
                for field in &record.fields {
                    self.skip(field.node, depth + 1)?;
                }
            }
            Shape::Union(branches) => {
                let branch = self.branch(branches.len())?;
                self.skip(branches[branch], depth + 1)?;
            }
        }
        Ok(())
    }
}

fn record(input: &mut Input<'_>, fields: &[FieldRead], absent: &[usize], columns: &mut [Column]) -> Scan<()> {
    for field in fields {
        match &field.target {
            None => {
                if let Read::Skip(node) = field.read {
                    input.skip(node, 0)?;
                }
            }
            Some((target, name)) => {
                if let Some(column) = columns.get_mut(*target)
                    && let Err(mut failure) = value(input, &field.read, column)
                {
                    failure.path.push(name.clone());
                    return Err(failure);
                }
            }
        }
    }
    for &target in absent {
        if let Some(column) = columns.get_mut(target) {
            column.push_null();
        }
    }
    Ok(())
}

fn value(input: &mut Input<'_>, read: &Read, column: &mut Column) -> Scan<()> {
    match read {
        Read::Scalar(from) => return scalar(input, *from, column),
        Read::Null => column.push_null(),
        Read::Mismatch(why) => return fail(input.pos, why.clone()),
        Read::Skip(node) => {
            input.skip(*node, 0)?;
            column.push_null();
        }
        Read::Union(branches) => {
            let branch = input.branch(branches.len())?;
            return value(input, &branches[branch], column);
        }
        Read::List(item) => {
            let Data::List { offsets, items } = &mut column.data else { return fail(input.pos, "not an ARRAY") };
            let width = items.width();
            input.items(|input| input.item(item, items, width))?;
            offsets.push(items.len() as i32);
            column.valid.push(true);
        }
        Read::Map(read) => {
            let Data::Map { offsets, keys, values } = &mut column.data else { return fail(input.pos, "not a MAP") };
            let (first, width) = (keys.len(), values.width());
            input.items(|input| {
                keys.data.extend_from_slice(input.text()?);
                keys.end();
                input.item(read, values, width)
            })?;
            end_map(offsets, keys, values, first);
            column.valid.push(true);
        }
        Read::Entries { key, value: item, key_first, branch } => {
            let Data::Map { offsets, keys, values } = &mut column.data else { return fail(input.pos, "not a MAP") };
            let (first, width) = (keys.len(), values.width());
            input.items(|input| {
                if let Some((entry, branches)) = branch
                    && input.branch(*branches)? != *entry
                {
                    // An entry that is null is none.
                    return Ok(());
                }
                if !key_first {
                    input.item(item, values, width)?;
                }
                entry_key(input, key, keys)?;
                if *key_first {
                    input.item(item, values, width)?;
                }
                Ok(())
            })?;
            end_map(offsets, keys, values, first);
            column.valid.push(true);
        }
        Read::Record { fields, absent } => {
            let Data::Struct { fields: parts, .. } = &mut column.data else { return fail(input.pos, "not a STRUCT") };
            record(input, fields, absent, parts)?;
            column.valid.push(true);
        }
        Read::Member(at, read) => {
            let Data::Struct { fields: parts, .. } = &mut column.data else { return fail(input.pos, "not a STRUCT") };
            if let (Read::Skip(node), usize::MAX) = (&**read, *at) {
                input.skip(*node, 0)?;
            }
            for (i, part) in parts.iter_mut().enumerate() {
                if i == *at {
                    value(input, read, part)?;
                } else {
                    part.push_null();
                }
            }
            column.valid.push(true);
        }
    }
    Ok(())
}

/// Of entries with one key the last counts.
fn end_map(offsets: &mut Vec<i32>, keys: &mut crate::columns::Bytes, values: &mut Column, first: usize) {
    if let Some(keep) = keys.last_of_repeated(first) {
        keys.retain_from(first, &keep);
        values.retain_from(first, &keep);
    }
    offsets.push(keys.len() as i32);
}

/// An entry's key; a MAP's keys are never NULL.
fn entry_key(input: &mut Input<'_>, read: &Read, keys: &mut crate::columns::Bytes) -> Scan<()> {
    match read {
        Read::Scalar(Scalar::String) => keys.data.extend_from_slice(input.text()?),
        Read::Union(branches) => {
            let branch = input.branch(branches.len())?;
            return entry_key(input, &branches[branch], keys);
        }
        _ => return fail(input.pos, "the key of a map's entry is not text"),
    }
    keys.end();
    Ok(())
}

#[inline]
fn scalar(input: &mut Input<'_>, from: Scalar, column: &mut Column) -> Scan<()> {
    match from {
        Scalar::Int => {
            let number = input.int()?;
            match &mut column.data {
                Data::Integer(values) | Data::Date(values) => values.push(number),
                Data::Time(values) => values.push(time(i64::from(number), input.pos)?),
                data => integer(data, i64::from(number), input.pos)?,
            }
        }
        Scalar::Long => {
            let number = input.long()?;
            integer(&mut column.data, number, input.pos)?;
        }
        Scalar::Micros => {
            let ms = input.long()?.div_euclid(1000);
            match &mut column.data {
                Data::Timestamp(values) => values.push(ms),
                Data::Time(values) => values.push(time(ms, input.pos)?),
                _ => return fail(input.pos, "not a time"),
            }
        }
        Scalar::Boolean => {
            let yes = input.boolean()?;
            match &mut column.data {
                Data::Boolean(values) => values.append(yes),
                Data::String(text) => {
                    text.data.extend_from_slice(if yes { b"true" } else { b"false" });
                    text.end();
                }
                _ => return fail(input.pos, "not a BOOLEAN"),
            }
        }
        Scalar::Float => {
            let bytes = input.take(4)?.first_chunk::<4>().copied().unwrap_or_default();
            double(&mut column.data, f64::from(f32::from_le_bytes(bytes)), input.pos)?;
        }
        Scalar::Double => {
            let bytes = input.take(8)?.first_chunk::<8>().copied().unwrap_or_default();
            double(&mut column.data, f64::from_le_bytes(bytes), input.pos)?;
        }
        Scalar::String => {
            let text = input.text()?;
            bytes(&mut column.data, text, input.pos)?;
        }
        Scalar::Bytes => {
            let raw = input.bytes()?;
            bytes(&mut column.data, raw, input.pos)?;
        }
        Scalar::Fixed(size) => {
            let raw = input.take(size)?;
            bytes(&mut column.data, raw, input.pos)?;
        }
        Scalar::Enum(node) => {
            let symbol = input.symbol(node)?;
            bytes(&mut column.data, symbol.as_bytes(), input.pos)?;
        }
        Scalar::Decimal(size, scale) => {
            let at = input.pos;
            let digits = match size {
                Some(size) => input.take(size)?,
                None => input.bytes()?,
            };
            let Data::Decimal { values, precision, scale: to } = &mut column.data else {
                return fail(at, "not a DECIMAL");
            };
            values.push(decimal(digits, scale, *precision, *to, at)?);
        }
    }
    column.valid.push(true);
    Ok(())
}

/// Milliseconds of a day.
fn time(ms: i64, at: usize) -> Scan<i32> {
    match ms {
        0..DAY_MS => Ok(ms as i32),
        _ => fail(at, "Time values must use number of milliseconds greater than 0 and less than 86400000."),
    }
}

fn integer(data: &mut Data, number: i64, at: usize) -> Scan<()> {
    match data {
        Data::BigInt(values) | Data::Timestamp(values) => values.push(number),
        Data::Double(values) => values.push(number as f64),
        Data::String(text) => {
            write_i64(&mut text.data, number);
            text.end();
        }
        _ => return fail(at, "a number has no place in this column"),
    }
    Ok(())
}

fn double(data: &mut Data, number: f64, at: usize) -> Scan<()> {
    match data {
        Data::Double(values) => values.push(number),
        Data::String(text) => {
            write_double(&mut text.data, number);
            text.end();
        }
        _ => return fail(at, "a number has no place in this column"),
    }
    Ok(())
}

fn bytes(data: &mut Data, raw: &[u8], at: usize) -> Scan<()> {
    match data {
        Data::String(to) | Data::Bytes(to) => {
            to.data.extend_from_slice(raw);
            to.end();
            Ok(())
        }
        _ => fail(at, "text has no place in this column"),
    }
}
