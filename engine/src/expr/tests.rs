//! Expressions from their text to their values: analysed against a stream of given columns, evaluated over JSON rows,
//! whole, in batches of other sizes and under a selection, which all have to agree.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use millpond_formats::value_to_json;
use millpond_formats::{DecodeOptions, Decoder, Format};
use millpond_sql::functions::FunctionCatalog;
use millpond_sql::plan::{Analysed, Environment, FormatError, FormatSpec, NodeKind, Side, SourceInfo};
use millpond_types::value::value_at;
use millpond_types::{Field, SqlType};

use super::{EvalContext, EvalInput, Expr, compile};
use crate::functions::FunctionLibrary;

/// One stream.
struct World {
    library: FunctionLibrary,
    source: Option<Arc<SourceInfo>>,
}

impl Environment for World {
    fn source(&self, name: &str) -> Option<Arc<SourceInfo>> {
        self.source.clone().filter(|s| s.name == name)
    }

    fn source_names(&self) -> Vec<String> {
        self.source.iter().map(|s| s.name.clone()).collect()
    }

    fn custom_type(&self, _: &str) -> Option<SqlType> {
        None
    }

    fn functions(&self) -> &dyn FunctionCatalog {
        &self.library
    }

    fn topic(&self, _: &str) -> Option<(i32, i16)> {
        Some((1, 1))
    }

    fn property(&self, _: &str) -> Option<String> {
        None
    }

    fn check_format(&self, _: &FormatSpec, _: Side, _: &[(String, SqlType)]) -> Result<(), FormatError> {
        Ok(())
    }

    fn key_format_supports(&self, _: &str, _: &[(String, SqlType)]) -> bool {
        true
    }
}

impl World {
    fn new(columns: &str) -> Self {
        let mut world = Self { library: FunctionLibrary::default(), source: None };
        let text = format!("CREATE STREAM S ({columns}) WITH (KAFKA_TOPIC='s', VALUE_FORMAT='JSON');");
        match world.analyse(&text) {
            Analysed::CreateSource { source, .. } => world.source = Some(Arc::new(source)),
            other => panic!("not a source: {other:?}"),
        }
        world
    }

    fn analyse(&self, text: &str) -> Analysed {
        let parsed = millpond_sql::parse::parse_statement(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        let analysed = millpond_sql::analyse::analyse(&parsed.statement, &parsed.text, self);
        analysed.unwrap_or_else(|e| panic!("{text}: {e:?}"))
    }

    /// The expression, and the columns that it reads by index.
    fn expression(&self, text: &str) -> (Expr, Vec<Field>) {
        let Analysed::Push(plan) = self.analyse(&format!("SELECT {text} AS X FROM S EMIT CHANGES;")) else {
            panic!("not a push query: {text}");
        };
        let NodeKind::Project { input, exprs } = &plan.root.kind else { panic!("no projection: {:?}", plan.root) };
        let fields = input.schema.columns.iter().map(|c| Field::new(c.name.as_str(), c.ty.clone())).collect();
        (compile(exprs.last().unwrap(), &self.library).unwrap(), fields)
    }
}

fn columns_of(fields: &[Field], rows: &[&str]) -> Vec<ArrayRef> {
    let options = DecodeOptions { unwrap_single: false, check_all: true };
    let decoder = Decoder::all(Format::Json, fields, options).unwrap();
    let decoded = decoder.decode(rows.iter().map(|r| Some(r.as_bytes()))).unwrap();
    assert!(decoded.errors.is_empty(), "{:?}", decoded.errors);
    decoded.columns
}

fn shown(array: &ArrayRef, ty: &SqlType) -> Vec<String> {
    assert_eq!(array.data_type(), &ty.to_arrow(), "the column has the type that was promised");
    (0..array.len()).map(|row| value_to_json(&value_at(array, ty, row)).to_string()).collect()
}

/// Evaluates each expression over all rows; the results are JSON, separated by blanks.
#[track_caller]
fn check(columns: &str, rows: &[&str], cases: &[(&str, &str)]) {
    let world = World::new(columns);
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let (expr, fields) = world.expression(text);
        let all = columns_of(&fields, rows);
        let eval = |columns: &[ArrayRef], rows: usize| {
            let mut cx = EvalContext::new(1_000, 7);
            let array = expr.column_of(&EvalInput::new(columns, rows), &mut cx).unwrap();
            assert_eq!(array.len(), rows, "{text}");
            shown(&array, expr.ty())
        };
        let whole = eval(&all, rows.len());
        let found = whole.join(" ");
        if found != *expected {
            wrong.push(format!("{text}\n     found {found}\n  expected {expected}"));
            continue;
        }
        for size in [1, 2] {
            let mut parts = Vec::new();
            for start in (0..rows.len()).step_by(size) {
                let length = size.min(rows.len() - start);
                let batch: Vec<ArrayRef> = all.iter().map(|a| a.slice(start, length)).collect();
                parts.extend(eval(&batch, length));
            }
            assert_eq!(parts, whole, "{text} in batches of {size}");
        }
        let backwards = UInt32Array::from_iter_values((0..rows.len() as u32).rev());
        let mut cx = EvalContext::new(1_000, 7);
        let selected = expr.column_of(&EvalInput::selected(&all, backwards), &mut cx).unwrap();
        let mut selected = shown(&selected, expr.ty());
        selected.reverse();
        assert_eq!(selected, whole, "{text} under a selection");
        assert!(eval(&all.iter().map(|a| a.slice(0, 0)).collect::<Vec<_>>(), 0).is_empty(), "{text} on no rows");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn arithmetic() {
    check(
        "I INT, J INT, B BIGINT, D DOUBLE, M DECIMAL(4,2), N DECIMAL(3,1)",
        &[
            r#"{"I":7,"J":2,"B":10,"D":2.5,"M":10.10,"N":0.3}"#,
            r#"{"I":2147483647,"J":0,"B":-3,"D":0,"M":-1.25,"N":2.0}"#,
            r#"{}"#,
        ],
        &[
            ("I + 1", "8 -2147483648 null"),
            ("I / J", "3 null null"),
            ("I % J", "1 null null"),
            ("I + B", "17 2147483644 null"),
            ("-I", "-7 -2147483647 null"),
            ("D / 0", "\"Infinity\" \"NaN\" null"),
            ("D * I", "17.5 0.0 null"),
            ("M + N", "10.40 0.75 null"),
            ("M * N", "3.030 -2.500 null"),
            ("M / N", "null -0.625000 null"),
            ("M - 1.5", "8.60 -2.75 null"),
            ("M % N", "0.20 -1.25 null"),
            ("-M", "-10.10 1.25 null"),
        ],
    );
}

#[test]
fn two_valued_logic_and_errors() {
    check(
        "A INT, B INT, S STRING, T BOOLEAN, D DOUBLE",
        &[r#"{"A":1,"B":1,"S":"x","T":true,"D":0.0}"#, r#"{"A":2,"B":0,"S":"y","T":false,"D":-0.0}"#, r#"{"B":1}"#],
        &[
            ("A = 1", "true false false"),
            ("NOT (A = 1)", "false true true"),
            ("A <> 1", "false true false"),
            ("A IS DISTINCT FROM B", "false true true"),
            ("A IS NOT DISTINCT FROM B", "true false false"),
            ("A IS NULL", "false false true"),
            ("(A / B) IS NULL", "false null null"),
            ("A / B = 1", "true null null"),
            ("B = 0 OR A / B = 1", "true true null"),
            ("B <> 0 AND A / B = 1", "true false null"),
            ("NOT T", "false true null"),
            ("T AND A = 1", "true false null"),
            ("A BETWEEN 1 AND 1", "true false false"),
            ("A NOT BETWEEN 1 AND 1", "false true true"),
            ("A IN (1, 3)", "true false false"),
            ("A NOT IN (1, 3)", "false true true"),
            ("S IN ('a','b','c','d','e','f','g','h','i','x')", "true false false"),
            ("D = 0", "true true false"),
            ("S LIKE 'x%'", "true false null"),
            ("S LIKE S || '!!' ESCAPE '!'", "false false null"),
            ("S NOT LIKE S || '!' ESCAPE '!'", "null null null"),
            ("S LIKE CASE WHEN B = 1 THEN '_' ELSE '%!' END ESCAPE '!'", "true null null"),
            ("S > 'x'", "false true false"),
            ("CASE WHEN B = 0 THEN -1 ELSE A / B END", "1 -1 null"),
            ("CASE A WHEN 1 THEN 'one' WHEN 2 THEN 'two' END", "\"one\" \"two\" null"),
            ("COALESCE(A / B, 5)", "1 5 5"),
            ("ARRAY[A / B, A]", "[1,1] [null,2] [null,null]"),
        ],
    );
}

#[test]
fn casts() {
    check(
        "I INT, D DOUBLE, S STRING, T STRING, M DECIMAL(5,2), A ARRAY<DOUBLE>, P MAP<STRING, INT>, R STRUCT<F INT, G STRING>",
        &[
            r#"{"I":1,"D":1.5,"S":" 12 ","T":"2020-02-03T04:05:06.7Z","M":2.50,"A":[1.5,null],"P":{"k":1},"R":{"F":1,"G":"g"}}"#,
            r#"{"I":-100000,"D":-1e10,"S":"y","T":"2020","M":-0.05,"A":[],"P":{},"R":{}}"#,
            r#"{}"#,
        ],
        &[
            ("CAST(S AS INT)", "12 null null"),
            ("CAST(S AS BOOLEAN)", "false true null"),
            ("CAST(S AS DOUBLE)", "12.0 null null"),
            ("CAST(S AS DECIMAL(3,1))", "12.0 null null"),
            ("CAST(D AS INT)", "1 -2147483648 null"),
            ("CAST(D AS STRING)", "\"1.5\" \"-1.0E10\" null"),
            ("CAST(D AS DECIMAL(3,0))", "2 null null"),
            ("CAST(M AS INT)", "2 0 null"),
            ("CAST(M AS DECIMAL(4,1))", "2.5 -0.1 null"),
            ("CAST(M AS STRING)", "\"2.50\" \"-0.05\" null"),
            ("CAST(T AS TIMESTAMP)", "1580702706700 1577836800000 null"),
            ("CAST(CAST(T AS TIMESTAMP) AS STRING)", "\"2020-02-03T04:05:06.700\" \"2020-01-01T00:00:00.000\" null"),
            ("CAST(CAST(T AS TIMESTAMP) AS DATE)", "18295 18262 null"),
            ("CAST(A AS STRING)", "\"[1.5, null]\" \"[]\" null"),
            ("CAST(A AS ARRAY<INT>)", "[1,null] [] null"),
            ("CAST(P AS STRING)", "\"{k=1}\" \"{}\" null"),
            ("CAST(P AS MAP<STRING, STRING>)", "{\"k\":\"1\"} {} null"),
            ("CAST(R AS STRUCT<G STRING, H INT>)", "{\"G\":\"g\",\"H\":null} {\"G\":null,\"H\":null} null"),
            ("R->F", "1 null null"),
            ("P['k']", "1 null null"),
            ("A[1]", "1.5 null null"),
            ("A[-2]", "1.5 null null"),
            ("A[0]", "null null null"),
            ("MAP('a' := I, 'b' := 2, 'a' := 3)", "{\"a\":3,\"b\":2} {\"a\":3,\"b\":2} {\"a\":3,\"b\":2}"),
            ("STRUCT(X := I, Y := S)->X", "1 -100000 null"),
        ],
    );
}

#[test]
fn lambdas() {
    check(
        "A ARRAY<INT>, P MAP<STRING, INT>, K INT",
        &[
            r#"{"A":[1,2,3],"P":{"a":1,"b":2},"K":10}"#,
            r#"{"A":[0],"P":{},"K":1}"#,
            r#"{"A":[],"K":1}"#,
            r#"{"A":[4,null],"P":{"c":3}}"#,
        ],
        &[
            ("TRANSFORM(A, x => x * K)", "[10,20,30] [0] [] null"),
            ("TRANSFORM(A, x => K / x)", "[10,5,3] null [] null"),
            ("TRANSFORM(A, x => COALESCE(K / x, -1))", "[10,5,3] [-1] [] [-1,-1]"),
            ("FILTER(A, x => x > 1)", "[2,3] [] [] [4]"),
            ("REDUCE(A, 0, (s, x) => s + x)", "6 0 0 null"),
            ("REDUCE(P, 0, (s, k, v) => s + v)", "3 0 0 3"),
            ("TRANSFORM(P, (k, v) => UCASE(k), (k, v) => v + 1)", "{\"A\":2,\"B\":3} {} null {\"C\":4}"),
            ("FILTER(P, (k, v) => v > 1)", "{\"b\":2} {} null {\"c\":3}"),
            ("TRANSFORM(A, x => REDUCE(A, x, (s, y) => s + y))", "[7,8,9] [0] [] null"),
        ],
    );
}

#[test]
fn strings() {
    check(
        "S STRING, I INT",
        &[r#"{"S":"Hello Wörld","I":3}"#, r#"{"S":"","I":-2}"#, r#"{}"#],
        &[
            ("UCASE(S)", "\"HELLO WÖRLD\" \"\" null"),
            ("LEN(S)", "11 0 null"),
            ("SUBSTRING(S, I)", "\"llo Wörld\" \"\" null"),
            ("SUBSTRING(S, -5, 2)", "\"Wö\" \"\" null"),
            ("INSTR(S, 'o')", "5 0 0"),
            ("REPLACE(S, 'l', 'L')", "\"HeLLo WörLd\" \"\" null"),
            ("CONCAT(S, '-', CAST(I AS STRING))", "\"Hello Wörld-3\" \"--2\" \"-\""),
            ("S || '!'", "\"Hello Wörld!\" \"!\" null"),
            ("CONCAT_WS(',')", "null null null"),
            ("CONCAT_WS(S)", "null null null"),
            ("CONCAT_WS(CAST(S AS BYTES))", "null null null"),
            ("CONCAT_WS(',', S, 'a', CAST(NULL AS STRING))", "\"Hello Wörld,a\" \",a\" \"a\""),
            ("LPAD(S, 3, 'ab')", "\"Hel\" \"aba\" null"),
            ("REGEXP_SPLIT_TO_ARRAY('abc ', 'b? *')", "[\"a\",\"c\"] [\"a\",\"c\"] [\"a\",\"c\"]"),
            ("INITCAP('  a b')", "\"A B\" \"A B\" \"A B\""),
            ("SPLIT(S, 'o')", "[\"Hell\",\" Wörld\"] [\"\"] null"),
            (
                "SPLIT_TO_MAP('a=1,b=2,c', ',', '=')",
                "{\"a\":\"1\",\"b\":\"2\"} {\"a\":\"1\",\"b\":\"2\"} {\"a\":\"1\",\"b\":\"2\"}",
            ),
            ("ELT(2, 'x', S)", "\"Hello Wörld\" \"\" null"),
            ("FIELD(S, 'x', '')", "0 2 0"),
            ("MASK(S)", "\"Xxxxx-Xxxxx\" \"\" null"),
            ("MASK_KEEP_RIGHT(S, 3)", "\"Xxxxx-Xxrld\" \"\" null"),
            (
                "INITCAP('the   Quick br0wn fOx')",
                "\"The   Quick Br0wn Fox\" \"The   Quick Br0wn Fox\" \"The   Quick Br0wn Fox\"",
            ),
            ("ENCODE(S, 'utf8', 'hex')", "\"48656c6c6f2057c3b6726c64\" \"\" null"),
            ("REGEXP_EXTRACT('(\\w+) (.*)', S, 2)", "\"Wörld\" null null"),
            ("CHR(65)", "\"A\" \"A\" \"A\""),
            (
                "UUID(TO_BYTES('00112233445566778899aabbccddeeff', 'hex'))",
                "\"00112233-4455-6677-8899-aabbccddeeff\" \"00112233-4455-6677-8899-aabbccddeeff\" \"00112233-4455-6677-8899-aabbccddeeff\"",
            ),
        ],
    );
}

#[test]
fn numbers_and_conditions() {
    check(
        "D DOUBLE, M DECIMAL(6,3), I INT, B BIGINT",
        &[r#"{"D":-1.5,"M":2.345,"I":3,"B":9}"#, r#"{"D":2.5,"M":-2.355,"I":-4}"#, r#"{}"#],
        &[
            ("ROUND(D)", "-1 3 null"),
            ("ROUND(D, 0)", "-1.0 3.0 null"),
            ("ROUND(M)", "2 -2 null"),
            ("ROUND(M, 2)", "2.350 -2.350 null"),
            ("TRUNC(M, 1)", "2.300 -2.300 null"),
            ("CEIL(M)", "3.000 -2.000 null"),
            ("FLOOR(M)", "2.000 -3.000 null"),
            ("ABS(I)", "3 4 null"),
            ("SIGN(D)", "-1 1 null"),
            ("SQRT(CAST(I AS DOUBLE) + 1)", "2.0 \"NaN\" null"),
            ("GREATEST(I, 0, NULL)", "3 0 0"),
            ("LEAST(M, 1.5)", "1.500 -2.355 1.500"),
            ("IFNULL(B, 1)", "9 1 1"),
            ("NULLIF(I, 3)", "null -4 null"),
            ("LOG(2, 8)", "3.0 3.0 3.0"),
            ("UNIX_TIMESTAMP()", "1000 1000 1000"),
        ],
    );
}

#[test]
fn arrays_and_maps() {
    check(
        "A ARRAY<INT>, B ARRAY<INT>, P MAP<STRING, INT>",
        &[r#"{"A":[3,1,null,3],"B":[1,7],"P":{"b":1,"a":2}}"#, r#"{"A":[],"B":[],"P":{}}"#, r#"{"B":[5]}"#],
        &[
            ("ARRAY_LENGTH(A)", "4 0 null"),
            ("ARRAY_CONTAINS(A, 3)", "true false false"),
            ("ARRAY_SORT(A)", "[1,3,3,null] [] null"),
            ("ARRAY_SORT(A, 'desc')", "[3,3,1,null] [] null"),
            ("ARRAY_MAX(A)", "3 null null"),
            ("ARRAY_DISTINCT(A)", "[3,1,null] [] null"),
            ("ARRAY_UNION(A, B)", "[3,1,null,7] [] null"),
            ("ARRAY_CONCAT(A, B)", "[3,1,null,3,1,7] [] [5]"),
            ("ARRAY_EXCEPT(A, B)", "[3,null] [] null"),
            ("ARRAY_INTERSECT(A, B)", "[1] [] null"),
            ("ARRAY_REMOVE(A, 3)", "[1,null] [] null"),
            ("ARRAY_JOIN(A, '-')", "\"3-1-null-3\" \"\" null"),
            ("SLICE(A, 2, 3)", "[1,null] null null"),
            ("GENERATE_SERIES(1, 7, 3)", "[1,4,7] [1,4,7] [1,4,7]"),
            ("MAP_KEYS(P)", "[\"b\",\"a\"] [] null"),
            ("MAP_VALUES(P)", "[1,2] [] null"),
            ("MAP_UNION(P, MAP('a' := 9, 'c' := 3))", "{\"b\":1,\"a\":9,\"c\":3} {\"a\":9,\"c\":3} {\"a\":9,\"c\":3}"),
            ("ENTRIES(P, true)", "[{\"K\":\"a\",\"V\":2},{\"K\":\"b\",\"V\":1}] [] null"),
            ("AS_MAP(ARRAY['x', 'y'], A)", "{\"x\":3,\"y\":1} {\"x\":null,\"y\":null} null"),
            ("ARRAY_JOIN(ARRAY[A])", "null null \"null\""),
        ],
    );
}

#[test]
fn json_and_urls() {
    check(
        "J STRING, U STRING",
        &[
            r#"{"J":"{\"a\": {\"b\": [1, 2.50, \"x\"]}, \"n\": null}","U":"http://h.org:81/p?q=1&r#f"}"#,
            r#"{"J":"[1, \"two\"]","U":"nothing"}"#,
            r#"{"J":"nonsense"}"#,
        ],
        &[
            ("EXTRACTJSONFIELD(J, '$.a.b[0]')", "\"1\" null null"),
            ("EXTRACTJSONFIELD(J, '$.a.b[2]')", "\"x\" null null"),
            ("EXTRACTJSONFIELD(J, '$.a')", "\"{\\\"b\\\":[1,2.50,\\\"x\\\"]}\" null null"),
            ("EXTRACTJSONFIELD(J, '$.n')", "\"null\" null null"),
            ("EXTRACTJSONFIELD('[{\"a\":1e2}]', '$.0.a')", "\"1E+2\" \"1E+2\" \"1E+2\""),
            ("IS_JSON_STRING(J)", "true true false"),
            ("JSON_ARRAY_LENGTH(J)", "null 2 null"),
            ("JSON_ARRAY_CONTAINS(J, 1)", "false true false"),
            ("JSON_KEYS(J)", "[\"a\",\"n\"] null null"),
            ("JSON_ITEMS(J)", "null [\"1\",\"\\\"two\\\"\"] null"),
            (
                "JSON_CONCAT(J, '[3]')",
                "\"[{\\\"a\\\":{\\\"b\\\":[1,2.50,\\\"x\\\"]},\\\"n\\\":null},3]\" \"[1,\\\"two\\\",3]\" null",
            ),
            (
                "JSON_CONCAT('{\"a\":1}', '{\"b\":2}', '3')",
                "\"[{\\\"a\\\":1},{\\\"b\\\":2},3]\" \"[{\\\"a\\\":1},{\\\"b\\\":2},3]\" \"[{\\\"a\\\":1},{\\\"b\\\":2},3]\"",
            ),
            ("TO_JSON_STRING(MAP('b' := U, 'a' := '')) LIKE '{\"a\":%'", "true true true"),
            ("TO_JSON_STRING(ARRAY[1, NULL])", "\"[1,null]\" \"[1,null]\" \"[1,null]\""),
            ("TO_JSON_STRING(U)", "\"\\\"http://h.org:81/p?q=1&r#f\\\"\" \"\\\"nothing\\\"\" \"null\""),
            ("URL_EXTRACT_PORT(U)", "81 null null"),
            ("URL_EXTRACT_PARAMETER(U, 'q')", "\"1\" null null"),
        ],
    );
}

#[test]
fn dates_and_times() {
    check(
        "T TIMESTAMP, D DATE, S STRING",
        &[r#"{"T":1614834367089,"D":18690,"S":"2021-03-04"}"#, r#"{"T":0,"D":-1,"S":"x"}"#, r#"{}"#],
        &[
            (
                "FORMAT_TIMESTAMP(T, 'yyyy-MM-dd HH:mm:ss.SSS', 'Europe/Berlin')",
                "\"2021-03-04 06:06:07.089\" \"1970-01-01 01:00:00.000\" null",
            ),
            ("PARSE_DATE(S, 'yyyy-MM-dd')", "18690 null null"),
            ("FORMAT_DATE(D, 'd MMM yy')", "\"4 Mar 21\" \"31 Dec 69\" null"),
            ("DATEADD(DAYS, 2, D)", "18692 1 null"),
            ("TIMESTAMPSUB(HOURS, 1, T)", "1614830767089 -3600000 null"),
            ("CONVERT_TZ(T, '+0200', '+0500')", "1614845167089 10800000 null"),
            ("UNIX_DATE(D)", "18690 -1 null"),
            ("T > '2021'", "true false false"),
            ("TIMEADD(SECONDS, 1, PARSE_TIME('23:59:59', 'HH:mm:ss'))", "0 0 0"),
        ],
    );
}

#[test]
fn row_errors_name_the_row_of_the_batch() {
    let world = World::new("I INT");
    let (expr, fields) = world.expression("10 / I");
    let columns = columns_of(&fields, &[r#"{"I":1}"#, r#"{"I":0}"#, r#"{"I":2}"#]);
    let mut cx = EvalContext::new(0, 0);
    let input = EvalInput::selected(&columns, UInt32Array::from(vec![2, 1]));
    let evaluated = expr.eval(&input, &mut cx).unwrap();
    assert_eq!(evaluated.errors.map(|e| e.iter().collect::<Vec<_>>()), Some(vec![false, true]));
    let (errors, count) = cx.take_errors();
    assert_eq!((count, errors.len(), errors[0].row), (1, 1, 1));
    assert_eq!(errors[0].message, "division by zero");
}

#[test]
fn the_library_offers_what_the_analyser_is_tested_with() {
    // Functions of the test suites, which no product has.
    const TEST_ONLY: [&str; 14] = [
        "BAD_UDF",
        "TEST_UDF",
        "TEST_UDAF",
        "TEST_UDTF",
        "THROWING_UDTF",
        "TOSTRUCT",
        "WHENCONDITION",
        "WHENRESULT",
        "VAR_ARG",
        "MID_VAR_ARG",
        "MULTI_ARG",
        "FOUR_ARG",
        "FIVE_ARG",
        "GENERIC_VAR_ARG",
    ];
    let library = FunctionLibrary::default();
    let listed = include_str!("../../../sql/tests/data/functions.txt");
    let names = listed.lines().filter_map(|l| l.split_whitespace().nth(1));
    let missing: Vec<&str> =
        names.filter(|n| !TEST_ONLY.contains(n) && *n != "OBJ_COL_ARG" && library.function(n).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(library.functions().len(), 149);
}
