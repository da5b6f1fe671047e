//! AVRO, JSON_SR and PROTOBUF: records by the schemas that they name.

use std::collections::HashMap;
use std::sync::Arc;

use millpond_formats::{
    DecodeOptions, Decoder, EncodeOptions, Encoded, Encoder, Format, Naming, Nullable, Schema, SchemaKind, Schemas,
    Side, WriterSchema, columns_of, framed_to_json, key_record_name, schema_for,
};
use millpond_types::value::array_from_values;
use millpond_types::{Field, Result, SqlType, Value};
use proptest::prelude::*;

use super::{field, values};

#[derive(Debug, Default)]
struct Known(HashMap<u32, Arc<Schema>>);

impl Schemas for Known {
    fn schema(&self, id: u32) -> Result<Option<Arc<Schema>>> {
        Ok(self.0.get(&id).cloned())
    }
}

fn schema(kind: SchemaKind, text: &str) -> Arc<Schema> {
    Arc::new(Schema::parse(kind, text, &[]).unwrap_or_else(|e| panic!("{text}: {e}")))
}

fn known(schemas: &[(u32, &Arc<Schema>)]) -> Arc<dyn Schemas> {
    Arc::new(Known(schemas.iter().map(|(id, s)| (*id, (*s).clone())).collect()))
}

fn decoder(format: Format, columns: &[Field], schemas: &Arc<dyn Schemas>) -> Decoder {
    Decoder::all(format, columns, DecodeOptions::default()).unwrap().with_schemas(schemas.clone())
}

fn write(format: Format, columns: &[Field], writer: &WriterSchema, rows: &[Vec<Value>]) -> Result<Encoded> {
    let encoder = Encoder::new(format, columns, EncodeOptions::default())?.with_schema(writer)?;
    let arrays: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| array_from_values(&c.ty, &rows.iter().map(|r| r[i].clone()).collect::<Vec<_>>()).unwrap())
        .collect();
    let mut out = Encoded::default();
    encoder.encode(rows.len(), &arrays, None, &mut out)?;
    Ok(out)
}

fn writer(id: u32, schema: &Arc<Schema>) -> WriterSchema {
    WriterSchema { id, schema: schema.clone(), full_name: None }
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// Columns of every type, and a row of values.
fn everything() -> (Vec<Field>, Vec<Value>) {
    let columns = vec![
        field("B", SqlType::Boolean),
        field("I", SqlType::Integer),
        field("L", SqlType::BigInt),
        field("D", SqlType::Double),
        field("S", SqlType::String),
        field("Y", SqlType::Bytes),
        field("M", SqlType::decimal(6, 2)),
        field("DAY", SqlType::Date),
        field("CLOCK", SqlType::Time),
        field("AT", SqlType::Timestamp),
        field("LIST", SqlType::array(SqlType::BigInt)),
        field("MAP", SqlType::map(SqlType::String, SqlType::Double)),
        field(
            "P",
            SqlType::Struct(vec![field("X", SqlType::Integer), field("NAMES", SqlType::array(SqlType::String))]),
        ),
    ];
    let row = vec![
        Value::Boolean(true),
        Value::Integer(-7),
        Value::BigInt(i64::MIN),
        Value::Double(2.5),
        text("é"),
        Value::Bytes(vec![0, 255]),
        Value::Decimal { unscaled: -12_345, precision: 6, scale: 2 },
        Value::Date(-1),
        Value::Time(86_399_999),
        Value::Timestamp(1_700_000_000_123),
        Value::Array(vec![Value::BigInt(1), Value::BigInt(-2)]),
        Value::Map(vec![(text("a"), Value::Double(1.5))]),
        Value::Struct(vec![("X".into(), Value::Integer(3)), ("NAMES".into(), Value::Array(vec![text("n")]))]),
    ];
    (columns, row)
}

#[test]
fn what_is_written_is_read_again_in_all_three() {
    let (columns, row) = everything();
    let nulls = vec![Value::Null; columns.len()];
    for format in [Format::Avro, Format::JsonSr, Format::Protobuf] {
        for nullable in [Nullable::Unset, Nullable::Optional, Nullable::Wrapper] {
            let naming = Naming { nullable, ..Naming::default() };
            let made = Arc::new(schema_for(format, &columns, &naming).unwrap());
            // The schema stands for the columns that it was made of.
            assert_eq!(columns_of(&made, Side::Value, false, true, None).unwrap(), columns, "{}", made.text);
            let out = write(format, &columns, &writer(77, &made), &[row.clone(), nulls.clone()]).unwrap();
            assert_eq!(&out.get(0).unwrap()[..5], [0, 0, 0, 0, 77]);
            let decoded = decoder(format, &columns, &known(&[(77, &made)])).decode(out.iter()).unwrap();
            assert_eq!(decoded.errors, []);
            let read = values(&decoded, &columns);
            assert_eq!(read[0], row, "{} {nullable:?}", format.name());
            if format != Format::Protobuf {
                assert_eq!(read[1], nulls, "{}", format.name());
            } else {
                // Proto3 knows no NULL for lists, and for scalars only where it is told to.
                let scalar = if nullable == Nullable::Unset { Value::Integer(0) } else { Value::Null };
                assert_eq!((&read[1][1], &read[1][9]), (&scalar, &Value::Null));
                assert_eq!(read[1][10], Value::Array(vec![]));
            }
        }
    }
}

/// Zigzag numbers of one byte.
fn n(value: i8) -> u8 {
    ((value << 1) ^ (value >> 7)) as u8
}

#[test]
fn avro_is_read_by_its_writers_schema() {
    // Other order, other case, wider and narrower types, a field too much, one that is missing, an enum, a fixed.
    let written = schema(
        SchemaKind::Avro,
        r#"{"type":"record","name":"R","fields":[
            {"name":"extra","type":{"type":"map","values":{"type":"array","items":"string"}}},
            {"name":"suit","type":{"type":"enum","name":"Suit","symbols":["SPADES","HEARTS"]}},
            {"name":"hash","type":{"type":"fixed","name":"H","size":2}},
            {"name":"num","type":"int"},
            {"name":"ratio","type":["null","float"]},
            {"name":"label","type":"int"},
            {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}},
            {"name":"self","type":["null","R"]}]}"#,
    );
    let columns = [
        field("NUM", SqlType::BigInt),
        field("RATIO", SqlType::Double),
        field("LABEL", SqlType::String),
        field("SUIT", SqlType::String),
        field("HASH", SqlType::Bytes),
        field("PRICE", SqlType::decimal(6, 2)),
        field("ABSENT", SqlType::Date),
    ];
    let mut record = vec![0, 0, 0, 0, 9];
    // A map of one entry in a block that tells its bytes: "k" -> ["v"].
    record.extend_from_slice(&[n(-1), n(6), n(1), b'k', n(1), n(1), b'v', 0, 0]);
    record.extend_from_slice(&[n(1), 0xab, 0xcd, n(-3), n(1)]);
    record.extend_from_slice(&1.5f32.to_le_bytes());
    record.extend_from_slice(&[n(12), n(1), 0xf6, 0]);
    let schemas = known(&[(9, &written)]);
    let decoder = decoder(Format::Avro, &columns, &schemas);
    let short = &record[..record.len() - 2];
    let mut long = record.clone();
    long.push(0);
    let unknown = [0, 0, 0, 0, 10, 0];
    let rows: [Option<&[u8]>; 6] = [Some(&record), Some(short), Some(&long), Some(&unknown), Some(b"{}"), None];
    let decoded = decoder.decode(rows).unwrap();
    assert_eq!(
        values(&decoded, &columns)[0],
        [
            Value::BigInt(-3),
            Value::Double(1.5),
            text("12"),
            text("HEARTS"),
            Value::Bytes(vec![0xab, 0xcd]),
            Value::Decimal { unscaled: -100, precision: 6, scale: 2 },
            Value::Null,
        ]
    );
    let errors: Vec<(usize, &str)> = decoded.errors.iter().map(|e| (e.row, e.message.as_str())).collect();
    assert_eq!(errors.iter().map(|e| e.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(errors[2].1.contains("no schema with id 10") && errors[3].1.contains("first byte is 123"), "{errors:?}");
    assert!(decoded.null_rows.unwrap().value(5));
    // What the columns leave out is there where the schema alone is asked; but for what contains itself.
    let json = framed_to_json(&record, &schemas).unwrap();
    assert_eq!(json.get("extra").unwrap().to_string(), r#"{"k":["v"]}"#);
    assert!(json.get("self").is_none());
}

#[test]
fn avro_unions_and_maps_are_connects() {
    let written = schema(
        SchemaKind::Avro,
        r#"{"type":"record","name":"R","fields":[
            {"name":"u","type":["null","int","string",{"type":"record","name":"a.b.Point","fields":[{"name":"x","type":"int"}]}]},
            {"name":"m","type":{"type":"array","items":{"type":"record","name":"E","connect.internal.type":"MapEntry","fields":[
                {"name":"key","type":["null","string"]},{"name":"value","type":["null","long"]}]}}},
            {"name":"only","type":["string"]}]}"#,
    );
    let columns = columns_of(&written, Side::Value, false, false, None).unwrap();
    let point = SqlType::Struct(vec![field("X", SqlType::Integer)]);
    let union = vec![field("INT", SqlType::Integer), field("STRING", SqlType::String), field("POINT", point)];
    assert_eq!(
        columns,
        [
            field("U", SqlType::Struct(union)),
            field("M", SqlType::map(SqlType::String, SqlType::BigInt)),
            field("ONLY", SqlType::String),
        ]
    );
    let union = |int: Value, string: Value, x: Value| {
        Value::Struct(vec![("INT".into(), int), ("STRING".into(), string), ("POINT".into(), x)])
    };
    let map = Value::Map(vec![(text("k"), Value::BigInt(5)), (text("l"), Value::Null)]);
    let point = Value::Struct(vec![("X".into(), Value::Integer(2))]);
    let rows = vec![
        vec![union(Value::Null, text("t"), Value::Null), map.clone(), text("o")],
        vec![union(Value::Null, Value::Null, point), map.clone(), text("o")],
        vec![Value::Null, map, text("o")],
    ];
    let out = write(Format::Avro, &columns, &writer(3, &written), &rows).unwrap();
    let decoded = decoder(Format::Avro, &columns, &known(&[(3, &written)])).decode(out.iter()).unwrap();
    assert_eq!(decoded.errors, []);
    assert_eq!(values(&decoded, &columns), rows);
}

#[test]
fn avro_is_written_with_defaults_or_not_at_all() {
    let columns = [field("C1", SqlType::Integer)];
    let of = |fields: &str| schema(SchemaKind::Avro, &format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#));
    let defaults = of(r#"{"name":"c1","type":"int","default":4},{"name":"c2","type":"long","default":100},
        {"name":"c3","type":["null","string"]},{"name":"c4","type":{"type":"array","items":"int"},"default":[1]}"#);
    let out =
        write(Format::Avro, &columns, &writer(1, &defaults), &[vec![Value::Integer(3)], vec![Value::Null]]).unwrap();
    let json = |row: usize| framed_to_json(out.get(row).unwrap(), &known(&[(1, &defaults)])).unwrap().to_string();
    assert_eq!(json(0), r#"{"c1":3,"c2":100,"c3":null,"c4":[1]}"#);
    assert_eq!(json(1), r#"{"c1":4,"c2":100,"c3":null,"c4":[1]}"#);
    let strict = of(r#"{"name":"c1","type":"int"},{"name":"c2","type":"double"}"#);
    let error = write(Format::Avro, &columns, &writer(1, &strict), &[vec![Value::Integer(3)]]).unwrap_err();
    assert!(error.message().contains("\"c2\""), "{error}");
    let other = of(r#"{"name":"c9","type":"int"}"#);
    let error = write(Format::Avro, &columns, &writer(1, &other), &[vec![Value::Integer(3)]]).unwrap_err();
    assert!(error.message().contains("no field for column \"C1\""), "{error}");
}

#[test]
fn the_schemas_are_those_that_ksqldb_makes() {
    let columns = [field("F1", SqlType::Struct(vec![field("F2", SqlType::Integer)]))];
    let naming = Naming { full_name: Some(key_record_name("MY_OUTPUT")), unwrap: true, ..Naming::default() };
    assert_eq!(
        schema_for(Format::Avro, &columns, &naming).unwrap().text,
        "{\"type\":\"record\",\"name\":\"MyOutputKey\",\"namespace\":\"io.confluent.ksql.avro_schemas\",\"fields\":[{\"name\":\
         \"F2\",\"type\":[\"null\",\"int\"],\"default\":null}],\"connect.name\":\
         \"io.confluent.ksql.avro_schemas.MyOutputKey\"}"
    );
    let columns = [field("I", SqlType::Integer), columns[0].clone()];
    assert_eq!(
        schema_for(Format::Protobuf, &columns, &Naming::default()).unwrap().text,
        "syntax = \"proto3\";\n\nmessage ConnectDefault1 {\n  int32 I = 1;\n  ConnectDefault2 F1 = 2;\n\n  message \
         ConnectDefault2 {\n    int32 F2 = 1;\n  }\n}"
    );
    assert_eq!(
        schema_for(Format::JsonSr, &columns[..1], &Naming::default()).unwrap().text,
        "{\"type\":\"object\",\"properties\":{\"I\":{\"connect.index\":0,\"oneOf\":[{\"type\":\"null\"},{\"type\":\"integer\",\
         \"connect.type\":\"int32\"}]}}}"
    );
}

#[test]
fn protobuf_is_read_by_its_descriptor() {
    let written = schema(
        SchemaKind::Protobuf,
        r#"syntax = "proto3"; package shop; /* of old */
        import "google/protobuf/wrappers.proto";
        message Other { string s = 1; }
        message Order {
          option deprecated = true; reserved 4, 9 to 11;
          enum Suit { SPADES = 0; HEARTS = 1; }
          message Line { sint32 n = 1; Line next = 2; }
          Suit suit = 1; uint32 u = 2; fixed64 f = 3 [deprecated = true];
          repeated Line lines = 5; map<string, Suit> suits = 6;
          oneof pay { string card = 7; int64 cash = 8; }
          optional double d = 12; google.protobuf.Int32Value w = 13; repeated float many = 14;
        }"#,
    );
    let columns = columns_of(&written, Side::Value, false, true, Some("shop.Order")).unwrap();
    let shown: Vec<String> = columns.iter().map(|c| format!("{} {}", c.name, c.ty)).collect();
    assert_eq!(
        shown,
        [
            "pay_0 STRUCT<`card` STRING, `cash` BIGINT>",
            "suit STRING",
            "u BIGINT",
            "f BIGINT",
            "lines ARRAY<STRUCT<`n` INTEGER>>",
            "suits MAP<STRING, STRING>",
            "d DOUBLE",
            "w INTEGER",
            "many ARRAY<DOUBLE>",
        ]
    );
    let struct_of = |name: &str, value: Value| Value::Struct(vec![(name.into(), value)]);
    let pay = Value::Struct(vec![("card".into(), Value::Null), ("cash".into(), Value::BigInt(0))]);
    let row = vec![
        pay,
        text("HEARTS"),
        Value::BigInt(4_000_000_000),
        Value::BigInt(-1),
        Value::Array(vec![struct_of("n", Value::Integer(-5)), struct_of("n", Value::Integer(0))]),
        Value::Map(vec![(text("a"), text("SPADES"))]),
        Value::Double(0.0),
        Value::Integer(0),
        Value::Array(vec![Value::Double(1.5)]),
    ];
    // Compiled and read again it stands for the same columns.
    let compiled = schema(SchemaKind::Protobuf, &written.compiled("file").unwrap());
    assert_eq!(
        columns_of(&compiled, Side::Value, false, true, Some("shop.Order")).unwrap(),
        columns,
        "{}",
        compiled.text
    );
    let writer = WriterSchema { id: 5, schema: written.clone(), full_name: Some("shop.Order".into()) };
    let out = write(Format::Protobuf, &columns, &writer, std::slice::from_ref(&row)).unwrap();
    // The second message of the schema: one index, 1.
    assert_eq!(&out.get(0).unwrap()[..7], [0, 0, 0, 0, 5, 2, 2]);
    let schemas = known(&[(5, &written)]);
    let decoder = decoder(Format::Protobuf, &columns, &schemas);
    let empty: &[u8] = &[0, 0, 0, 0, 5, 2, 2];
    let nowhere: &[u8] = &[0, 0, 0, 0, 5, 2, 6];
    let decoded = decoder.decode([out.get(0), Some(empty), Some(nowhere)]).unwrap();
    let read = values(&decoded, &columns);
    assert_eq!(read[0], row);
    assert_eq!(
        (&read[1][0], &read[1][1], &read[1][6], &read[1][7]),
        (&Value::Null, &text("SPADES"), &Value::Null, &Value::Null)
    );
    assert_eq!(decoded.errors.iter().map(|e| e.row).collect::<Vec<_>>(), [2]);
}

#[test]
fn bad_schemas_say_why() {
    for (kind, text, why) in [
        (SchemaKind::Avro, r#"{"type":"record","name":"R"}"#, "no fields"),
        (SchemaKind::Avro, r#"{"type":"record","name":"R","fields":[{"name":"a","type":"nope"}]}"#, "\"nope\""),
        (SchemaKind::Avro, r#"["int",["null"]]"#, "union"),
        (SchemaKind::Avro, "{", "JSON"),
        (SchemaKind::Protobuf, "message A { B b = 1; }", "\"B\""),
        (SchemaKind::Protobuf, "syntax = \"proto3\"; import \"x.proto\";", "x.proto"),
        (SchemaKind::Protobuf, "message A { int32 a = 1; int64 b = 1; }", "twice"),
        (SchemaKind::Json, "[]", "object"),
    ] {
        let error = Schema::parse(kind, text, &[]).unwrap_err();
        assert!(error.message().contains(why), "{text}: {error}");
    }
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(5000), "}".repeat(5000));
    assert!(Schema::parse(SchemaKind::Avro, &deep, &[]).is_err());
}

/// A map whose entries may be null, as Connect's array of entries may be written by others.
#[test]
fn avro_entries_may_be_null() {
    let written = schema(
        SchemaKind::Avro,
        r#"{"type":"record","name":"R","fields":[{"name":"m","type":{"type":"array","items":["null",
            {"type":"record","name":"E","connect.internal.type":"MapEntry","fields":[
                {"name":"key","type":"string"},{"name":"value","type":"long"}]}]}}]}"#,
    );
    let columns = [field("M", SqlType::map(SqlType::String, SqlType::BigInt))];
    let bytes = [&[0, 0, 0, 0, 1][..], &[n(3), n(1), n(1), b'a', n(7), n(0), n(1), n(1), b'b', n(9), 0]].concat();
    let decoded = decoder(Format::Avro, &columns, &known(&[(1, &written)])).decode([Some(&bytes[..])]).unwrap();
    assert_eq!(decoded.errors, []);
    let map = [("a", 7), ("b", 9)].map(|(k, v)| (text(k), Value::BigInt(v)));
    assert_eq!(values(&decoded, &columns)[0], [Value::Map(map.into_iter().collect())]);
}

#[test]
fn a_time_is_a_time_of_day() {
    let fields = ["\"int\"", "{\"type\":\"long\",\"logicalType\":\"time-micros\"}"];
    for (ty, unit) in fields.into_iter().zip([1i64, 1000]) {
        let written = schema(
            SchemaKind::Avro,
            &format!(r#"{{"type":"record","name":"R","fields":[{{"name":"t","type":{ty}}}]}}"#),
        );
        let columns = [field("T", SqlType::Time)];
        let times = [0, 86_399_999, 86_400_000, -1];
        let framed = times.map(|ms: i64| {
            let mut out = vec![0, 0, 0, 0, 1];
            let mut left = ((ms * unit) << 1 ^ (ms * unit) >> 63) as u64;
            while left >= 0x80 {
                out.push(left as u8 | 0x80);
                left >>= 7;
            }
            out.push(left as u8);
            out
        });
        let decoder = decoder(Format::Avro, &columns, &known(&[(1, &written)]));
        let decoded = decoder.decode(framed.iter().map(|f| Some(f.as_slice()))).unwrap();
        assert_eq!(decoded.errors.iter().map(|e| e.row).collect::<Vec<_>>(), [2, 3], "{ty}");
        assert_eq!(values(&decoded, &columns)[1], [Value::Time(86_399_999)]);
    }
}

/// A long namespace or package counts for every name in it: a small text is no large schema.
#[test]
fn names_do_not_multiply() {
    let long = "n".repeat(500_000);
    let some = "n".repeat(4000);
    let record = |i: usize| format!(r#"{{"name":"f{i}","type":{{"type":"record","name":"R{i}","fields":[]}}}}"#);
    let records: Vec<String> = (0..6000).map(record).collect();
    let avro = |namespace: &str| {
        format!(r#"{{"type":"record","name":"R","namespace":"{namespace}","fields":[{}]}}"#, records.join(","))
    };
    let aliases = format!(
        r#"{{"type":"fixed","name":"F","namespace":"{some}","size":1,"aliases":[{}"a"]}}"#,
        "\"a\",".repeat(200_000)
    );
    let messages: String = (0..24_000).map(|i| format!("message M{i} {{}} ")).collect();
    let proto = |package: &str, messages: &str| format!("syntax = \"proto3\"; package {package}; {messages}");
    // Many fields, each in many scopes.
    let deep = "a.".repeat(2000) + "b";
    let fields: String = (1..40_000).map(|i| format!("x f{i}={i};")).collect();
    for (kind, text, why) in [
        (SchemaKind::Avro, avro(&long), "a name has"),
        (SchemaKind::Avro, avro(&some), "the names have"),
        (SchemaKind::Avro, aliases, "the names have"),
        (SchemaKind::Protobuf, proto(&long, &messages[..400_000]), "a name has"),
        (SchemaKind::Protobuf, proto(&some, &messages), "the names have"),
        (SchemaKind::Protobuf, proto("p", &messages), "messages or enums"),
        (SchemaKind::Protobuf, proto(&deep, &format!("message M {{ {fields} }} message y {{}}")), "\"x\""),
        (SchemaKind::Protobuf, format!("package {deep}; message M {{ {fields} }}",), "\"x\""),
    ] {
        let error = Schema::parse(kind, &text, &[]).unwrap_err();
        assert!(error.message().contains(why), "{error}");
    }
    let top = format!("syntax = \"proto3\"; import \"x\"; package {deep}; message M {{ {fields} }}");
    let error = Schema::parse(SchemaKind::Protobuf, &top, &[("x".into(), "message x {}".into())]).unwrap_err();
    assert!(error.message().contains("looked up"), "{error}");
}

/// An id that a registry gave up and gives to another schema is read by that one.
#[test]
fn a_plan_goes_with_its_schema() {
    #[derive(Debug)]
    struct Now(std::sync::Mutex<Arc<Schema>>);
    impl Schemas for Now {
        fn schema(&self, _: u32) -> Result<Option<Arc<Schema>>> {
            Ok(Some(self.0.lock().unwrap().clone()))
        }
    }
    let of = |ty| {
        schema(SchemaKind::Avro, &format!(r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":"{ty}"}}]}}"#))
    };
    let now = Arc::new(Now(std::sync::Mutex::new(of("int"))));
    let columns = [field("A", SqlType::String)];
    let decoder = decoder(Format::Avro, &columns, &(now.clone() as Arc<dyn Schemas>));
    let bytes = [0, 0, 0, 0, 1, n(1), b'7'];
    let read = || decoder.decode([Some(&bytes[..6]), Some(&bytes)]).unwrap();
    assert_eq!(values(&read(), &columns)[0], [text("1")]);
    *now.0.lock().unwrap() = of("string");
    assert_eq!(values(&read(), &columns)[1], [text("7")]);
}

/// What does not name its syntax is proto2, whatever else stands in the text: its fields tell that they are not there.
#[test]
fn a_file_without_syntax_is_proto2() {
    let columns = [field("A", SqlType::Integer)];
    for (head, expected) in [("", Value::Null), ("syntax = \"proto3\";", Value::Integer(0))] {
        let made = schema(SchemaKind::Protobuf, &format!("/* no {{}} here */ {head} message M {{ int32 a = 1; }}"));
        let decoder = decoder(Format::Protobuf, &columns, &known(&[(1, &made)]));
        assert_eq!(values(&decoder.decode([Some(&[0, 0, 0, 0, 1, 0][..])]).unwrap(), &columns)[0], [expected]);
    }
}

/// What an edition and its features say of presence, enums and lists.
const EDITION: &str = r#"edition = "2023"; package shop;
    message M {
      int32 told = 1; int32 untold = 2 [features.field_presence = IMPLICIT]; E one = 3;
      repeated E closed = 4; repeated Open open = 5;
      repeated int32 apart = 6 [deprecated = true, features = { repeated_field_encoding: EXPANDED }]; repeated int32 packed = 7;
      map<string, E> named = 8; message Inner { option features.json_format = ALLOW; string s = 1; } Inner inner = 9;
      reserved 20 to 29; reserved old, older;
      string required = 10 [features.field_presence = LEGACY_REQUIRED, features.(pb.cpp).string_type = VIEW];
    }
    enum E { NONE = 0; A = 1; }
    enum Open { option features.enum_type = OPEN; ZERO = 0; ONE = 1; }
    option features.enum_type = CLOSED; option features = { utf8_validation: NONE [pb.java] { large_enum: true } };"#;

#[test]
fn editions_are_read_and_written_by_their_features() {
    let made = schema(SchemaKind::Protobuf, EDITION);
    let numbers = || SqlType::array(SqlType::Integer);
    let texts = || SqlType::array(SqlType::String);
    let columns = [
        field("TOLD", SqlType::Integer),
        field("UNTOLD", SqlType::Integer),
        field("ONE", SqlType::String),
        field("CLOSED", texts()),
        field("OPEN", texts()),
        field("APART", numbers()),
        field("PACKED", numbers()),
        field("NAMED", SqlType::map(SqlType::String, SqlType::String)),
        field("REQUIRED", SqlType::String),
    ];
    let read = |schema: &Arc<Schema>, payload: &[u8]| {
        let framed = [&[0, 0, 0, 0, 1, 0], payload].concat();
        let decoded = decoder(Format::Protobuf, &columns, &known(&[(1, schema)])).decode([Some(&framed[..])]).unwrap();
        assert!(decoded.errors.is_empty(), "{:?}", decoded.errors);
        values(&decoded, &columns).remove(0)
    };
    let empty = Value::Array(Vec::new());
    let list = |items: &[i32]| Value::Array(items.iter().map(|n| Value::Integer(*n)).collect());
    let nothing = vec![
        Value::Null,
        Value::Integer(0),
        Value::Null,
        empty.clone(),
        empty.clone(),
        empty.clone(),
        empty.clone(),
        Value::Map(Vec::new()),
        Value::Null,
    ];
    // 7 is none of the enums' values; lists come in both ways.
    #[rustfmt::skip]
    let strange: &[u8] = &[
        0x18, 7, 0x22, 2, 1, 7, 0x20, 0, 0x2a, 2, 1, 7, 0x32, 2, 1, 2, 0x38, 3, 0x3a, 1, 4,
        0x42, 5, 0x0a, 1, b'x', 0x10, 7, 0x42, 5, 0x0a, 1, b'y', 0x10, 1,
    ];
    let mut known_alone = nothing.clone();
    known_alone[3] = Value::Array(vec![text("A"), text("NONE")]);
    known_alone[4] = Value::Array(vec![text("ONE"), Value::Null]);
    (known_alone[5], known_alone[6]) = (list(&[1, 2]), list(&[3, 4]));
    known_alone[7] = Value::Map(vec![(text("y"), text("A"))]);
    // Compiled and read again it says the same.
    let compiled = made.compiled("file").unwrap();
    let again = schema(SchemaKind::Protobuf, &compiled);
    assert_eq!(again.compiled("file").unwrap(), compiled, "{}", again.text);
    for schema in [&made, &again] {
        assert_eq!(read(schema, &[]), nothing);
        assert_eq!(read(schema, strange), known_alone);
        let zero = || Value::Integer(0);
        let row = vec![zero(), zero(), text("NONE"), Value::Array(vec![text("A"), text("NONE")]), Value::Null];
        let row = [row, vec![list(&[1, 2]), list(&[1, 2]), Value::Null, text("")]].concat();
        let out = write(Format::Protobuf, &columns, &writer(1, schema), &[row]).unwrap();
        #[rustfmt::skip]
        let expected: &[u8] = &[
            0x08, 0, 0x18, 0, 0x22, 2, 1, 0, 0x30, 1, 0x30, 2, 0x3a, 2, 1, 2, 0x52, 0,
        ];
        assert_eq!(&out.get(0).unwrap()[6..], expected);
    }
    // Of the whole file, wherever it stands.
    let made = schema(
        SchemaKind::Protobuf,
        "edition = '2024'; import option 'x.proto'; export message M { local message I {} int32 told = 1; } \
         option features.field_presence = IMPLICIT;",
    );
    assert_eq!(read(&made, &[])[0], Value::Integer(0));
}

#[test]
fn what_editions_have_not_is_refused() {
    for (text, said) in [
        ("edition = '2022'; message M {}", "edition \"2022\" is not known; there are 2023, 2024, 2026"),
        ("syntax = 'proto4'; message M {}", "syntax \"proto4\" is not known"),
        ("edition = '2023'; message M {\n optional int32 a = 1; }", "no label \"optional\"; the feature"),
        ("edition = '2023'; message M { required int32 a = 1; }", "no label \"required\""),
        ("edition = '2023'; message M { repeated int32 a = 1 [packed = true]; }", "\"repeated_field_encoding\""),
        (
            "edition = '2023'; message M { M a = 1 [features.message_encoding = DELIMITED]; }",
            "groups are not supported",
        ),
        ("edition = '2023'; option features.message_encoding = DELIMITED; message M {}", "groups are not supported"),
        ("edition = '2023'; message M { int32 a = 1 [features.field_presence = MAYBE]; }", "EXPLICIT or IMPLICIT or"),
        ("edition = '2023'; message M { int32 a = 1 [features.presence = IMPLICIT]; }", "no feature \"presence\""),
        ("edition = '2023'; message M { option features.field_presence = IMPLICIT; }", "no file and no field"),
        ("edition = '2023'; message M { int32 a = 1 [features.enum_type = OPEN]; }", "no file and no enum"),
        ("edition = '2023'; message M { int32 a = 1 [features = { enum_type: OPEN ]; }", "in line 1"),
    ] {
        let problem = Schema::parse(SchemaKind::Protobuf, text, &[]).unwrap_err();
        assert!(problem.message().contains(said), "{text}: {}", problem.message());
    }
    // Other syntaxes know no features.
    let text =
        "syntax = 'proto3'; message M { int32 a = 1 [features.presence = X]; repeated int32 b = 2 [packed = false]; }";
    let made = schema(SchemaKind::Protobuf, text);
    let again = schema(SchemaKind::Protobuf, &made.compiled("file").unwrap());
    assert!(again.text.contains("repeated int32 b = 2 [packed = false];"), "{}", again.text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No bytes make it panic or take long: neither damaged records nor schemas.
    #[test]
    fn damaged_bytes_are_refused(cut in 0usize..200, at in 0usize..200, byte: u8, proto: bool) {
        let (columns, row) = everything();
        let format = if proto { Format::Protobuf } else { Format::Avro };
        let made = Arc::new(schema_for(format, &columns, &Naming::default()).unwrap());
        let out = write(format, &columns, &writer(1, &made), &[row]).unwrap();
        let mut bytes = out.get(0).unwrap().to_vec();
        if let Some(place) = bytes.get_mut(5 + at) {
            *place = byte;
        }
        let cut = bytes.len().min(5 + cut);
        let schemas = known(&[(1, &made)]);
        for bytes in [&bytes[..], &bytes[..cut]] {
            let decoded = decoder(format, &columns, &schemas).decode([Some(bytes), out.get(0)]).unwrap();
            prop_assert_eq!(decoded.rows, 2);
            prop_assert!(decoded.errors.iter().all(|e| e.row == 0));
        }
        let mut text = made.text.clone().into_bytes();
        let len = text.len();
        text[(at * 7) % len] = byte;
        if let Ok(text) = String::from_utf8(text) {
            let _ = Schema::parse(made.kind(), &text, &[]);
        }
    }
}

/// What a PROTOBUF schema's first message reads of payloads, and the errors.
fn proto_rows(definition: &str, columns: &[Field], payloads: &[&[u8]]) -> (Vec<Vec<Value>>, Vec<String>) {
    let schema = schema(SchemaKind::Protobuf, &format!("syntax = \"proto3\"; {definition}"));
    let framed: Vec<Vec<u8>> = payloads.iter().map(|p| [&[0, 0, 0, 0, 1, 0], *p].concat()).collect();
    let decoded = decoder(Format::Protobuf, columns, &known(&[(1, &schema)]))
        .decode(framed.iter().map(|f| Some(f.as_slice())))
        .unwrap();
    (values(&decoded, columns), decoded.errors.iter().map(|e| e.message.clone()).collect())
}

#[test]
fn a_message_around_itself_has_an_end() {
    let text = "syntax = \"proto3\"; package google.protobuf; message StringValue { StringValue value = 1; }";
    let own = schema(SchemaKind::Protobuf, text);
    let _ = columns_of(&own, Side::Value, false, true, None);
    for ty in [SqlType::String, SqlType::array(SqlType::String)] {
        let columns = [field("VALUE", ty)];
        assert!(write(Format::Protobuf, &columns, &writer(1, &own), &[vec![Value::Null]]).is_err());
        let bytes: &[u8] = &[0, 0, 0, 0, 1, 0, 0x0a, 0];
        let read = decoder(Format::Protobuf, &columns, &known(&[(1, &own)])).decode([Some(bytes)]).unwrap();
        assert_eq!(read.errors.len(), 1);
    }
}

#[test]
fn a_part_of_a_oneof_may_come_in_pieces() {
    let part = |fields| [field("C_0", SqlType::Struct(vec![field("A", SqlType::Struct(fields))]))];
    let numbers = field("V", SqlType::array(SqlType::Integer));
    let definition = "message M { oneof c { A a = 1; } } message A { repeated int32 v = 1; }";
    let payloads: [&[u8]; 2] = [&[0x0a, 0, 0x0a, 0], &[0x0a, 2, 8, 1, 0x0a, 2, 8, 2]];
    // Also where the STRUCT has a field that the message lacks.
    for fields in [vec![numbers.clone()], vec![numbers, field("MORE", SqlType::String)]] {
        let more = fields.len() > 1;
        let (rows, errors) = proto_rows(definition, &part(fields), &payloads);
        assert!(errors.is_empty(), "{errors:?}");
        for (row, items) in rows.iter().zip([vec![], vec![Value::Integer(1), Value::Integer(2)]]) {
            let mut a = vec![("V".into(), Value::Array(items))];
            if more {
                a.push(("MORE".into(), Value::Null));
            }
            assert_eq!(row[0], Value::Struct(vec![("A".into(), Value::Struct(a))]));
        }
    }
}

#[test]
fn protobuf_entries_with_lists_are_a_map_of_lists() {
    let numbers = SqlType::map(SqlType::String, SqlType::array(SqlType::Integer));
    let definition = "message R { repeated E m = 1; } message E { string k = 1; repeated int32 v = 2; }";
    // {a: [1, 2], b: []}, then {c: [3]}: packed, and one by one.
    let first: &[u8] = &[0x0a, 7, 0x0a, 1, b'a', 0x12, 2, 1, 2, 0x0a, 3, 0x0a, 1, b'b'];
    let second: &[u8] = &[0x0a, 5, 0x0a, 1, b'c', 0x10, 3];
    let (rows, errors) = proto_rows(definition, &[field("M", numbers)], &[first, second]);
    assert!(errors.is_empty(), "{errors:?}");
    let list = |items: &[i32]| Value::Array(items.iter().map(|n| Value::Integer(*n)).collect());
    let map = |entries: &[(&str, Value)]| Value::Map(entries.iter().map(|(k, v)| (text(k), v.clone())).collect());
    assert_eq!(rows[0][0], map(&[("a", list(&[1, 2])), ("b", list(&[]))]));
    assert_eq!(rows[1][0], map(&[("c", list(&[3]))]));
}

#[test]
fn maps_are_written_and_read_as_connect_has_them() {
    let lists = SqlType::map(SqlType::String, SqlType::array(SqlType::Integer));
    let columns = [field("ID", SqlType::BigInt), field("M", lists)];
    let made = Arc::new(schema_for(Format::Protobuf, &columns, &Naming::default()).unwrap());
    let expected = "message ConnectDefault1 {\n  int64 ID = 1;\n  repeated ConnectDefault2Entry M = 2;\n\n  message \
                    ConnectDefault2Entry {\n    string key = 1;\n    repeated int32 value = 2;\n  }\n}";
    assert!(made.text.contains(expected), "{}", made.text);
    let inferred = columns_of(&made, Side::Value, false, true, None).unwrap();
    assert_eq!(inferred, columns);
    // What is written by the schema is what is written by the types alone, behind the frame.
    let list = |items: &[i32]| Value::Array(items.iter().map(|n| Value::Integer(*n)).collect());
    let map = Value::Map([(text("a"), list(&[1, 2])), (text("b"), list(&[]))].into_iter().collect());
    let row = vec![Value::BigInt(7), map];
    let written = write(Format::Protobuf, &columns, &writer(1, &made), std::slice::from_ref(&row)).unwrap();
    let (rows, errors) =
        proto_rows(&made.text.replace("syntax = \"proto3\";", ""), &columns, &[&written.get(0).unwrap()[6..]]);
    assert_eq!((rows, errors.len()), (vec![row], 0));
    // An entry around itself has no end, and no type.
    let text = "syntax = \"proto3\"; message R { int32 a = 1; repeated SelfEntry m = 2; } \
                message SelfEntry { string key = 1; repeated SelfEntry value = 2; }";
    let endless = schema(SchemaKind::Protobuf, text);
    let names: Vec<String> =
        columns_of(&endless, Side::Value, false, true, None).unwrap().into_iter().map(|f| f.name).collect();
    assert_eq!(names, ["a"]);
}

#[test]
fn protobuf_types_that_do_not_fit_are_refused() {
    let map = [field("M", SqlType::map(SqlType::String, SqlType::String))];
    let entry: &[u8] = &[0x0a, 5, 8, 1, 0x12, 1, b'a'];
    for definition in [
        "message R { map<int32, string> m = 1; }",
        "message R { repeated E m = 1; } message E { int32 k = 1; string v = 2; }",
    ] {
        let (_, errors) = proto_rows(definition, &map, &[entry]);
        assert!(errors[0].contains("keys are not strings"), "{errors:?}");
    }
    let wrapped = "import \"google/protobuf/wrappers.proto\"; message R { google.protobuf.Int64Value n = 1; }";
    let large: &[u8] = &[0x0a, 6, 8, 0x85, 0x80, 0x80, 0x80, 0x10];
    for ty in [SqlType::Integer, SqlType::Boolean] {
        assert_eq!(proto_rows(wrapped, &[field("N", ty)], &[large]).1.len(), 1);
    }
    let (rows, _) = proto_rows(wrapped, &[field("N", SqlType::BigInt)], &[large]);
    assert_eq!(rows[0][0], Value::BigInt((1 << 32) + 5));
    // A value that only a newer schema has is NULL.
    let suit = "message R { Suit s = 1; } enum Suit { SPADES = 0; }";
    let (rows, errors) = proto_rows(suit, &[field("S", SqlType::String)], &[&[8, 7], &[8, 0]]);
    assert_eq!((rows, errors.len()), (vec![vec![Value::Null], vec![text("SPADES")]], 0));
}

#[test]
fn avro_values_without_bytes_are_bounded() {
    // Records that double at each level, passed over and as a default.
    let mut nested =
        r#"{"type":"record","name":"R40","fields":[{"name":"n","type":"null","default":null}]}"#.to_owned();
    for i in (0..40).rev() {
        let next = i + 1;
        nested = format!(
            r#"{{"type":"record","name":"R{i}","fields":[{{"name":"a","type":{nested},"default":{{}}}},{{"name":"b","type":"R{next}","default":{{}}}}]}}"#
        );
    }
    let text = format!(
        r#"{{"type":"record","name":"T","fields":[{{"name":"x","type":"int"}},{{"name":"j","type":{nested},"default":{{}}}}]}}"#
    );
    let deep = schema(SchemaKind::Avro, &text);
    let columns = [field("x", SqlType::Integer)];
    let bytes: &[u8] = &[0, 0, 0, 0, 1, 0];
    let read = decoder(Format::Avro, &columns, &known(&[(1, &deep)])).decode([Some(bytes)]).unwrap();
    assert!(read.errors[0].message.contains("without bytes"), "{:?}", read.errors);
    let refused = write(Format::Avro, &columns, &writer(1, &deep), &[vec![Value::Integer(1)]]);
    assert!(refused.unwrap_err().message().contains("defaults have more"));

    // A time of day that 32 bits do not hold.
    let clock = schema(
        SchemaKind::Avro,
        r#"{"type":"record","name":"T","fields":[{"name":"t","type":{"type":"long","logicalType":"time-micros"}}]}"#,
    );
    let columns = [field("t", SqlType::Time)];
    let bytes = [&[0, 0, 0, 0, 1][..], &[0xff; 7], &[0x7f]].concat();
    let read = decoder(Format::Avro, &columns, &known(&[(1, &clock)])).decode([Some(bytes.as_slice())]).unwrap();
    assert!(read.errors[0].message.contains("Time values must"), "{:?}", read.errors);
}

#[test]
fn empty_items_do_not_multiply() {
    let parts: Vec<Field> = (0..2000).map(|i| field(&format!("P{i}"), SqlType::Integer)).collect();
    let columns = [field("L", SqlType::array(SqlType::Struct(parts)))];
    // A few are read; more cells than a batch may make without bytes are not.
    let (few, many) = ([0x0a, 0].repeat(3), [0x0a, 0].repeat(9000));
    let (rows, errors) =
        proto_rows("message R { repeated E l = 1; } message E { int32 p0 = 1; }", &columns, &[&many, &few]);
    assert!(errors.len() == 1 && errors[0].contains("empty items"), "{errors:?}");
    assert!(matches!(&rows[1][0], Value::Array(items) if items.len() == 3));
    let format = Format::ProtobufNosr { nullable: Nullable::Unset };
    let rows: [Option<&[u8]>; 2] = [Some(&many), Some(&few)];
    let read = decoder(format, &columns, &known(&[])).decode(rows).unwrap();
    assert!(read.errors.len() == 1 && read.errors[0].message.contains("empty items"), "{:?}", read.errors);

    let text = r#"{"type":"record","name":"T","fields":[{"name":"L","type":{"type":"array","items":{"type":"record","name":"E","fields":[]}}}]}"#;
    let empty = schema(SchemaKind::Avro, text);
    // Blocks of 9000 and of 3 items.
    let (many, few) = ([0, 0, 0, 0, 1, 0xd0, 0x8c, 1, 0], [0, 0, 0, 0, 1, 6, 0]);
    let rows: [Option<&[u8]>; 2] = [Some(&many), Some(&few)];
    let read = decoder(Format::Avro, &columns, &known(&[(1, &empty)])).decode(rows).unwrap();
    assert!(read.errors.len() == 1 && read.errors[0].message.contains("empty items"), "{:?}", read.errors);
}
