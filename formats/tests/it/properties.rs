use millpond_formats::json::Comments;
use millpond_formats::{DecodeOptions, Decoder, EncodeOptions, Format, Json, Nullable, java_double, number};
use millpond_types::{Field, SqlType, Value};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{decode, encode, values};

fn primitive() -> impl Strategy<Value = SqlType> {
    prop_oneof![
        Just(SqlType::Boolean),
        Just(SqlType::Integer),
        Just(SqlType::BigInt),
        Just(SqlType::Double),
        (1u8..=38).prop_flat_map(|p| (0..=p).prop_map(move |s| SqlType::decimal(p, s))),
        Just(SqlType::String),
        Just(SqlType::Bytes),
        Just(SqlType::Date),
        Just(SqlType::Time),
        Just(SqlType::Timestamp),
    ]
}

fn any_type() -> impl Strategy<Value = SqlType> {
    primitive().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(SqlType::array),
            inner.clone().prop_map(|ty| SqlType::map(SqlType::String, ty)),
            vec(inner, 1..4).prop_map(|types| SqlType::Struct(named(types))),
        ]
    })
}

fn named(types: Vec<SqlType>) -> Vec<Field> {
    types.into_iter().enumerate().map(|(i, ty)| Field::new(format!("F{i}"), ty)).collect()
}

/// Text with what needs care in every format.
fn some_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9 ]{1,20}", "[\\x00-\\x7f]{1,12}", "\\PC{1,12}", "[\"\\\\,\\n\\t-]{1,6}"]
}

fn value(ty: &SqlType) -> BoxedStrategy<Value> {
    let some = match ty {
        SqlType::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        SqlType::Integer => any::<i32>().prop_map(Value::Integer).boxed(),
        SqlType::BigInt => any::<i64>().prop_map(Value::BigInt).boxed(),
        SqlType::Double => {
            prop_oneof![any::<f64>(), (-1e6..1e6f64), any::<i32>().prop_map(f64::from)].prop_map(Value::Double).boxed()
        }
        SqlType::Decimal { precision, scale } => {
            let (precision, scale) = (*precision, *scale);
            let max = 10i128.pow(u32::from(precision)) - 1;
            (-max..=max).prop_map(move |unscaled| Value::Decimal { unscaled, precision, scale }).boxed()
        }
        SqlType::String => some_text().prop_map(Value::String).boxed(),
        SqlType::Bytes => vec(any::<u8>(), 1..20).prop_map(Value::Bytes).boxed(),
        SqlType::Date => any::<i32>().prop_map(Value::Date).boxed(),
        SqlType::Time => (0..86_400_000i32).prop_map(Value::Time).boxed(),
        SqlType::Timestamp => any::<i64>().prop_map(Value::Timestamp).boxed(),
        SqlType::Array(item) => vec(value(item), 0..4).prop_map(Value::Array).boxed(),
        SqlType::Map(_, item) => btree_map(some_text(), value(item), 0..20)
            .prop_map(|map| Value::Map(map.into_iter().map(|(k, v)| (Value::String(k), v)).collect()))
            .boxed(),
        SqlType::Struct(fields) => fields
            .iter()
            .map(|f| {
                let name = f.name.clone();
                value(&f.ty).prop_map(move |v| (name.clone(), v)).boxed()
            })
            .collect::<Vec<_>>()
            .prop_map(Value::Struct)
            .boxed(),
    };
    prop_oneof![8 => some, 1 => Just(Value::Null)].boxed()
}

/// Columns and rows of them.
fn table(
    ty: impl Strategy<Value = SqlType>,
    columns: std::ops::Range<usize>,
) -> impl Strategy<Value = (Vec<Field>, Vec<Vec<Value>>)> {
    vec(ty, columns).prop_map(named).prop_flat_map(|fields| {
        let row: Vec<_> = fields.iter().map(|f| value(&f.ty)).collect();
        vec(row, 1..12).prop_map(move |rows| (fields.clone(), rows))
    })
}

/// NaN is equal to itself here.
fn same(a: &[Vec<Value>], b: &[Vec<Value>]) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

fn round_trip(format: Format, fields: &[Field], rows: &[Vec<Value>], unwrap_single: bool) {
    let out = encode(format, fields, EncodeOptions { unwrap_single, ..Default::default() }, rows);
    let bytes: Vec<Option<&[u8]>> = out.iter().collect();
    let decoded = decode(format, fields, unwrap_single, &bytes);
    assert_eq!(decoded.errors, []);
    let back = values(&decoded, fields);
    assert!(
        same(&back, rows),
        "{rows:?}\nbecame\n{back:?}\nby way of\n{:?}",
        bytes.iter().map(|b| b.map(String::from_utf8_lossy)).collect::<Vec<_>>()
    );
}

/// The default of a protobuf field; NULL for messages.
fn protobuf_default(ty: &SqlType) -> Value {
    match ty {
        SqlType::Boolean => Value::Boolean(false),
        SqlType::Integer => Value::Integer(0),
        SqlType::BigInt => Value::BigInt(0),
        SqlType::Double => Value::Double(0.0),
        SqlType::String => Value::String(String::new()),
        SqlType::Bytes => Value::Bytes(Vec::new()),
        _ => Value::Null,
    }
}

/// What protobuf makes of a field.
fn read_back(value: &Value, ty: &SqlType, nullable: Nullable) -> Value {
    match (value, ty) {
        (Value::Null, SqlType::Array(_)) => Value::Array(Vec::new()),
        (Value::Null, SqlType::Map(..)) => Value::Map(Vec::new()),
        (Value::Null, _) if nullable == Nullable::Unset => protobuf_default(ty),
        (Value::Array(items), SqlType::Array(item)) => {
            Value::Array(items.iter().map(|v| item_read_back(v, item, nullable)).collect())
        }
        (Value::Map(entries), SqlType::Map(_, item)) => {
            Value::Map(entries.iter().map(|(k, v)| (k.clone(), read_back(v, item, nullable))).collect())
        }
        (Value::Struct(parts), SqlType::Struct(fields)) => Value::Struct(
            parts.iter().zip(fields).map(|((n, v), f)| (n.clone(), read_back(v, &f.ty, nullable))).collect(),
        ),
        (other, _) => other.clone(),
    }
}

/// What protobuf makes of an item of an array: always there.
fn item_read_back(value: &Value, ty: &SqlType, nullable: Nullable) -> Value {
    match (value, ty) {
        (Value::Null, SqlType::Struct(fields)) => {
            Value::Struct(fields.iter().map(|f| (f.name.clone(), read_back(&Value::Null, &f.ty, nullable))).collect())
        }
        (Value::Null, SqlType::Time) => Value::Time(0),
        (Value::Null, SqlType::Timestamp) => Value::Timestamp(0),
        (Value::Null, _) => read_back(&Value::Null, ty, Nullable::Unset),
        _ => read_back(value, ty, nullable),
    }
}

/// A field that stands twice in its message.
fn doubled(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().chain(items).cloned().collect()),
        Value::Struct(parts) => Value::Struct(parts.iter().map(|(n, v)| (n.clone(), doubled(v))).collect()),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn json_round_trip((fields, rows) in table(any_type(), 1..6)) {
        round_trip(Format::Json, &fields, &rows, false);
    }

    #[test]
    fn json_single_round_trip((fields, rows) in table(any_type(), 1..2)) {
        round_trip(Format::Json, &fields, &rows, true);
    }

    #[test]
    fn protobuf_round_trip((fields, rows) in table(any_type(), 1..6), single in any::<bool>()) {
        let unwrap_single = single && fields.len() == 1;
        for nullable in [Nullable::Unset, Nullable::Optional, Nullable::Wrapper] {
            let format = Format::ProtobufNosr { nullable };
            let out = encode(format, &fields, EncodeOptions { unwrap_single, ..Default::default() }, &rows);
            let bytes: Vec<Option<&[u8]>> = out.iter().collect();
            let decoded = decode(format, &fields, unwrap_single, &bytes);
            prop_assert_eq!(&decoded.errors, &[]);
            let expected: Vec<Vec<Value>> = rows
                .iter()
                .map(|row| row.iter().zip(&fields).map(|(v, f)| {
                    if unwrap_single && v.is_null() { Value::Null } else { read_back(v, &f.ty, nullable) }
                }).collect())
                .collect();
            let back = values(&decoded, &fields);
            prop_assert!(same(&back, &expected), "{:?} as {:?}\nbecame\n{:?}\nby way of\n{:?}", rows, nullable, back, bytes);
        }
    }

    /// Two messages one after the other are one message, merged: what protobuf promises of its bytes.
    #[test]
    fn protobuf_concatenation((fields, rows) in table(any_type(), 1..5)) {
        let format = Format::ProtobufNosr { nullable: Nullable::Optional };
        let out = encode(format, &fields, EncodeOptions::default(), &rows);
        let whole: Vec<Option<&[u8]>> = out.iter().collect();
        let twice: Vec<Vec<u8>> = whole.iter().map(|b| [b.unwrap(), b.unwrap()].concat()).collect();
        let twice = decode(format, &fields, false, &twice.iter().map(|b| Some(b.as_slice())).collect::<Vec<_>>());
        let once = decode(format, &fields, false, &whole);
        prop_assert_eq!(&twice.errors, &[]);
        let (once, twice) = (values(&once, &fields), values(&twice, &fields));
        for (row, (a, b)) in once.iter().zip(&twice).enumerate() {
            for (a, b) in a.iter().zip(b) {
                let merged = doubled(a);
                prop_assert!(format!("{merged:?}") == format!("{b:?}"), "row {row}: {merged:?} {b:?}");
            }
        }
    }

    #[test]
    fn delimited_round_trip((fields, rows) in table(primitive(), 1..6), delimiter in "[,;|\\t ]") {
        let format = Format::Delimited { delimiter: delimiter.as_bytes()[0] };
        round_trip(format, &fields, &rows, false);
    }

    /// Fewer columns asked for, the same answer; and an array cut out of a larger one is written alike.
    #[test]
    fn projection_changes_nothing((fields, rows) in table(any_type(), 2..6)) {
        let out = encode(Format::Json, &fields, EncodeOptions::default(), &rows);
        let wanted: Vec<usize> = (0..fields.len()).rev().step_by(2).collect();
        let decoder = Decoder::new(Format::Json, &fields, DecodeOptions::default(), &wanted).unwrap();
        let some = decoder.decode(out.iter()).unwrap();
        let all = decode(Format::Json, &fields, false, &out.iter().collect::<Vec<_>>());
        for (column, &index) in some.columns.iter().zip(&wanted) {
            prop_assert_eq!(column.to_data(), all.columns[index].to_data());
        }
        let tail: Vec<_> = all.columns.iter().map(|c| c.slice(1, c.len() - 1)).collect();
        let mut sliced = millpond_formats::Encoded::default();
        millpond_formats::Encoder::new(Format::Json, &fields, EncodeOptions::default()).unwrap()
            .encode(rows.len() - 1, &tail, None, &mut sliced).unwrap();
        prop_assert_eq!(sliced.iter().collect::<Vec<_>>(), out.iter().skip(1).collect::<Vec<_>>());
    }

    /// Whatever the bytes, there is a row for each, and its neighbours are as without it.
    #[test]
    fn garbage_harms_nobody((fields, rows) in table(any_type(), 1..4), at in any::<prop::sample::Index>(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(), noise in vec(any::<u8>(), 0..40)) {
        let wrapper = Format::ProtobufNosr { nullable: Nullable::Wrapper };
        for format in [Format::Json, Format::DELIMITED, Format::Kafka, Format::PROTOBUF_NOSR, wrapper] {
            if format.objection(millpond_formats::Side::Value, &fields).is_some() {
                continue;
            }
            let out = encode(format, &fields, EncodeOptions::default(), &rows);
            let mut records: Vec<Option<Vec<u8>>> = out.iter().map(|b| b.map(<[u8]>::to_vec)).collect();
            let whole = decode(format, &fields, false, &records.iter().map(|r| r.as_deref()).collect::<Vec<_>>());
            let at = at.index(records.len());
            let mut broken = records[at].clone().unwrap_or_default();
            for (place, byte) in &flips {
                if !broken.is_empty() {
                    let place = place.index(broken.len());
                    broken[place] = *byte;
                }
            }
            broken.truncate(cut.index(broken.len() + 1));
            broken.extend(&noise);
            records[at] = Some(broken);
            let hurt = decode(format, &fields, false, &records.iter().map(|r| r.as_deref()).collect::<Vec<_>>());
            prop_assert_eq!(hurt.rows, whole.rows);
            let (mut a, mut b) = (values(&whole, &fields), values(&hurt, &fields));
            a.remove(at);
            b.remove(at);
            prop_assert!(same(&a, &b));
        }
    }

    /// What counts as JSON is what another reader takes for JSON.
    #[test]
    fn json_syntax(text in "[\\[\\]{},:\"\\\\u0-2a.eE+\\- ]{0,16}|[\\[\\]{},:\" 1]{0,24}|\\[(true|null|false|-?0\\.1e5|\"\\\\n\"|\\{\"a\" ?:1\\}|,){0,6}\\]") {
        let ours = Json::parse(&text, Comments::Refused);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        // A number too large for them, half a surrogate pair, and the like are theirs alone.
        let excused = theirs.as_ref().is_err_and(|e| { let e = e.to_string(); e.contains("out of range") || e.contains("surrogate") || e.contains("hex escape") });
        prop_assert!(excused || ours.is_ok() == theirs.is_ok(), "{text:?}: {ours:?} {theirs:?}");
        // The skipping reader agrees with the tree.
        let fields = [Field::new("A", SqlType::Integer)];
        let decoder = Decoder::new(Format::Json, &fields, DecodeOptions::default(), &[]).unwrap();
        let record = format!("{{\"x\":{text}}}");
        let skipped = decoder.decode([Some(record.as_bytes())]).unwrap();
        // What follows a record is ignored, and a comma makes more members of it.
        if ours.is_ok() {
            prop_assert_eq!(skipped.errors, []);
        } else if !text.contains(['}', ',']) {
            prop_assert_eq!(skipped.errors.len(), 1, "{}", record);
        }
    }

    #[test]
    fn doubles_survive_text(bits in any::<u64>(), short in -10_000_000i64..10_000_000, places in 0i32..6) {
        for value in [f64::from_bits(bits), short as f64 / 10f64.powi(places)] {
            if value.is_nan() {
                continue;
            }
            let text = java_double(value);
            prop_assert_eq!(number::parse_double(&text).map(f64::to_bits), Some(value.to_bits()), "{}", text);
            let fields = [Field::new("D", SqlType::Double)];
            let decoded = decode(Format::Json, &fields, true, &[Some(format!("{value:?}").as_bytes())]);
            if value.is_finite() {
                prop_assert!(same(&values(&decoded, &fields), &[vec![Value::Double(value)]]), "{value:?}");
            }
        }
    }
}
