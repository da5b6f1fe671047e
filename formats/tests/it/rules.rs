use millpond_formats::{DecodeOptions, Decoder, EncodeOptions, Format, Nullable, Side};
use millpond_types::{Field, SqlType, Value};

use super::{decode, encode, field, values};

fn text(s: &str) -> Value {
    Value::String(s.into())
}

fn decimal(unscaled: i128, precision: u8, scale: u8) -> Value {
    Value::Decimal { unscaled, precision, scale }
}

/// A JSON value read into a column of a type: what it becomes, or `None` where the record is refused.
#[test]
fn json_coercions() {
    let day = 86_400_000;
    for (ty, json, expected) in [
        (SqlType::Boolean, "true", Some(Value::Boolean(true))),
        (SqlType::Boolean, "\"true\"", None),
        (SqlType::Boolean, "1", None),
        (SqlType::Integer, "12", Some(Value::Integer(12))),
        (SqlType::Integer, "-2147483648", Some(Value::Integer(i32::MIN))),
        (SqlType::Integer, "2147483648", Some(Value::Integer(i32::MIN))),
        (SqlType::Integer, "12.9", Some(Value::Integer(12))),
        (SqlType::Integer, "-12.9e0", Some(Value::Integer(-12))),
        (SqlType::Integer, "\"12\"", Some(Value::Integer(12))),
        (SqlType::Integer, "\"12.0\"", None),
        (SqlType::Integer, "\"2147483648\"", None),
        (SqlType::Integer, "true", None),
        (SqlType::Integer, "012", None),
        (SqlType::Integer, "null", Some(Value::Null)),
        (SqlType::BigInt, "9223372036854775807", Some(Value::BigInt(i64::MAX))),
        (SqlType::BigInt, "-9223372036854775808", Some(Value::BigInt(i64::MIN))),
        (SqlType::BigInt, "1e3", Some(Value::BigInt(1000))),
        (SqlType::BigInt, "\"+7\"", Some(Value::BigInt(7))),
        (SqlType::BigInt, "[]", None),
        (SqlType::Double, "1", Some(Value::Double(1.0))),
        (SqlType::Double, "-0.1", Some(Value::Double(-0.1))),
        (SqlType::Double, "3.8688222734507915", Some(Value::Double(3.868_822_273_450_791_5))),
        (SqlType::Double, "12345678901234567890", Some(Value::Double(12_345_678_901_234_567_890.0))),
        (SqlType::Double, "1e400", Some(Value::Double(f64::INFINITY))),
        (SqlType::Double, "\"1e2\"", Some(Value::Double(100.0))),
        (SqlType::Double, "\"x\"", None),
        (SqlType::Double, "1.", None),
        (SqlType::decimal(4, 2), "12.3", Some(decimal(1230, 4, 2))),
        (SqlType::decimal(4, 2), "\"12.30\"", Some(decimal(1230, 4, 2))),
        (SqlType::decimal(4, 2), "12.300", Some(decimal(1230, 4, 2))),
        (SqlType::decimal(4, 2), "12.345", None),
        (SqlType::decimal(4, 2), "100", None),
        (SqlType::decimal(4, 2), "1e1", Some(decimal(1000, 4, 2))),
        (SqlType::String, "\"a\\u00e9\\n\"", Some(text("aé\n"))),
        (SqlType::String, "12.50", Some(text("12.50"))),
        (SqlType::String, "1e5", Some(text("1E+5"))),
        (SqlType::String, "true", Some(text("true"))),
        (SqlType::String, "{ \"a\" : [1, \"x\\/\", null] , \"b\":{} }", Some(text("{\"a\":[1,\"x/\",null],\"b\":{}}"))),
        (SqlType::String, "{\"a\":1,\"b\":2,\"a\":3}", Some(text("{\"a\":3,\"b\":2}"))),
        (
            SqlType::String,
            "[1, \"x\", [true], {\"a\": \"b\"}, null]",
            Some(text("[1, x, [true], {\"a\":\"b\"}, null]")),
        ),
        (SqlType::Bytes, "\"dmFyaWF0aW9ucw==\"", Some(Value::Bytes(b"variations".to_vec()))),
        (SqlType::Bytes, "\"!\"", None),
        (SqlType::Bytes, "1", None),
        (SqlType::Date, "10", Some(Value::Date(10))),
        (SqlType::Date, "\"10\"", Some(Value::Date(10))),
        (SqlType::Date, "2147483648", None),
        (SqlType::Time, "10", Some(Value::Time(10))),
        (SqlType::Time, "86400000", None),
        (SqlType::Time, "-1", None),
        (SqlType::Timestamp, "-1", Some(Value::Timestamp(-1))),
        (SqlType::Timestamp, "\"86400000\"", Some(Value::Timestamp(day))),
        (
            SqlType::array(SqlType::Integer),
            "[1, null, \"3\"]",
            Some(Value::Array(vec![Value::Integer(1), Value::Null, Value::Integer(3)])),
        ),
        (SqlType::array(SqlType::Integer), "[]", Some(Value::Array(vec![]))),
        (SqlType::array(SqlType::Integer), "[1, true]", None),
        (SqlType::array(SqlType::Integer), "{}", None),
        (
            SqlType::map(SqlType::String, SqlType::Integer),
            "{\"a\": 1, \"b\": null, \"a\": 2}",
            Some(Value::Map(vec![(text("a"), Value::Integer(2)), (text("b"), Value::Null)])),
        ),
        (SqlType::map(SqlType::String, SqlType::Integer), "[1]", None),
        (
            SqlType::Struct(vec![field("A", SqlType::Integer), field("b", SqlType::String)]),
            "{\"a\": 1, \"B\": \"x\", \"zz\": {}}",
            Some(Value::Struct(vec![("A".into(), Value::Integer(1)), ("b".into(), Value::Null)])),
        ),
        (SqlType::Struct(vec![field("A", SqlType::Integer)]), "[]", None),
        (
            SqlType::Struct(vec![field("A", SqlType::array(SqlType::String))]),
            "{\"a\":[\"1\",\"2\"],\"a\":[\"3\"]}",
            Some(Value::Struct(vec![("A".into(), Value::Array(vec![text("3")]))])),
        ),
    ] {
        let fields = [field("C", ty.clone())];
        let wrapped = format!("{{\"C\":{json}}}");
        let got = decode(Format::Json, &fields, false, &[Some(wrapped.as_bytes())]);
        let single = decode(Format::Json, &fields, true, &[Some(json.as_bytes())]);
        for decoded in [got, single] {
            match &expected {
                Some(value) => {
                    assert_eq!(decoded.errors, [], "{ty} from {json}");
                    assert_eq!(values(&decoded, &fields)[0][0], *value, "{ty} from {json}");
                }
                None => {
                    assert_eq!(decoded.errors.len(), 1, "{ty} from {json}: {:?}", values(&decoded, &fields));
                    assert_eq!(values(&decoded, &fields)[0][0], Value::Null);
                }
            }
        }
    }
}

/// Which member fills which column.
#[test]
fn json_member_names() {
    let fields = [field("FOO", SqlType::Integer), field("bar", SqlType::Integer), field("É", SqlType::Integer)];
    let i = Value::Integer;
    for (json, expected) in [
        ("{\"foo\":1,\"bar\":2,\"é\":3}", [i(1), i(2), i(3)]),
        ("{\"Foo\":1,\"BAR\":2}", [i(1), Value::Null, Value::Null]),
        ("{\"foo\":1,\"FOO\":2}", [i(2), Value::Null, Value::Null]),
        ("{\"FOO\":2,\"foo\":1}", [i(2), Value::Null, Value::Null]),
        ("{\"FOO\":null,\"foo\":1}", [Value::Null, Value::Null, Value::Null]),
        ("{\"foo\":1,\"Foo\":2}", [i(2), Value::Null, Value::Null]),
        ("{\"FOO\":1,\"bar\":5,\"FOO\":3}", [i(3), i(5), Value::Null]),
        ("{\"\\u0046oo\":1, \"x\":[{}], \"bar\" : 2 }", [i(1), i(2), Value::Null]),
        ("{}", [Value::Null, Value::Null, Value::Null]),
        (" \n{\"foo\":1} and what follows", [i(1), Value::Null, Value::Null]),
    ] {
        // Twice around other shapes, so that right and wrong guesses of the order are both taken.
        let rows: Vec<&str> = vec!["{\"bar\":7,\"foo\":8}", json, json, "{\"x\":0,\"foo\":9}", json];
        let bytes: Vec<Option<&[u8]>> = rows.iter().map(|r| Some(r.as_bytes())).collect();
        let decoded = decode(Format::Json, &fields, false, &bytes);
        assert_eq!(decoded.errors, [], "{json}");
        let got = values(&decoded, &fields);
        for row in [1, 2, 4] {
            assert_eq!(got[row], expected, "{json}");
        }
        assert_eq!((&got[0][0], &got[0][1], &got[3][0]), (&i(8), &i(7), &i(9)));
    }
}

#[test]
fn bad_records_leave_nothing_behind() {
    let ty = SqlType::Struct(vec![
        field("L", SqlType::array(SqlType::String)),
        field("M", SqlType::map(SqlType::String, SqlType::Double)),
    ]);
    let fields = [field("A", SqlType::String), field("S", ty), field("B", SqlType::Integer)];
    let good = r#"{"a":"x","s":{"l":["1","2"],"m":{"k":1.5}},"b":1}"#;
    let bad = [
        r#"{"a":"never","s":{"l":["3","4"],"m":{"k":2,"l":"no"}},"b":1}"#,
        r#"{"a":"never","b":1,"s":{"l":["3","#,
        r#"{"b":"x","a":"never"}"#,
        r#"{"a":"nev"#,
        "",
        "[]",
        "\u{0}",
        "{\"a\":\"x\"",
        "{\"a\":\"x\",}",
    ];
    let mut rows: Vec<Option<&[u8]>> = Vec::new();
    for b in bad {
        rows.extend([Some(good.as_bytes()), Some(b.as_bytes()), None, Some(b"null".as_slice())]);
    }
    rows.push(Some(b"{\"a\":\"\xff\"}"));
    let decoded = decode(Format::Json, &fields, false, &rows);
    let expected: Vec<usize> = (0..bad.len()).map(|i| i * 4 + 1).chain([bad.len() * 4]).collect();
    assert_eq!(decoded.errors.iter().map(|e| e.row).collect::<Vec<_>>(), expected);
    assert!(
        decoded.errors[0].message.starts_with("column \"S.M\": expected a number"),
        "{}",
        decoded.errors[0].message
    );
    assert_eq!(decoded.errors.last().unwrap().message, "the text is not UTF-8 at byte 6");
    let nulls = decoded.null_rows.clone().unwrap();
    assert_eq!(
        (0..rows.len()).map(|i| nulls.value(i)).collect::<Vec<_>>(),
        (0..rows.len()).map(|i| i % 4 > 1).collect::<Vec<_>>()
    );
    let got = values(&decoded, &fields);
    let first = got[0].clone();
    assert_eq!(first[0], text("x"));
    for (row, value) in got.iter().enumerate() {
        let expected = if row % 4 == 0 && row < bad.len() * 4 { first.clone() } else { vec![Value::Null; 3] };
        assert_eq!(*value, expected, "row {row}");
    }
}

#[test]
fn unwanted_columns_are_passed_over_or_checked() {
    let fields = [field("A", SqlType::Integer), field("B", SqlType::Integer), field("C", SqlType::String)];
    let rows: [Option<&[u8]>; 3] =
        [Some(br#"{"a":1,"b":2,"c":"x"}"#), Some(br#"{"a":1,"b":true,"c":"x"}"#), Some(br#"{"a":1,"b":tru,"c":"x"}"#)];
    let errors = |check_all| {
        let options = DecodeOptions { check_all, ..Default::default() };
        let decoded = Decoder::new(Format::Json, &fields, options, &[2, 0]).unwrap().decode(rows).unwrap();
        let wanted = [fields[2].clone(), fields[0].clone()];
        assert_eq!(values(&decoded, &wanted)[0], [text("x"), Value::Integer(1)]);
        decoded.errors.iter().map(|e| e.row).collect::<Vec<_>>()
    };
    assert_eq!(errors(false), [2]);
    assert_eq!(errors(true), [1, 2]);
    let none = Decoder::new(Format::Json, &fields, DecodeOptions::default(), &[]).unwrap().decode(rows).unwrap();
    assert_eq!((none.rows, none.errors.len()), (3, 1));
}

#[test]
fn json_is_written_as_ksqldb_does() {
    let fields = [
        field("I", SqlType::Integer),
        field("d", SqlType::Double),
        field("DEC", SqlType::decimal(10, 8)),
        field("q\"", SqlType::String),
        field("BY", SqlType::Bytes),
        field("T", SqlType::Timestamp),
        field(
            "S",
            SqlType::Struct(vec![
                field("X", SqlType::array(SqlType::Boolean)),
                field("Y", SqlType::map(SqlType::String, SqlType::Date)),
            ]),
        ),
    ];
    let row = vec![
        Value::Integer(-1),
        Value::Double(1e10),
        decimal(1, 10, 8),
        text("a\"b\n"),
        Value::Bytes(vec![0, 255]),
        Value::Timestamp(5),
        Value::Struct(vec![
            ("X".into(), Value::Array(vec![Value::Boolean(true), Value::Null])),
            ("Y".into(), Value::Map(vec![(text("\u{1}"), Value::Date(3))])),
        ]),
    ];
    let out = encode(Format::Json, &fields, EncodeOptions::default(), &[row, vec![Value::Null; 7]]);
    let written: Vec<&str> = out.iter().map(|b| std::str::from_utf8(b.unwrap()).unwrap()).collect();
    assert_eq!(
        written,
        [
            r#"{"I":-1,"d":1.0E10,"DEC":0.00000001,"q\"":"a\"b\n","BY":"AP8=","T":5,"S":{"X":[true,null],"Y":{"\u0001":3}}}"#,
            r#"{"I":null,"d":null,"DEC":null,"q\"":null,"BY":null,"T":null,"S":null}"#,
        ]
    );
    let doubles = [field("D", SqlType::Double)];
    let options = EncodeOptions { side: Side::Key, unwrap_single: true };
    let rows = [vec![Value::Double(f64::NAN)], vec![Value::Double(5.0)], vec![Value::Null]];
    let out = encode(Format::Json, &doubles, options, &rows);
    assert_eq!(out.iter().collect::<Vec<_>>(), [Some(&b"\"NaN\""[..]), Some(b"5.0"), None]);
    let keys = [field("K", SqlType::Integer), field("K2", SqlType::Integer)];
    let options = EncodeOptions { side: Side::Key, unwrap_single: false };
    let rows = [vec![Value::Null, Value::Integer(2)], vec![Value::Null, Value::Null]];
    let out = encode(Format::Json, &keys, options, &rows);
    assert_eq!(out.iter().collect::<Vec<_>>(), [Some(&br#"{"K":null,"K2":2}"#[..]), None]);
}

#[test]
fn delimited_lines() {
    let fields: Vec<Field> = [
        SqlType::String,
        SqlType::Integer,
        SqlType::Boolean,
        SqlType::Double,
        SqlType::decimal(6, 4),
        SqlType::Bytes,
        SqlType::Time,
    ]
    .iter()
    .enumerate()
    .map(|(i, ty)| field(&format!("C{i}"), ty.clone()))
    .collect();
    let full = |s: &str| {
        vec![
            text(s),
            Value::Integer(-1),
            Value::Boolean(true),
            Value::Double(10.3),
            decimal(101_200, 6, 4),
            Value::Bytes(vec![1]),
            Value::Time(5),
        ]
    };
    for (line, expected) in [
        ("a,-1,TRUE,10.3,10.12,AQ==,5", Some(full("a"))),
        ("\"a,\"\"b\",-1,true,10.3,10.12,AQ==,5\r\n", Some(full("a,\"b"))),
        ("\"a\" ,\"-1\",true,10.3,\"10.1200\",AQ==,5", Some(full("a"))),
        (",,,,,,", Some(vec![Value::Null; 7])),
        ("\"\",\"\",,,,,", Some(vec![Value::Null; 7])),
        ("a,-1,true,10.3,10.12,AQ==", None),
        ("a,-1,true,10.3,10.12,AQ==,5,6", None),
        ("a, -1,true,10.3,10.12,AQ==,5", None),
        ("\"a\"x,-1,true,10.3,10.12,AQ==,5", None),
        ("\"a,-1,true,10.3,10.12,AQ==,5", None),
        ("a,-1,true,10.3,10.12345,AQ==,5", None),
        ("a,-1,true,10.3,10.12,?,5", None),
        ("", None),
    ] {
        let decoded = decode(Format::DELIMITED, &fields, false, &[Some(line.as_bytes())]);
        assert_eq!(decoded.errors.is_empty(), expected.is_some(), "{line}: {:?}", decoded.errors);
        assert_eq!(values(&decoded, &fields)[0], expected.unwrap_or(vec![Value::Null; 7]), "{line}");
    }
    let out = encode(Format::DELIMITED, &fields, EncodeOptions::default(), &[full("a,\"b"), vec![Value::Null; 7]]);
    assert_eq!(out.get(0), Some(&b"\"a,\"\"b\",-1,true,10.3,10.1200,AQ==,5"[..]));
    assert_eq!(out.get(1), Some(&b",,,,,,"[..]));
}

/// When a field is quoted.
#[test]
fn delimited_quoting() {
    let two = [field("A", SqlType::String), field("B", SqlType::String)];
    for (a, b, expected) in [
        ("x", "y", "x,y"),
        ("", "", "\"\","),
        ("-x", "-x", "\"-x\",-x"),
        ("é", "é", "\"é\",é"),
        ("x ", "#y", "\"x \",\"#y\""),
        ("0", "a\nb", "0,\"a\nb\""),
        ("a\"", "$y", "\"a\"\"\",$y"),
    ] {
        let out = encode(Format::DELIMITED, &two, EncodeOptions::default(), &[vec![text(a), text(b)]]);
        assert_eq!(out.get(0).map(String::from_utf8_lossy).unwrap(), expected);
    }
    let number = [field("A", SqlType::decimal(33, 16))];
    let out = encode(
        Format::DELIMITED,
        &number,
        EncodeOptions::default(),
        &[vec![decimal(-123_451_200_000_000_000_000, 33, 16)], vec![Value::Null]],
    );
    assert_eq!(out.iter().collect::<Vec<_>>(), [Some(&b"\"-12345.1200000000000000\""[..]), None]);
    let tab = Format::DELIMITED.with_delimiter("VALUE_DELIMITER", "TAB").unwrap();
    let decoded = decode(tab, &two, false, &[Some(b"a\tb,c")]);
    assert_eq!(values(&decoded, &two)[0], [text("a"), text("b,c")]);
}

#[test]
fn kafka_serializers() {
    for (ty, value, bytes) in [
        (SqlType::Integer, Value::Integer(258), &[0u8, 0, 1, 2][..]),
        (SqlType::BigInt, Value::BigInt(-1), &[255; 8]),
        (SqlType::Double, Value::Double(1.1), &1.1f64.to_be_bytes()),
        (SqlType::String, text("Hé"), "Hé".as_bytes()),
        (SqlType::String, text(""), b""),
        (SqlType::Bytes, Value::Bytes(vec![9]), &[9]),
    ] {
        let fields = [field("K", ty.clone())];
        let options = EncodeOptions { side: Side::Key, unwrap_single: true };
        let out = encode(Format::Kafka, &fields, options, &[vec![value.clone()], vec![Value::Null]]);
        assert_eq!(out.iter().collect::<Vec<_>>(), [Some(bytes), None]);
        let decoded = decode(Format::Kafka, &fields, true, &[Some(bytes), None]);
        assert_eq!(values(&decoded, &fields), [[value], [Value::Null]]);
    }
    let fields = [field("K", SqlType::Integer)];
    let decoded = decode(Format::Kafka, &fields, true, &[Some(b"12345")]);
    assert_eq!(decoded.errors[0].message, "Size of data received by INTEGER is not 4, it is 5 at byte 0");
    let text_field = [field("K", SqlType::String)];
    let decoded = decode(Format::Kafka, &text_field, true, &[Some(b"a\xff")]);
    assert_eq!(values(&decoded, &text_field)[0][0], text("a\u{fffd}"));
}

/// Bytes as protobuf's own tools write them, and liberties that its readers must take.
#[test]
fn protobuf_bytes() {
    let fields = [
        field("I", SqlType::Integer),
        field("S", SqlType::String),
        field("A", SqlType::array(SqlType::BigInt)),
        field("M", SqlType::map(SqlType::String, SqlType::Boolean)),
        field("D", SqlType::decimal(6, 4)),
        field("T", SqlType::Timestamp),
        field("DAY", SqlType::Date),
        field("N", SqlType::Struct(vec![field("X", SqlType::Double), field("Y", SqlType::Integer)])),
    ];
    let row = vec![
        Value::Integer(-1),
        text("hi"),
        Value::Array(vec![Value::BigInt(1), Value::BigInt(300)]),
        Value::Map(vec![(text("k"), Value::Boolean(true))]),
        Value::Decimal { unscaled: -100_000, precision: 6, scale: 4 },
        Value::Timestamp(-1),
        Value::Date(-10),
        Value::Struct(vec![("X".into(), Value::Double(0.0)), ("Y".into(), Value::Integer(7))]),
    ];
    let bytes: &[u8] = &[
        &b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
        b"\x12\x02hi",
        b"\x1a\x03\x01\xac\x02",
        b"\x22\x05\x0a\x01k\x10\x01",
        b"\x2a\x09\x0a\x03\xfe\x79\x60\x10\x06\x18\x04",
        b"\x32\x11\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\xc0\x8f\xae\xdc\x03",
        b"\x3a\x07\x08\xb1\x0f\x10\x0c\x18\x16",
        b"\x42\x02\x10\x07",
    ]
    .concat();
    let out = encode(Format::PROTOBUF_NOSR, &fields, EncodeOptions::default(), std::slice::from_ref(&row));
    assert_eq!(out.get(0), Some(bytes));

    // Unpacked, unknown, in another order, more than once, in groups.
    let loose: &[u8] = &[
        &b"\x42\x02\x10\x01"[..],
        b"\x18\x01\x18\xac\x02",
        b"\x4a\x01z\x4b\x0b\x08\x01\x0c\x4c\x0d\x00\x00\x00\x00",
        bytes.get(..11).unwrap(),
        b"\x22\x03\x0a\x01k",
        bytes.get(20..).unwrap(),
        b"\x12\x02ho\x12\x02hi",
    ]
    .concat();
    let decoded = decode(Format::PROTOBUF_NOSR, &fields, false, &[Some(bytes), Some(loose), Some(b""), None]);
    assert_eq!(decoded.errors, []);
    let read = values(&decoded, &fields);
    assert_eq!(read[0], row);
    assert_eq!(read[1], row);
    let (list, map) = (Value::Array(vec![]), Value::Map(vec![]));
    let null = || Value::Null;
    assert_eq!(read[2], [Value::Integer(0), text(""), list, map, null(), null(), null(), null()]);
    assert_eq!(read[3], vec![Value::Null; 8]);
    let nulls = decoded.null_rows.unwrap();
    assert!(nulls.value(3) && !nulls.value(2));

    for (bytes, message) in [
        (&b"\x08"[..], "a varint is cut off at byte 1"),
        (&b"\x12\x05hi"[..], "a field of 5 bytes goes beyond its message at byte 0"),
        (&b"\x12\x01\xff"[..], "column \"S\": the text is not UTF-8 at byte 2"),
        (&b"\x3a\x02\x10\x0d"[..], "column \"DAY\": there is no date of year 0, month 13, day 0 at byte 0"),
        (&b"\x42\x01\x08"[..], "column \"N\": a varint is cut off at byte 3"),
        (&b"\x00"[..], "0 is not the number of a field at byte 0"),
        (&b"\x0c"[..], "a group ends that has not begun at byte 0"),
        (&[0x0b; 200][..], "groups are nested deeper than 100 at byte 101"),
    ] {
        let decoded = decode(Format::PROTOBUF_NOSR, &fields, false, &[Some(bytes)]);
        assert_eq!(decoded.errors.iter().map(|e| e.message.as_str()).collect::<Vec<_>>(), [message]);
    }
    // A DECIMAL of another scale, exactly or not at all.
    let dec = [field("D", SqlType::decimal(4, 2))];
    let rows: [Option<&[u8]>; 3] = [
        Some(b"\x0a\x05\x0a\x01\x05\x18\x01"),
        Some(b"\x0a\x05\x0a\x01\x05\x18\x03"),
        Some(b"\x0a\x04\x0a\x02\x00\x64"),
    ];
    let decoded = decode(Format::PROTOBUF_NOSR, &dec, true, &rows);
    assert_eq!(values(&decoded, &dec)[0][0], Value::Decimal { unscaled: 50, precision: 4, scale: 2 });
    assert_eq!(decoded.errors.iter().map(|e| e.row).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn protobuf_nulls() {
    let fields = [field("I", SqlType::Integer), field("S", SqlType::String)];
    let rows = [vec![Value::Integer(0), Value::Null], vec![Value::Null, text("")], vec![Value::Null, Value::Null]];
    for (nullable, first) in
        [(Nullable::Unset, &b""[..]), (Nullable::Optional, &b"\x08\x00"[..]), (Nullable::Wrapper, &b"\x0a\x00"[..])]
    {
        let format = Format::ProtobufNosr { nullable };
        let out = encode(format, &fields, EncodeOptions::default(), &rows);
        assert_eq!(out.get(0), Some(first));
        let read = values(&decode(format, &fields, false, &out.iter().collect::<Vec<_>>()), &fields);
        if nullable == Nullable::Unset {
            assert_eq!(read, vec![vec![Value::Integer(0), text("")]; 3]);
        } else {
            assert_eq!(read, rows);
        }
        // A key is NULL when all of it is, and when its only column is.
        let key = |unwrap_single| EncodeOptions { side: Side::Key, unwrap_single };
        let out = encode(format, &fields, key(false), &rows);
        assert_eq!((out.get(1).is_some(), out.get(2)), (true, None));
        let rows = [vec![Value::Integer(0)], vec![Value::Null]];
        let out = encode(format, &fields[..1], key(true), &rows);
        assert_eq!((out.get(0), out.get(1)), (Some(first), None));
    }
    let point = [field("P", SqlType::Struct(vec![field("X", SqlType::Integer)]))];
    let row = vec![Value::Struct(vec![("X".into(), Value::Integer(3))])];
    let options = EncodeOptions { unwrap_single: true, ..Default::default() };
    let out = encode(Format::PROTOBUF_NOSR, &point, options, std::slice::from_ref(&row));
    assert_eq!(out.get(0), Some(&b"\x08\x03"[..]));
    assert_eq!(values(&decode(Format::PROTOBUF_NOSR, &point, true, &[out.get(0)]), &point)[0], row);
}

#[test]
fn none_reads_nothing() {
    let none = Decoder::all(Format::None, &[], DecodeOptions::default()).unwrap();
    let decoded = none.decode([Some(&b"ignored"[..]), None]).unwrap();
    assert_eq!((decoded.rows, decoded.errors.len(), decoded.columns.len()), (2, 0, 0));
}
