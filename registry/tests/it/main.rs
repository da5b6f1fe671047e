//! The registry's rules through its face: what is given out, refused, kept.

use millpond_formats::SchemaKind;
use millpond_registry::{Compatibility, Limits, Mode, NewSchema, Problem, Reference, Registry};

/// A registry with the entries that its changes wrote.
struct Kept {
    now: Registry,
    entries: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Kept {
    fn new() -> Self {
        Self { now: Registry::new(Limits::default()), entries: Default::default() }
    }

    fn keep(&mut self, change: millpond_registry::Change) {
        for (key, value) in change.writes {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        self.now = change.registry;
        // Whatever there is now is there after a restart, too.
        let entries = self.entries.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
        let again = Registry::load(Limits::default(), entries).unwrap();
        let shown = |r: &Registry| {
            let subjects: Vec<String> = r.subjects(true).map(str::to_owned).collect();
            let versions: Vec<_> = subjects.iter().map(|s| (r.versions(s, true), r.versions(s, false))).collect();
            (subjects, format!("{versions:?}"), r.size(), r.compatibility(""), r.mode("a"))
        };
        assert_eq!(shown(&again), shown(&self.now));
        self.now = again;
    }

    fn register(&mut self, subject: &str, new: &NewSchema) -> Result<(u32, u32), Problem> {
        let (change, id, version) = self.now.register(subject, new)?;
        if let Some(change) = change {
            self.keep(change);
        }
        Ok((id, version))
    }

    fn avro(&mut self, subject: &str, fields: &str) -> Result<(u32, u32), Problem> {
        self.register(subject, &avro(fields))
    }
}

fn avro(fields: &str) -> NewSchema {
    NewSchema::new(SchemaKind::Avro, format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#))
}

const A: &str = r#"{"name":"a","type":"int"}"#;
const AB: &str = r#"{"name":"a","type":"int"},{"name":"b","type":["null","string"],"default":null}"#;
const A_LONG: &str = r#"{"name":"a","type":"long"}"#;
const A_C: &str = r#"{"name":"a","type":"int"},{"name":"c","type":"int"}"#;

fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> u32 {
    result.unwrap_err().code
}

#[test]
fn one_schema_has_one_id_and_a_subject_its_versions() {
    let mut kept = Kept::new();
    assert_eq!(kept.avro("a", A), Ok((1, 1)));
    assert_eq!(kept.avro("a", AB), Ok((2, 2)));
    // The same again, and elsewhere; how it is written does not matter as far as white space goes.
    assert_eq!(kept.avro("a", A), Ok((1, 1)));
    assert_eq!(kept.avro("b", &A.replace(':', " : ")), Ok((1, 1)));
    assert_eq!(kept.now.look_up("a", &avro(AB), false).unwrap().version, 2);
    assert_eq!(kept.now.versions_of(1, false), [("a".into(), 1), ("b".into(), 1)]);
    assert_eq!(kept.now.version("a", "latest", false).unwrap().registered.id, 2);
    assert_eq!(code(kept.now.version("a", "3", false)), 40402);
    assert_eq!(code(kept.now.version("z", "1", false)), 40401);
    assert_eq!(code(kept.now.version("a", "0", false)), 42202);
    assert_eq!(code(kept.now.look_up("b", &avro(AB), false)), 40403);
    assert_eq!(code(kept.avro("a", r#"{"name":"a"}"#)), 42201);
    let normal = avro(r#"{"type":{"type":"int"},"name":"a"}"#);
    assert_eq!(kept.register("c", &normal.clone().normalised()), kept.register("c", &avro(A).normalised()));
    assert_ne!(kept.register("d", &normal).unwrap().0, 1);
}

#[test]
fn levels_decide_what_may_follow() {
    // What comes after A: by level, whether a field with a default, a wider type, a field without a default may.
    for (level, optional, wider, required) in [
        (Compatibility::None, true, true, true),
        (Compatibility::Backward, true, true, false),
        (Compatibility::Forward, true, false, true),
        (Compatibility::Full, true, false, false),
    ] {
        for (fields, expected) in [(AB, optional), (A_LONG, wider), (A_C, required)] {
            let mut kept = Kept::new();
            kept.keep(kept.now.set_compatibility("", Some(level)).unwrap());
            kept.avro("a", A).unwrap();
            let tested = kept.now.test("a", Some("latest"), &avro(fields)).unwrap();
            assert_eq!(tested.is_empty(), expected, "{level:?} {fields} {tested:?}");
            match kept.avro("a", fields) {
                Ok(_) => assert!(expected),
                Err(problem) => assert_eq!((problem.code, problem.status(), expected), (409, 409, false)),
            }
        }
    }
    // Transitive: b comes, goes, and comes back as something else.
    let back = r#"{"name":"a","type":"int"},{"name":"b","type":"int","default":0}"#;
    for (level, expected) in [(Compatibility::Backward, true), (Compatibility::BackwardTransitive, false)] {
        let mut kept = Kept::new();
        kept.keep(kept.now.set_compatibility("a", Some(level)).unwrap());
        kept.avro("a", AB).unwrap();
        kept.avro("a", A).unwrap();
        assert_eq!(kept.avro("a", back).is_ok(), expected);
    }
}

#[test]
fn json_and_protobuf_have_levels_too() {
    let json = |text: &str| NewSchema::new(SchemaKind::Json, text);
    let proto =
        |body: &str| NewSchema::new(SchemaKind::Protobuf, format!("syntax = \"proto3\"; message M {{ {body} }}"));
    let entries =
        |value: &str| format!("repeated AEntry a = 1; message AEntry {{ string key = 1; {value} value = 2; }}");
    let tree =
        r##"{"type":"object","additionalProperties":false,"properties":{"n":{"type":"integer"},"next":{"$ref":"#"}}}"##;
    let deep = |inner: &str| format!("{}{{\"type\":\"{inner}\"}}{}", r#"{"items":"#.repeat(70), "}".repeat(70));
    let either = |one: &str, any: &str| format!(r#"{{"oneOf":{one},"anyOf":{any}}}"#);
    let closed = r#"{"type":"object","additionalProperties":false,"properties":{"a":{"type":"integer"}}}"#;
    for (first, second, fits) in [
        (json(closed), json(&closed.replace("integer", "number")), true),
        (json(closed), json(&closed.replace("integer", "string")), false),
        (json(closed), json(&closed.replace("}}", "},\"b\":{\"type\":\"string\"}}")), true),
        (json(r#"{"type":"object"}"#), json(r#"{"type":"object","properties":{"b":{"type":"string"}}}"#), false),
        (json(closed), json(&closed.replace("\"properties\"", "\"required\":[\"a\"],\"properties\"")), false),
        (json(r#"{"type":"string"}"#), json(r#"{"type":"string","minLength":3}"#), false),
        (json(r#"{"type":"string","minLength":3}"#), json(r#"{"type":"string","title":"t"}"#), true),
        (json(r#"{"title":"any"}"#), json(r#"{"maximum":3}"#), false),
        (json(r#"{"type":"object"}"#), json(r#"{"type":"object","additionalProperties":{"type":"string"}}"#), false),
        (json(r#"{"type":"array"}"#), json(r#"{"type":"array","items":{"type":"string"}}"#), false),
        (json(r#"{"type":"array"}"#), json(r#"{"type":"array","items":{}}"#), true),
        (json(r#"{"type":"string"}"#), json(&either("[{\"type\":\"string\"}]", "[{\"type\":\"integer\"}]")), false),
        (json(r#"{"type":"string"}"#), json(&either("[{\"type\":\"string\"}]", "[{\"type\":\"string\"}]")), true),
        (json(&either("[{\"type\":\"null\"}]", "[{\"type\":\"string\"}]")), json(r#"{"type":"string"}"#), true),
        (json(tree), json(&tree.replace("integer", "number")), true),
        (json(tree), json(&tree.replace("integer", "string")), false),
        (json(&deep("integer")), json(&deep("string")), false),
        (proto("int32 a = 1;"), proto("int32 a = 1; string b = 2;"), true),
        (proto("int32 a = 1; string b = 2;"), proto("int64 a = 1;"), true),
        (proto("int32 a = 1;"), proto("string a = 1;"), false),
        (proto("int32 a = 1;"), proto("repeated int32 a = 1;"), false),
        (proto("map<string, int32> a = 1;"), proto(&entries("int64")), true),
        (proto(&entries("int32")), proto("map<string, int32> a = 1;"), true),
        (proto("map<string, int32> a = 1;"), proto(&entries("string")), false),
        (proto("map<string, int32> a = 1;"), proto(&entries("repeated int32")), false),
        (proto("int32 a = 1;"), avro(A), false),
    ] {
        let mut kept = Kept::new();
        kept.register("a", &first).unwrap();
        assert_eq!(kept.register("a", &second).is_ok(), fits, "{} -> {}", first.text, second.text);
    }
}

#[test]
fn deletion_is_soft_first() {
    let mut kept = Kept::new();
    kept.avro("a", A).unwrap();
    kept.avro("a", AB).unwrap();
    assert_eq!(code(kept.now.delete_subject("a", true)), 40405);
    assert_eq!(code(kept.now.delete_version("a", "1", true)), 40407);
    let (change, version) = kept.now.delete_version("a", "latest", false).unwrap();
    assert_eq!(version, 2);
    kept.keep(change);
    assert_eq!(code(kept.now.delete_version("a", "2", false)), 40406);
    assert_eq!(kept.now.version("a", "latest", false).unwrap().version, 1);
    assert_eq!(kept.now.versions("a", true).unwrap(), [1, 2]);
    // Data with it can still be read; and it comes back under the same id as a new version.
    assert_eq!(kept.now.by_id(2).unwrap().id, 2);
    assert_eq!(kept.avro("a", AB), Ok((2, 3)));
    let (change, versions) = kept.now.delete_subject("a", false).unwrap();
    assert_eq!(versions, [1, 3]);
    kept.keep(change);
    assert_eq!(code(kept.now.versions("a", false)), 40401);
    assert_eq!(code(kept.now.delete_subject("a", false)), 40404);
    let (change, versions) = kept.now.delete_subject("a", true).unwrap();
    assert_eq!(versions, [1, 2, 3]);
    kept.keep(change);
    assert_eq!((code(kept.now.by_id(2)), kept.now.size()), (40403, (0, 0)));
    // Ids are never given twice.
    assert_eq!(kept.avro("a", A), Ok((3, 1)));
}

#[test]
fn references_are_read_first_and_hold_what_they_name() {
    let mut kept = Kept::new();
    let proto = |text: &str| NewSchema::new(SchemaKind::Protobuf, text);
    kept.register("event.proto", &proto("syntax = \"proto3\"; message Event { int64 at = 1; }")).unwrap();
    let text = "syntax = \"proto3\"; import \"event.proto\"; message Order { Event event = 1; }";
    assert_eq!(code(kept.register("order", &proto(text))), 42201);
    let reference = |version| Reference { name: "event.proto".into(), subject: "event.proto".into(), version };
    let order = NewSchema { references: vec![reference(1)], ..proto(text) };
    assert_eq!(code(kept.register("order", &NewSchema { references: vec![reference(2)], ..proto(text) })), 42201);
    assert_eq!(kept.register("order", &order), Ok((2, 1)));
    assert_eq!(kept.now.referenced_by("event.proto", 1), [2]);
    assert_eq!(code(kept.now.delete_subject("event.proto", false)), 42206);
    let (change, _) = kept.now.delete_subject("order", false).unwrap();
    kept.keep(change);
    kept.now.delete_subject("event.proto", false).unwrap();
}

#[test]
fn modes_and_limits() {
    let mut kept = Kept::new();
    kept.keep(kept.now.set_mode("", Some(Mode::ReadOnly), false).unwrap());
    assert_eq!(code(kept.avro("a", A)), 42205);
    kept.keep(kept.now.set_mode("a", Some(Mode::Import), false).unwrap());
    let new = NewSchema { id: Some(40), version: Some(7), ..avro(A) };
    assert_eq!(kept.register("a", &new), Ok((40, 7)));
    assert_eq!(code(kept.register("a", &NewSchema { id: Some(40), ..avro(AB) })), 42207);
    kept.keep(kept.now.set_mode("", None, false).unwrap());
    assert_eq!(kept.avro("b", AB), Ok((41, 1)));
    assert_eq!(code(kept.register("b", &NewSchema { id: Some(50), ..avro(A) })), 42205);
    let small = Limits { schemas_max: 1, ..Limits::default() };
    let registry = Registry::new(small);
    let (change, ..) = registry.register("a", &avro(A)).unwrap();
    let registry = change.unwrap().registry;
    assert_eq!(code(registry.register("a", &avro(AB)).map(|_| ())), 50001);
    assert_eq!(code(registry.register("", &avro(AB)).map(|_| ())), 42208);
    // What is imported counts whatever its text.
    let import = registry.set_mode("i", Some(Mode::Import), false).unwrap().registry;
    assert_eq!(code(import.register("i", &NewSchema { id: Some(77), ..avro(A) }).map(|_| ())), 50001);
    // A schema that is there takes no room in another subject; settings of subjects count, too.
    assert_eq!(registry.register("b", &avro(A)).unwrap().1, 1);
    let registry = Registry::new(Limits { subjects_max: 1, ..Limits::default() });
    let registry = registry.set_compatibility("", Some(Compatibility::Full)).unwrap().registry;
    let registry = registry.set_compatibility("a", Some(Compatibility::Full)).unwrap().registry;
    let registry = registry.set_compatibility("a", Some(Compatibility::None)).unwrap().registry;
    assert_eq!(code(registry.set_compatibility("b", Some(Compatibility::Full))), 50001);
    assert_eq!(code(registry.set_mode(&"x".repeat(2000), Some(Mode::ReadOnly), false)), 42208);
}

#[test]
fn what_remains_finds_what_it_refers_to() {
    let mut kept = Kept::new();
    let using = |version: u32, more: &str| NewSchema {
        references: vec![Reference { name: "Common".into(), subject: "common".into(), version }],
        ..NewSchema::new(
            SchemaKind::Avro,
            format!(r#"{{"type":"record","name":"Order","fields":[{{"name":"c","type":"Common"}}{more}]}}"#),
        )
    };
    let common = NewSchema::new(SchemaKind::Avro, r#"{"type":"record","name":"Common","fields":[]}"#);
    kept.register("common", &common).unwrap();
    kept.register("order", &using(1, "")).unwrap();
    // The one that refers is deleted softly only: it can still be read.
    for subject in ["order", "common"] {
        let (change, _) = kept.now.delete_subject(subject, false).unwrap();
        kept.keep(change);
    }
    assert_eq!(code(kept.now.delete_subject("common", true)), 42206);
    assert_eq!(code(kept.now.delete_version("common", "1", true)), 42206);
    for subject in ["order", "common"] {
        let (change, _) = kept.now.delete_subject(subject, true).unwrap();
        kept.keep(change);
    }
    // One version that refers to another of its own subject: together they go, alone not.
    kept.register("common", &common).unwrap();
    kept.keep(kept.now.set_compatibility("common", Some(Compatibility::None)).unwrap());
    assert_eq!(kept.register("common", &using(1, "")).unwrap().1, 2);
    let (change, _) = kept.now.delete_version("common", "1", false).unwrap();
    kept.keep(change);
    assert_eq!(code(kept.now.delete_version("common", "1", true)), 42206);
    let (change, _) = kept.now.delete_subject("common", false).unwrap();
    kept.keep(change);
    let (change, _) = kept.now.delete_subject("common", true).unwrap();
    kept.keep(change);
    assert_eq!(kept.now.size(), (0, 0));
}

#[test]
fn an_import_replaces_nothing() {
    let mut kept = Kept::new();
    kept.avro("a", A).unwrap();
    kept.keep(kept.now.set_mode("a", Some(Mode::Import), true).unwrap());
    assert_eq!(code(kept.register("a", &NewSchema { version: Some(1), ..avro(AB) })), 42207);
    // A schema is also its kind and what it refers to.
    let json = NewSchema { id: Some(1), ..NewSchema::new(SchemaKind::Json, avro(A).normalised().text) };
    assert_eq!(code(kept.register("a", &json)), 42207);
    for number in [0, i32::MAX as u32 + 1, u32::MAX] {
        assert_eq!(code(kept.register("a", &NewSchema { id: Some(number), ..avro(AB) })), 42201);
        assert_eq!(code(kept.register("a", &NewSchema { version: Some(number), ..avro(AB) })), 42201);
    }
    let last = i32::MAX as u32;
    let new = NewSchema { id: Some(last), version: Some(last), ..avro(AB) };
    assert_eq!(kept.register("a", &new), Ok((last, last)));
    assert_eq!(code(kept.avro("b", A_C)), 50001);
    assert_eq!(code(kept.avro("a", A_C)), 50001);
    assert_eq!(kept.avro("b", AB), Ok((last, 1)));
}

#[test]
fn a_schema_that_cannot_be_read_stops_nothing_else() {
    use millpond_formats::Schemas;
    let mut kept = Kept::new();
    let common = NewSchema::new(SchemaKind::Avro, r#"{"type":"record","name":"Common","fields":[]}"#);
    let reference = Reference { name: "Common".into(), subject: "common".into(), version: 1 };
    let using = NewSchema { references: vec![reference], ..avro(r#"{"name":"c","type":"Common"}"#) };
    kept.register("common", &common).unwrap();
    kept.register("order", &using).unwrap();
    kept.avro("a", A).unwrap();
    kept.entries.retain(|key, _| !key.windows(6).any(|part| part == b"common"));
    let entries = kept.entries.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
    let mut again = Kept { now: Registry::load(Limits::default(), entries).unwrap(), entries: kept.entries.clone() };
    assert_eq!(again.now.broken().map(|(id, _)| id).collect::<Vec<_>>(), [2]);
    assert_eq!(again.now.version("order", "1", false).unwrap().registered.text, using.text);
    assert!(again.now.schema(2).is_err() && again.now.schema(3).unwrap().is_some());
    assert_eq!(code(again.avro("order", A)), 409);
    assert_eq!(again.avro("b", AB), Ok((4, 1)));
    let (change, _) = again.now.delete_version("order", "1", false).unwrap();
    again.keep(change);
    let (change, _) = again.now.delete_version("order", "1", true).unwrap();
    again.keep(change);
    assert_eq!(again.now.broken().count(), 0);
}

#[test]
fn what_was_checked_holds_while_the_subject_is_as_it_was() {
    let mut kept = Kept::new();
    kept.avro("a", A).unwrap();
    let new = avro(AB);
    let checked = kept.now.check("a", &new).unwrap();
    kept.avro("b", A_LONG).unwrap();
    let now = kept.now.clone();
    // Loading makes everything anew; a snapshot that follows another shares what has not changed.
    let checked_now = now.check("a", &new).unwrap();
    assert!(!now.is_checked("a", &new, &checked), "a subject that was read again may be another");
    let (elsewhere, ..) = now.register("c", &avro(A)).unwrap();
    assert!(elsewhere.unwrap().registry.is_checked("a", &new, &checked_now));
    let after = now.set_compatibility("a", Some(Compatibility::Full)).unwrap().registry;
    assert!(!after.is_checked("a", &new, &checked_now));
    let after = now.register("a", &avro(A_LONG)).unwrap().0.unwrap().registry;
    assert!(!after.is_checked("a", &new, &checked_now));
    assert_eq!(now.register_checked("a", &new, &checked_now).unwrap().2, 2);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
fn one_change_of_many_schemas_is_quick() {
    let begun = std::time::Instant::now();
    let mut registry = Registry::new(Limits::default());
    for n in 0..20_000 {
        let text = format!(r#"{{"name":"f{n}","type":"int"}}"#);
        registry = registry.register(&format!("s{n}"), &avro(&text)).unwrap().0.unwrap().registry;
    }
    // Each from the same snapshot: copying all of it every time would take minutes.
    for n in 0..2_000 {
        let text = format!(r#"{{"name":"g{n}","type":"int"}}"#);
        let (change, id, _) = registry.register("one", &avro(&text)).unwrap();
        assert_eq!((id, change.unwrap().registry.size().0), (20_001, 20_001));
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(registry.versions_of(7, true), [("s6".to_owned(), 1)]);
}

/// However large schemas are, they are compared in a time that goes with their size.
#[test]
#[allow(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
fn large_schemas_are_compared_quickly() {
    let many = |n: usize, one: &dyn Fn(usize) -> String| (0..n).map(one).collect::<Vec<_>>().join(",");
    let symbols = |n: usize| many(n, &|i| format!("\"S{i}\""));
    // Two enums of many symbols that meet in many fields, and many fields in other orders.
    let enums = |n: usize, from: usize| {
        let first = format!(r#"{{"name":"f","type":{{"type":"enum","name":"E","symbols":[{}]}}}}"#, symbols(n));
        let rest = many(9_000, &|i| format!(r#"{{"name":"g{}","type":"E","default":"S0"}}"#, (i + from) % 9_000));
        avro(&format!("{first},{rest}"))
    };
    let fields = |from: usize| {
        NewSchema::new(
            SchemaKind::Protobuf,
            format!(
                "syntax = \"proto3\"; message M {{ {} }}",
                (0..40_000).map(|i| format!("bool f{0}={0};", (i + from) % 40_000 + 1)).collect::<String>()
            ),
        )
    };
    let keywords = |from: usize| {
        let text = many(60_000, &|i| format!(r#""x{}":1"#, (i + from) % 60_000));
        NewSchema::new(SchemaKind::Json, format!("{{{text}}}"))
    };
    let types = |from: usize| {
        let text = many(60_000, &|i| format!(r#""t{}""#, (i + from) % 60_000));
        NewSchema::new(SchemaKind::Json, format!(r#"{{"type":[{text}]}}"#))
    };
    // A long reference in many places.
    let refs = |end: &str| {
        let deep = "/d".repeat(30_000);
        let nested = format!("{}{{}}{}", r#"{"d":"#.repeat(100), "}".repeat(100));
        let places = many(10, &|i| format!(r##""p{i}":{{"$ref":"#{deep}"}}"##));
        NewSchema::new(SchemaKind::Json, format!(r#"{{"d":{nested},"properties":{{{places}}},"title":"{end}"}}"#))
    };
    for (what, old, new) in [
        ("avro", enums(20_000, 0), enums(20_001, 7)),
        ("protobuf", fields(0), fields(17)),
        ("keywords", keywords(0), keywords(5)),
        ("types", types(0), types(5)),
        ("references", refs("a"), refs("b")),
    ] {
        let registry = Registry::new(Limits::default());
        let registry = registry.register("s", &old).unwrap().0.unwrap().registry;
        let started = std::time::Instant::now();
        registry.register("s", &new).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(started.elapsed().as_secs() < 15, "{what}: {:?}", started.elapsed());
    }
}

/// Another form of the same: what is no part of the language's structure stays as it is.
#[test]
fn a_normal_form_means_the_same() {
    let normal = |kind, text: &str| NewSchema::new(kind, text).normalised().text;
    assert_eq!(
        normal(
            SchemaKind::Avro,
            r#"{"type":"record","name":"R","fields":[{"type":{"type":"int"},"name":"a"},
                {"name":"m","type":{"values":{"type":"string"},"type":"map"},"default":{"z":"1","type":"x"}},
                {"name":"n","type":{"type":"map","values":"string"},"default":{"type":"x"}}]}"#
        ),
        r#"{"fields":[{"name":"a","type":"int"},{"default":{"z":"1","type":"x"},"name":"m","type":{"type":"map","values":"string"}},{"default":{"type":"x"},"name":"n","type":{"type":"map","values":"string"}}],"name":"R","type":"record"}"#
    );
    assert_eq!(
        normal(
            SchemaKind::Json,
            r#"{"type":"object","properties":{"z":{"type":"string","title":"Z"},"a":{"enum":[{"y":1,"b":2}]}}}"#
        ),
        r#"{"properties":{"z":{"title":"Z","type":"string"},"a":{"enum":[{"y":1,"b":2}]}},"type":"object"}"#
    );
}
