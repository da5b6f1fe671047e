//! Record bytes into Arrow columns.
//!
//! Not here: what each format's bytes mean (`json`, `delimited`, `kafka`, `protobuf`, `avro`). Invariants: every column has one row for
//! every record, in order; a record that cannot be read is all NULL and listed with its error; nothing of it stays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use millpond_types::{Error, Field, Result};

use crate::Format;
use crate::columns::{BYTES_MAX, Column, Data, SPARE_CELLS_MAX};
use crate::json::members::Members;
use crate::json::scan::{Scan, fail};
use crate::registered::{FRAME_LEN, NoSchemas, Parsed, Schema, Schemas, read_frame};
use crate::{avro, delimited, json, kafka, protobuf};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The single column is the whole of the bytes, not a member of a record; see [`Format::unwraps`].
    pub unwrap_single: bool,
    /// Also reads the columns that are not wanted, so that a record is refused for any of its columns. Else only its
    /// syntax and the wanted columns can get it refused.
    pub check_all: bool,
}

/// What batches have learned of the order of members, kept for the batches to come; one for each that ran at a time.
const LEARNED_MAX: usize = 16;
/// Schemas whose plans are kept; with more, all are made anew.
const PLANS_MAX: usize = 1000;
/// Longest place of a message within a schema.
const MESSAGE_PATH_MAX: usize = 32;

/// How records of one schema are read.
#[derive(Debug)]
enum Plan {
    Avro(avro::decode::Plan),
    Protobuf(protobuf::read::Plan),
}

/// A plan and the schema that it was made for: an id that a registry gave up can be given to another one.
type Planned = (Arc<Schema>, Arc<Plan>);

/// A schema's id and the place of the message in it.
type PlanKey = (u32, Vec<u32>);

/// Reads one side of records. Threads can share it: what it learns makes it faster, and changes no result.
#[derive(Clone, Debug)]
pub struct Decoder {
    format: Format,
    fields: Vec<Field>,
    options: DecodeOptions,
    /// Indexes into `fields` of the columns that are built, ascending.
    built: Vec<usize>,
    /// For every wanted column its place in `built`.
    wanted: Vec<usize>,
    /// For every field its place in `built`.
    targets: Vec<Option<usize>>,
    learned: Arc<Mutex<Vec<Members>>>,
    schemas: Arc<dyn Schemas>,
    plans: Arc<Mutex<HashMap<PlanKey, Planned>>>,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The wanted columns, in the order in which they were asked for.
    pub columns: Vec<ArrayRef>,
    pub rows: usize,
    /// Rows whose bytes were NULL or, for a record, JSON `null`: tombstones. `None`: no such rows.
    pub null_rows: Option<BooleanBuffer>,
    /// Records that could not be read, by row, ascending; their rows are to be left out.
    pub errors: Vec<DecodeError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub row: usize,
    pub message: String,
}

impl Decoder {
    /// `wanted` holds indexes into `columns`.
    pub fn new(format: Format, columns: &[Field], options: DecodeOptions, wanted: &[usize]) -> Result<Self> {
        if let Some(objection) = format.objection(crate::Side::Value, columns) {
            return Err(Error::bad_request(objection));
        }
        if options.unwrap_single && columns.len() > 1 {
            return Err(Error::bad_request(format!("{} columns cannot be unwrapped", columns.len())));
        }
        if let Some(index) = wanted.iter().find(|&&i| i >= columns.len()) {
            return Err(Error::bug(format!("column {index} is wanted of {}", columns.len())));
        }
        let mut built: Vec<usize> = if options.check_all { (0..columns.len()).collect() } else { wanted.to_vec() };
        built.sort_unstable();
        built.dedup();
        let targets: Vec<Option<usize>> = (0..columns.len()).map(|i| built.binary_search(&i).ok()).collect();
        Ok(Self {
            format,
            fields: columns.to_vec(),
            options,
            wanted: wanted.iter().filter_map(|&i| targets[i]).collect(),
            built,
            targets,
            learned: Arc::default(),
            schemas: Arc::new(NoSchemas),
            plans: Arc::default(),
        })
    }

    /// With the schemas that records name by their id.
    pub fn with_schemas(self, schemas: Arc<dyn Schemas>) -> Self {
        Self { schemas, ..self }
    }

    /// A decoder of all columns.
    pub fn all(format: Format, columns: &[Field], options: DecodeOptions) -> Result<Self> {
        Self::new(format, columns, options, &(0..columns.len()).collect::<Vec<_>>())
    }

    /// Reads records; `None` is NULL bytes.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = Option<&'a [u8]>>) -> Result<Decoded> {
        let rows = rows.into_iter();
        let mut decoding = self.start(rows.size_hint().0)?;
        for row in rows {
            decoding.push(row);
        }
        decoding.finish()
    }

    /// The plan for a schema, kept or made. Several threads may make one at a time: they are alike.
    fn plan(&self, key: &PlanKey) -> Scan<Arc<Plan>> {
        let (id, path) = key;
        let schema = match self.schemas.schema(*id) {
            Ok(Some(schema)) => schema,
            Ok(None) => return fail(1, format!("there is no schema with id {id}")),
            Err(e) => return fail(1, format!("the schema with id {id} cannot be had: {}", e.message())),
        };
        // Where a thread ended while it held them, the plans are whole all the same.
        let plans = || self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((of, plan)) = plans().get(key)
            && Arc::ptr_eq(of, &schema)
        {
            return Ok(plan.clone());
        }
        let format = self.format.name();
        let plan = match (&schema.parsed, self.format) {
            (Parsed::Avro(_), Format::Avro) => Plan::Avro(avro::decode::Plan::new(
                schema.clone(),
                &self.fields,
                &self.targets,
                self.options.unwrap_single,
            )),
            (Parsed::Protobuf(proto), Format::Protobuf) => match proto.at_path(path) {
                Some(message) => {
                    let wanted: Vec<(usize, &Field)> =
                        self.fields.iter().zip(&self.targets).filter_map(|(f, t)| Some(((*t)?, f))).collect();
                    Plan::Protobuf(protobuf::read::Plan::new(proto, message, &wanted))
                }
                // Not kept: there is no end of such places.
                None => return fail(1, format!("the schema with id {id} has no message at {path:?}")),
            },
            _ => {
                let kind = schema.kind().name();
                return fail(1, format!("the schema with id {id} is a {kind} schema, not one of {format}"));
            }
        };
        let plan = Arc::new(plan);
        let mut plans = plans();
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(key.clone(), (schema, plan.clone()));
        Ok(plan)
    }

    /// Begins a batch to which records are pushed one by one; `capacity` is a guess at their number.
    pub fn start(&self, capacity: usize) -> Result<Decoding<'_>> {
        // A guess only: never more room at once than a large batch needs.
        let capacity = capacity.min(1 << 16);
        let columns = self.built.iter().map(|&i| Column::new(&self.fields[i].ty, capacity)).collect::<Result<_>>()?;
        let learned = self.learned.try_lock().ok().and_then(|mut kept| kept.pop());
        Ok(Decoding {
            decoder: self,
            members: learned.unwrap_or_else(|| Members::new(self.built.iter().map(|&i| self.fields[i].name.as_str()))),
            columns,
            rows: 0,
            bytes: 0,
            spare: SPARE_CELLS_MAX,
            null_rows: None,
            errors: Vec::new(),
            scratch: Vec::new(),
            plan: None,
        })
    }
}

/// A batch that is being read.
#[derive(Debug)]
pub struct Decoding<'a> {
    decoder: &'a Decoder,
    members: Members,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    /// Cells that items may still need beyond their bytes.
    spare: usize,
    null_rows: Option<BooleanBufferBuilder>,
    errors: Vec<DecodeError>,
    scratch: Vec<u8>,
    /// That of the last record.
    plan: Option<(PlanKey, Arc<Plan>)>,
}

impl Decoding<'_> {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn push(&mut self, bytes: Option<&[u8]>) {
        let row = self.rows;
        self.rows += 1;
        let result = match bytes {
            None => Ok(true),
            Some(bytes) => self.read(bytes, row),
        };
        match result {
            Ok(false) => {}
            Ok(true) => {
                self.null_row(row);
                self.columns.iter_mut().for_each(Column::push_null);
            }
            Err(failure) => {
                self.errors.push(DecodeError { row, message: failure.text() });
                for column in &mut self.columns {
                    column.truncate(row);
                    column.push_null();
                }
            }
        }
    }

    /// Reads one record; true where it is NULL as a whole, when nothing has been appended.
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], row: usize) -> Scan<bool> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > BYTES_MAX {
            return fail(0, format!("the batch has more than {BYTES_MAX} bytes"));
        }
        let decoder = self.decoder;
        match decoder.format {
            Format::Avro | Format::Protobuf => return self.read_by_schema(bytes, row),
            Format::Json | Format::JsonSr if !decoder.options.unwrap_single => {
                let bytes = json_of(decoder.format, bytes)?;
                return json::decode::record(bytes, &mut self.members, &mut self.columns, row);
            }
            Format::Json | Format::JsonSr => match self.columns.first_mut() {
                Some(column) => {
                    json::decode::single(json_of(decoder.format, bytes)?, Some(column)).map_err(|mut failure| {
                        failure.path.extend(decoder.built.first().map(|&i| decoder.fields[i].name.clone()));
                        failure
                    })?;
                }
                None if decoder.fields.is_empty() => {}
                None => json::decode::single(json_of(decoder.format, bytes)?, None)?,
            },
            Format::Delimited { delimiter } if !decoder.fields.is_empty() => {
                delimited::decode(bytes, delimiter, &decoder.targets, &mut self.columns, &mut self.scratch)?;
            }
            Format::Kafka => {
                if let Some(column) = self.columns.first_mut() {
                    kafka::decode(bytes, column)?;
                }
            }
            Format::ProtobufNosr { nullable } if !decoder.fields.is_empty() => {
                let spare = std::cell::Cell::new(self.spare);
                let mut reader = protobuf::wire::Reader::new(bytes);
                reader.spare = Some(&spare);
                match self.columns.as_mut_slice() {
                    [column] if decoder.options.unwrap_single && matches!(column.data, Data::Struct { .. }) => {
                        protobuf::decode::single_struct(reader, column, nullable)?;
                    }
                    columns => {
                        let scope =
                            protobuf::decode::Scope::Record { fields: &decoder.fields, targets: &decoder.targets };
                        protobuf::decode::record(reader, &scope, columns, row, nullable)?;
                    }
                }
                self.spare = spare.get();
            }
            // `Decoder::new` lets no other format in.
            _ => {}
        }
        Ok(false)
    }

    /// A record of AVRO or PROTOBUF, which names its schema.
    fn read_by_schema(&mut self, bytes: &[u8], row: usize) -> Scan<bool> {
        let id = read_frame(bytes)?;
        let mut reader = protobuf::wire::Reader::new(bytes);
        reader.pos = FRAME_LEN;
        let path = match self.decoder.format {
            Format::Protobuf => message_path(&mut reader)?,
            _ => Vec::new(),
        };
        let known = self.plan.as_ref().filter(|(key, _)| key.0 == id && key.1 == path);
        let plan = match known {
            Some((_, plan)) => plan.clone(),
            None => {
                let key = (id, path);
                let plan = self.decoder.plan(&key)?;
                self.plan = Some((key, plan.clone()));
                plan
            }
        };
        let spare = std::cell::Cell::new(self.spare);
        let is_null = match &*plan {
            Plan::Avro(plan) => plan.record(bytes.get(FRAME_LEN..).unwrap_or_default(), &mut self.columns, &spare)?,
            Plan::Protobuf(plan) => {
                reader.spare = Some(&spare);
                protobuf::read::record(reader, plan, &mut self.columns, row)?;
                false
            }
        };
        // A record that is refused leaves nothing, and so takes nothing.
        self.spare = spare.get();
        Ok(is_null)
    }

    #[inline(never)]
    fn null_row(&mut self, row: usize) {
        let nulls = self.null_rows.get_or_insert_with(|| BooleanBufferBuilder::new(row.max(1024)));
        nulls.append_n(row - nulls.len(), false);
        nulls.append(true);
    }

    /// The columns. Fails only by a defect of this crate.
    pub fn finish(self) -> Result<Decoded> {
        if !self.members.is_full()
            && let Ok(mut kept) = self.decoder.learned.try_lock()
            && kept.len() < LEARNED_MAX
        {
            kept.push(self.members);
        }
        let arrays = self.columns.into_iter().map(Column::finish).collect::<Result<Vec<_>>>()?;
        let null_rows = self.null_rows.map(|mut nulls| {
            nulls.append_n(self.rows - nulls.len(), false);
            nulls.finish()
        });
        let columns = self.decoder.wanted.iter().filter_map(|&i| arrays.get(i).cloned()).collect();
        Ok(Decoded { columns, rows: self.rows, null_rows, errors: self.errors })
    }
}

/// The JSON of a record, behind its frame where it has one.
#[inline]
fn json_of(format: Format, bytes: &[u8]) -> Scan<&[u8]> {
    if format == Format::JsonSr {
        read_frame(bytes)?;
        return Ok(bytes.get(FRAME_LEN..).unwrap_or_default());
    }
    Ok(bytes)
}

/// The place of a message in its schema: how many numbers, then they; 0 alone is the first message.
pub(crate) fn message_path(reader: &mut protobuf::wire::Reader<'_>) -> Scan<Vec<u32>> {
    let at = reader.pos;
    let mut number = || {
        let value = reader.varint()?;
        let value = (value >> 1) as i64 ^ -((value & 1) as i64);
        u32::try_from(value).or_else(|_| fail(at, format!("{value} is not the index of a message")))
    };
    let count = number()? as usize;
    if count == 0 {
        return Ok(vec![0]);
    }
    if count > MESSAGE_PATH_MAX {
        return fail(at, format!("a message is nested {count} levels deep, more than {MESSAGE_PATH_MAX}"));
    }
    (0..count).map(|_| number()).collect()
}
