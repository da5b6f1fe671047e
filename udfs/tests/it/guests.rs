//! Guests built from source: every kind of type, and every kind of misbehaviour.

use millpond_types::{Field, SqlType, Value};
use millpond_udfs::{CallContext, Callable, InstanceScope, Limits, ModuleReport, ParamType, inspect};

use crate::support::*;

fn signatures(report: &ModuleReport) -> Vec<String> {
    report.functions.iter().map(ToString::to_string).collect()
}

#[test]
fn classify_in_rust() {
    let bytes = guest("classify");
    let report = inspect(&bytes, &Limits::default()).unwrap();
    assert_eq!(signatures(&report), ["CLASSIFY_AGENT(AGENT STRING) -> STRING", "URL_SECTION(URL STRING) -> STRING"]);
    assert_eq!(report.left_out, []);
    let module = module(&bytes);
    let agents = [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "curl/8.5.0",
        "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Mobile/15E148 Safari/604.1",
        "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
        "",
    ];
    let classes = results(&module, "CLASSIFY_AGENT", &[strings(&agents)]);
    assert_eq!(classes, ["bot", "tool", "browser", "phone", "tablet", "other"].map(text));
    let urls = ["/shop/cart?id=1", "/", "https://example.org/docs/a", "https://example.org", "?x", "/img"];
    let sections = results(&module, "URL_SECTION", &[strings(&urls)]);
    assert_eq!(sections, ["shop", "/", "docs", "/", "/", "img"].map(text));
    let nulls = (SqlType::String, vec![text("/a"), Value::Null]);
    assert_eq!(results(&module, "URL_SECTION", &[nulls]), [text("a"), Value::Null]);
}

#[test]
fn every_type_has_its_signature() {
    let report = inspect(&guest("probes"), &Limits::default()).unwrap();
    let listed = signatures(&report);
    for expected in [
        "TINY(N INTEGER) -> INTEGER",
        "HUGE(N BIGINT) -> BIGINT",
        "FIRST_CHAR(S STRING) -> STRING",
        "OR_ZERO(N INTEGER) -> INTEGER",
        "MIDPOINT(A STRUCT<`X` DOUBLE, `Y` DOUBLE>, B STRUCT<`X` DOUBLE, `Y` DOUBLE>) -> STRUCT<`X` DOUBLE, `Y` DOUBLE>",
        "DESCRIBE_VISIT(V STRUCT<`AT` TIMESTAMP, `PATH` STRING, `TAGS` ARRAY<STRING>>) -> STRING",
        "MIRROR(DATA BYTES) -> BYTES",
        "COUNT_WORDS(TEXT STRING) -> MAP<STRING, INTEGER>",
        "LARGEST(COUNTS MAP<STRING, INTEGER>) -> STRING",
        "RANK(L STRING) -> INTEGER",
        "SWAP(PAIR STRUCT<`F0` INTEGER, `F1` STRING>) -> STRUCT<`F0` STRING, `F1` INTEGER>",
        "PARSE_INT(S STRING) -> BIGINT",
        "NEXT_DAY(D DATE) -> DATE",
        "PLUS_MINUTE(T TIMESTAMP) -> TIMESTAMP",
        "NOON() -> TIME",
        "DIGITS(D DECIMAL) -> INTEGER",
    ] {
        assert!(listed.iter().any(|s| s == expected), "{expected} in {listed:#?}");
    }
    let or_zero = report.functions.iter().find(|f| f.name == "OR_ZERO").unwrap();
    assert!(or_zero.params[0].nullable());
    let digits = report.functions.iter().find(|f| f.name == "DIGITS").unwrap();
    assert_eq!(digits.param_types(), [ParamType::Decimal]);
    let left_out: Vec<(&str, &str)> = report.left_out.iter().map(|l| (l.export.as_str(), l.reason.as_str())).collect();
    assert_eq!(
        left_out,
        [
            ("area", "parameter \"s\": a variant has no SQL type"),
            ("may", "parameter \"r\": a flags has no SQL type"),
            ("forget", "it has no result"),
            ("triple", "result: WIT cannot say the precision and scale of a DECIMAL"),
        ]
    );
}

#[test]
fn plain_values_cross() {
    let module = shared("probes");
    assert_eq!(results(&module, "ADD_ONE", &[longs(&[1, -1, i64::MAX])]), [2, 0, i64::MIN].map(Value::BigInt));
    let halves = (SqlType::Double, vec![Value::Double(3.0), Value::Null, Value::Double(-0.0)]);
    assert_eq!(results(&module, "HALVE", &[halves]), [Value::Double(1.5), Value::Null, Value::Double(-0.0)]);
    assert_eq!(results(&module, "SHOUT", &[strings(&["straße", "", "ok"])]), ["STRASSE", "", "OK"].map(text));
    assert_eq!(
        results(&module, "JOIN_TWO", &[strings(&["a", "", "é"]), strings(&["b", "", "😀"])]),
        ["ab", "", "é😀"].map(text)
    );
    assert_eq!(results(&module, "IS_EVEN", &[longs(&[2, 3])]), [true, false].map(Value::Boolean));
    assert_eq!(results(&module, "FIRST_CHAR", &[strings(&["über", ""])]), [text("ü"), Value::Null]);
    // INTEGER is widened as SQL does it.
    assert_eq!(results(&module, "ADD_ONE", &[ints(&[41])]), [Value::BigInt(42)]);
    assert_eq!(results(&module, "HALVE", &[longs(&[5])]), [Value::Double(2.5)]);
}

#[test]
fn null_goes_in_only_where_an_option_is() {
    let module = shared("probes");
    let ints = |values: Vec<Value>| (SqlType::Integer, values);
    assert_eq!(results(&module, "OR_ZERO", &[ints(vec![Value::Null, Value::Integer(5)])]), [0, 5].map(Value::Integer));
    assert_eq!(
        results(&module, "NONE_IF_NEGATIVE", &[ints(vec![Value::Integer(-1), Value::Integer(1), Value::Null])]),
        [Value::Null, Value::Integer(1), Value::Null]
    );
    // Within a parameter too: a NULL item makes the whole result NULL.
    let lists = vec![
        Value::Array(vec![Value::BigInt(1), Value::BigInt(2)]),
        Value::Array(vec![Value::BigInt(1), Value::Null]),
        Value::Array(vec![]),
        Value::Null,
    ];
    assert_eq!(
        results(&module, "TOTAL", &[(SqlType::array(SqlType::BigInt), lists)]),
        [Value::BigInt(3), Value::Null, Value::BigInt(0), Value::Null]
    );
}

#[test]
fn nested_values_cross() {
    let module = shared("probes");
    let point_type = SqlType::Struct(vec![Field::new("X", SqlType::Double), Field::new("Y", SqlType::Double)]);
    let point =
        |x: f64, y: f64| Value::Struct(vec![("X".to_string(), Value::Double(x)), ("Y".to_string(), Value::Double(y))]);
    let a = (point_type.clone(), vec![point(0.0, 2.0), point(1.0, 1.0), Value::Null]);
    // Fields match by name, not by place.
    let flipped_type = SqlType::Struct(vec![Field::new("Y", SqlType::Double), Field::new("X", SqlType::Double)]);
    let flipped = Value::Struct(vec![("Y".to_string(), Value::Double(4.0)), ("X".to_string(), Value::Double(2.0))]);
    let b = (flipped_type, vec![flipped.clone(), flipped.clone(), flipped]);
    assert_eq!(results(&module, "MIDPOINT", &[a, b]), [point(1.0, 3.0), point(1.5, 2.5), Value::Null]);

    let visit_type = SqlType::Struct(vec![
        Field::new("AT", SqlType::Timestamp),
        Field::new("PATH", SqlType::String),
        Field::new("TAGS", SqlType::array(SqlType::String)),
    ]);
    let visit = |path: Value, tags: &[&str]| {
        Value::Struct(vec![
            ("AT".to_string(), Value::Timestamp(1_500)),
            ("PATH".to_string(), path),
            ("TAGS".to_string(), Value::Array(tags.iter().map(|t| text(t)).collect())),
        ])
    };
    let visits = vec![visit(text("/a"), &["x", "y"]), visit(Value::Null, &[])];
    assert_eq!(
        results(&module, "DESCRIBE_VISIT", &[(visit_type, visits.clone())]),
        ["1500 /a x+y", "1500 - "].map(text)
    );
    let tags = vec![Value::Array(vec![text("x"), text("y")]), Value::Array(vec![])];
    let paths = (SqlType::String, vec![text("/a"), Value::Null]);
    assert_eq!(results(&module, "MAKE_VISIT", &[paths, (SqlType::array(SqlType::String), tags)]), visits);

    let map =
        |entries: &[(&str, i32)]| Value::Map(entries.iter().map(|(k, v)| (text(k), Value::Integer(*v))).collect());
    assert_eq!(results(&module, "COUNT_WORDS", &[strings(&["b a b", ""])]), [map(&[("b", 2), ("a", 1)]), map(&[])]);
    let maps = (SqlType::map(SqlType::String, SqlType::Integer), vec![map(&[("x", 1), ("y", 9)]), map(&[])]);
    assert_eq!(results(&module, "LARGEST", &[maps]), [text("y"), Value::Null]);
    let bytes = (SqlType::Bytes, vec![Value::Bytes(vec![1, 2, 255]), Value::Bytes(vec![])]);
    assert_eq!(results(&module, "MIRROR", &[bytes]), [Value::Bytes(vec![255, 2, 1]), Value::Bytes(vec![])]);
    let pair_type = SqlType::Struct(vec![Field::new("F0", SqlType::Integer), Field::new("F1", SqlType::String)]);
    let pair = Value::Struct(vec![("F0".to_string(), Value::Integer(1)), ("F1".to_string(), text("one"))]);
    let swapped = Value::Struct(vec![("F0".to_string(), text("one")), ("F1".to_string(), Value::Integer(1))]);
    assert_eq!(results(&module, "SWAP", &[(pair_type, vec![pair])]), [swapped]);
    assert_eq!(
        results(&module, "TIMES", &[strings(&["ab"]), ints(&[2])]),
        [Value::Array(vec![text("ab"), text("ab")])]
    );
}

#[test]
fn sql_types_without_a_wit_type_cross() {
    let module = shared("probes");
    let dates = (SqlType::Date, vec![Value::Date(19_000)]);
    assert_eq!(results(&module, "NEXT_DAY", &[dates]), [Value::Date(19_001)]);
    let times = (SqlType::Timestamp, vec![Value::Timestamp(5)]);
    assert_eq!(results(&module, "PLUS_MINUTE", &[times]), [Value::Timestamp(60_005)]);
    assert_eq!(results(&module, "NOON", &[]), [43_200_000; 3].map(Value::Time));
    let decimals =
        (SqlType::decimal(6, 2), vec![Value::Decimal { unscaled: -1250, precision: 6, scale: 2 }, Value::Null]);
    assert_eq!(results(&module, "DIGITS", &[decimals]), [Value::Integer(4), Value::Null]);
    assert_eq!(results(&module, "LEVEL_OF", &[ints(&[5, 500])]), ["low", "very-high"].map(text));
}

#[test]
fn values_out_of_range_fail_their_row() {
    let module = shared("probes");
    let (values, errors) = call(&module, "TINY", &[ints(&[255, 256, -1])]);
    assert_eq!(values, [Value::Integer(255), Value::Null, Value::Null]);
    assert_eq!(errors, [(1, "256 is out of range for u8".to_string()), (2, "-1 is out of range for u8".to_string())]);
    let (values, errors) = call(&module, "HUGE", &[longs(&[1, -1])]);
    assert_eq!(values, [Value::BigInt(1), Value::Null]);
    assert_eq!(errors, [(1, "18446744073709551615 is out of range for BIGINT".to_string())]);
    let (values, errors) = call(&module, "RANK", &[strings(&["low", "lowest"])]);
    assert_eq!(values, [Value::Integer(1), Value::Null]);
    assert_eq!(errors, [(1, "\"lowest\" is none of low, middle, very-high".to_string())]);
    let (values, errors) = call(&module, "PARSE_INT", &[strings(&["12", "x", "13"])]);
    assert_eq!(values, [Value::BigInt(12), Value::Null, Value::BigInt(13)]);
    assert_eq!(errors, [(1, "no number: \"x\"".to_string())]);
}

#[test]
fn misbehaviour_fails_its_row_alone() {
    let module = shared("probes");
    let numbers: Vec<i64> = vec![12, 13, 14, 13, 15];
    for (name, reason) in [("UNLUCKY", "trapped"), ("WILD", "pointer")] {
        let (values, errors) = call(&module, name, &[longs(&numbers)]);
        let failed: Vec<usize> = errors.iter().map(|(row, _)| *row).collect();
        assert_eq!(failed, [1, 3], "{name}");
        assert!(errors[0].1.contains(reason), "{name}: {}", errors[0].1);
        let nulls: Vec<bool> = values.iter().map(Value::is_null).collect();
        assert_eq!(nulls, [false, true, false, true, false], "{name}");
    }
    let (values, errors) = call(&module, "SPIN", &[longs(&[1, -1, 2])]);
    assert_eq!(values, [Value::BigInt(1), Value::Null, Value::BigInt(2)]);
    assert_eq!(errors, [(1, "it ran too long (out of fuel)".to_string())]);
    let (values, errors) = call(&module, "HOARD", &[longs(&[1, 100, 1])]);
    assert_eq!(values, [Value::BigInt(1), Value::Null, Value::BigInt(1)]);
    assert_eq!(errors.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
}

#[test]
fn words_in_javascript() {
    let module = shared("words");
    let listed = signatures(module.report());
    assert!(listed.contains(&"QUERY_PARAMS(URL STRING) -> MAP<STRING, STRING>".to_string()), "{listed:#?}");
    assert_eq!(
        results(&module, "SLUG", &[strings(&["Crème Brûlée, again!", "  "])]),
        ["creme-brulee-again", ""].map(text)
    );
    let (values, errors) = call(&module, "QUERY_PARAMS", &[strings(&["/a?q=x+y&p=%41", "/a", "/?%zz"])]);
    let map = |entries: &[(&str, &str)]| Value::Map(entries.iter().map(|(k, v)| (text(k), text(v))).collect());
    assert_eq!(values, [map(&[("q", "x y"), ("p", "A")]), map(&[]), Value::Null]);
    assert_eq!(errors, [(2, "not a URL-encoded text: \"%zz\"".to_string())]);
    let (values, errors) = call(&module, "MUST", &[strings(&["a", "", "b"])]);
    assert_eq!(values, [text("a"), Value::Null, text("b")]);
    let [(1, message)] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(message.ends_with("nothing there"), "{message}");
    let close = results(&module, "SIMILARITY", &[strings(&["night", "same"]), strings(&["nacht", "same"])]);
    assert_eq!(close, [Value::Double(0.25), Value::Double(1.0)]);
    // The clock is the row's, random numbers follow from seed and row, whatever the instance has seen.
    let clock = [1_700_000_000_123, 1_700_000_000_124, 1_700_000_000_125];
    assert_eq!(results(&module, "CLOCK", &[]), clock.map(Value::BigInt));
    let dice = results(&module, "DICE", &[]);
    assert!(dice[0] != dice[1] && dice[1] != dice[2], "{dice:?}");
}

#[test]
fn clock_and_chance_are_the_rows_own() {
    let module = module(&guest("sundial"));
    let clock = [1_700_000_000_123, 1_700_000_000_124, 1_700_000_000_125];
    assert_eq!(results(&module, "SHADOW", &[]), clock.map(Value::BigInt));
    let lots = results(&module, "LOT", &[]);
    assert!(lots[0] != lots[1] && lots[1] != lots[2], "{lots:?}");
    let seen = results(&module, "SEEN", &[strings(&["a", "a"])]);
    let [Value::String(first), Value::String(second)] = seen.as_slice() else { panic!("{seen:?}") };
    // The first number drawn in a row is the same, whichever function draws it.
    let Value::BigInt(lot) = lots[0] else { panic!("{lots:?}") };
    assert!(first.starts_with(&format!("a 1700000000123 {lot:x} ")), "{first}");
    assert!(second.starts_with("a 1700000000124 ") && first[16..] != second[16..], "{second}");
}

#[test]
fn what_guests_write_goes_to_the_log() {
    let module = shared("words");
    let must = function(&module, "MUST");
    let args = [column(&SqlType::String, &[text("")])];
    let mut instance = must.instance(InstanceScope::Step);
    must.call_batch(&mut instance, &CallContext::default(), &args, 1).unwrap();
    assert!(said().contains("nothing there"), "{:?}", said());
}

#[test]
fn a_guest_with_wasi_can_be_called_from_an_async_task() {
    let module = shared("words");
    let must = function(&module, "MUST");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // What throws writes to stderr, and that blocks.
    let (values, errors) = runtime.block_on(async {
        call_in(&must, &mut must.instance(InstanceScope::Step), 2, &[strings(&["a", ""])], 2).unwrap()
    });
    assert_eq!((values, errors.len()), (vec![text("a"), Value::Null], 1));
}

#[test]
fn guest_memory_is_scratch() {
    let module = shared("probes");
    let calls = function(&module, "CALLS");
    let count = |scope| call_in(&calls, &mut calls.instance(scope), 2, &[], 4).unwrap().0;
    assert_eq!(count(InstanceScope::Call), [1, 1, 1, 1].map(Value::BigInt));
    assert_eq!(count(InstanceScope::Step), [1, 2, 1, 2].map(Value::BigInt));
    assert_eq!(count(InstanceScope::Query), [1, 2, 3, 4].map(Value::BigInt));
}
