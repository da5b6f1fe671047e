//! JSON functions: over JSON in texts.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanBuilder, StringBuilder};
use millpond_formats::json::{Comments, Json, write_json_string};
use millpond_formats::number;
use millpond_sql::functions::ResultType;
use millpond_types::value::{array_from_values, value_at};
use millpond_types::{Error, Result, SqlType, Value};

use super::typed::{Bind, Builtin, Def, Int, Kind as _, List, Memo, Str, T, exact, map_of, param, same, scalar};
use super::{Args, CallSite, Failures, Returned, ScalarImpl};
use crate::expr::{EvalContext, deep};

const CATEGORY: &str = "JSON";

pub fn register(b: &mut Builtin) {
    b.add(
        "EXTRACTJSONFIELD",
        CATEGORY,
        "what lies at a path ($.a.b[0]) of a JSON text",
        vec![scalar!(memo: Memo<Path>; (text: Str, path: Str) -> Str => extract(memo, text, path))],
    );
    b.add(
        "IS_JSON_STRING",
        CATEGORY,
        "whether a text is JSON",
        vec![Def::scalar(vec![param("text", Str::param())], ResultType::Of(exact(SqlType::Boolean)), same(is_json))],
    );
    b.add(
        "JSON_ARRAY_LENGTH",
        CATEGORY,
        "number of elements of a JSON array",
        vec![scalar!((text: Str) -> Int => parse(text).map(|j| j.as_array().map(|a| a.len() as i32)))],
    );
    b.add(
        "JSON_ARRAY_CONTAINS",
        CATEGORY,
        "whether a value is among the elements of a JSON array",
        vec![Def::scalar(
            vec![param("text", Str::param()), param("value", T)],
            ResultType::Of(exact(SqlType::Boolean)),
            Bind(|site: &CallSite<'_>| {
                let ty = site.args.get(1).map_or(SqlType::String, |a| a.ty.clone());
                let code: Arc<dyn ScalarImpl> =
                    Arc::new(move |args: &Args<'_>, _: &mut EvalContext| array_contains(args, &ty));
                Ok(code)
            }),
        )],
    );
    b.add(
        "JSON_ITEMS",
        CATEGORY,
        "the elements of a JSON array, each as JSON",
        vec![scalar!((text: Str) -> List<Str> => parse(text).map(|j| {
            j.as_array().map(|items| items.iter().map(java_text).collect::<Vec<_>>())
        }))],
    );
    b.add(
        "JSON_KEYS",
        CATEGORY,
        "the names of a JSON object",
        vec![scalar!((text: Str) -> List<Str> => parse(text).map(|j| {
            j.as_object().map(|fields| fields.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>())
        }))],
    );
    b.add(
        "JSON_RECORDS",
        CATEGORY,
        "names and values of a JSON object, each value as JSON",
        vec![Def::scalar(
            vec![param("text", Str::param())],
            ResultType::Of(map_of(Str::param(), Str::param())),
            same(records),
        )],
    );
    b.add(
        "JSON_CONCAT",
        CATEGORY,
        "JSON texts merged: objects by name, else as one array",
        vec![
            Def::scalar(vec![param("text", Str::param())], ResultType::Of(exact(SqlType::String)), same(concat))
                .variadic(0),
        ],
    );
    b.add(
        "TO_JSON_STRING",
        CATEGORY,
        "a value as JSON text",
        vec![Def::scalar(
            vec![param("value", T)],
            ResultType::Of(exact(SqlType::String)),
            Bind(|site: &CallSite<'_>| {
                let ty = site.args.first().map_or(SqlType::String, |a| a.ty.clone());
                let code: Arc<dyn ScalarImpl> =
                    Arc::new(move |args: &Args<'_>, _: &mut EvalContext| to_json(args, &ty));
                Ok(code)
            }),
        )],
    );
}

fn parse(text: &str) -> Result<Json, String> {
    if text.trim().is_empty() {
        return Ok(Json::Null);
    }
    Json::parse(text, Comments::Refused).map_err(|e| e.to_string())
}

enum Step {
    Name(String),
    Index(usize),
}

/// `$`, then `.name`, `[index]`, `['name']`, `["name"]`.
struct Path(Vec<Step>);

impl Path {
    fn compile(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a JSON path such as $.name[0]");
        let mut rest = text.trim().strip_prefix('$').ok_or_else(wrong)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                if end == 0 {
                    return Err(wrong());
                }
                steps.push(Step::Name(after[..end].to_owned()));
                rest = &after[end..];
                continue;
            }
            let after = rest.strip_prefix('[').ok_or_else(wrong)?;
            match after.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    let inner = &after[1..];
                    let end = inner.find(quote).ok_or_else(wrong)?;
                    steps.push(Step::Name(inner[..end].to_owned()));
                    rest = inner[end + 1..].strip_prefix(']').ok_or_else(wrong)?;
                }
                _ => {
                    let end = after.find(']').ok_or_else(wrong)?;
                    let inner = &after[..end];
                    steps.push(match inner.parse() {
                        Ok(index) => Step::Index(index),
                        Err(_) if !inner.is_empty() => Step::Name(inner.to_owned()),
                        Err(_) => return Err(wrong()),
                    });
                    rest = &after[end + 1..];
                }
            }
        }
        Ok(Self(steps))
    }

    fn find<'a>(&self, json: &'a Json) -> Option<&'a Json> {
        self.0.iter().try_fold(json, |at, step| match step {
            Step::Name(name) => match at.as_array() {
                Some(items) => items.get(name.parse::<usize>().ok()?),
                None => at.get(name),
            },
            Step::Index(index) => match at.as_array() {
                Some(items) => items.get(*index),
                None => at.get(&index.to_string()),
            },
        })
    }
}

fn extract(paths: &mut Memo<Path>, text: &str, path: &str) -> Result<Option<String>, String> {
    let path = paths.get(path, Path::compile)?;
    let json = parse(text)?;
    Ok(path.find(&json).map(|found| match found {
        Json::String(text) => text.clone(),
        other => java_text(other),
    }))
}

/// As JSON, with numbers as Java has them.
fn java_text(json: &Json) -> String {
    let mut out = Vec::new();
    json.write_as_java(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn is_json(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let values = args.values(0)?;
    let texts = values.array().as_string_opt::<i32>().ok_or_else(|| Error::bug("IS_JSON_STRING needs STRING"))?;
    let mut out = BooleanBuilder::with_capacity(args.rows);
    for row in 0..args.rows {
        let at = values.index(row);
        let valid = texts.is_valid(at) && Json::parse(texts.value(at), Comments::Refused).is_ok();
        out.append_value(valid);
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn array_contains(args: &Args<'_>, ty: &SqlType) -> Result<Returned> {
    let (texts, wanted) = (args.values(0)?, args.values(1)?);
    let array = texts.array().as_string_opt::<i32>().ok_or_else(|| Error::bug("JSON_ARRAY_CONTAINS needs STRING"))?;
    let mut out = BooleanBuilder::with_capacity(args.rows);
    for row in 0..args.rows {
        let at = texts.index(row);
        let json = if array.is_valid(at) { parse(array.value(at)).ok() } else { None };
        let wanted = value_at(wanted.array(), ty, wanted.index(row));
        let found = json.as_ref().and_then(Json::as_array).is_some_and(|items| items.iter().any(|i| is(i, &wanted)));
        out.append_value(found);
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

/// Whether an element is a value, of the same kind of token.
fn is(json: &Json, value: &Value) -> bool {
    match (json, value) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(a), Value::Boolean(b)) => a == b,
        (Json::String(a), Value::String(b)) => a == b,
        (Json::Number(a), Value::Integer(b)) => a.parse() == Ok(i64::from(*b)),
        (Json::Number(a), Value::BigInt(b)) => a.parse() == Ok(*b),
        (Json::Number(a), Value::Double(b)) => a.contains(['.', 'e', 'E']) && number::parse_double(a) == Some(*b),
        (Json::Number(a), Value::Decimal { unscaled, precision, scale }) => {
            number::parse_decimal(a.as_bytes(), *precision, *scale) == Ok(*unscaled)
        }
        _ => false,
    }
}

fn records(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let values = args.values(0)?;
    let texts = values.array().as_string_opt::<i32>().ok_or_else(|| Error::bug("JSON_RECORDS needs STRING"))?;
    let mut failures = Failures::default();
    let mut maps = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let at = values.index(row);
        let json = if texts.is_valid(at) { parse(texts.value(at)) } else { Ok(Json::Null) };
        maps.push(match json {
            Ok(json) => json.as_object().map_or(Value::Null, |fields| {
                let mut entries: Vec<(Value, Value)> = Vec::with_capacity(fields.len());
                for (name, value) in fields {
                    let (key, value) = (Value::String(name.clone()), Value::String(java_text(value)));
                    match entries.iter_mut().find(|(k, _)| *k == key) {
                        Some((_, v)) => *v = value,
                        None => entries.push((key, value)),
                    }
                }
                Value::Map(entries)
            }),
            Err(message) => {
                failures.push(row, || message);
                Value::Null
            }
        });
    }
    let ty = SqlType::map(SqlType::String, SqlType::String);
    Ok(Returned { array: array_from_values(&ty, &maps)?, failures })
}

fn concat(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let mut out = StringBuilder::new();
    for row in 0..args.rows {
        let mut all = Vec::with_capacity(args.args.len());
        for arg in 0..args.args.len() {
            let values = args.values(arg)?;
            let texts = values.array().as_string_opt::<i32>().ok_or_else(|| Error::bug("JSON_CONCAT needs STRING"))?;
            let at = values.index(row);
            // NULL, empty and malformed texts make the whole NULL.
            let json = texts.is_valid(at).then(|| Json::parse(texts.value(at), Comments::Refused).ok()).flatten();
            let Some(json) = json else { break };
            all.push(json);
        }
        let complete = all.len() == args.args.len();
        out.append_option(merged(all).filter(|_| complete).map(|j| j.to_string()));
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

/// Only objects give an object; of equal names the last counts. Else they are one array; a value by itself stays as it is.
fn merged(all: Vec<Json>) -> Option<Json> {
    if all.len() < 2 {
        return all.into_iter().next();
    }
    if all.iter().all(|json| json.as_object().is_some()) {
        let mut fields: indexmap::IndexMap<String, Json> = indexmap::IndexMap::new();
        for json in all {
            if let Json::Object(object) = json {
                fields.extend(object);
            }
        }
        return Some(Json::Object(fields.into_iter().collect()));
    }
    let items = all.into_iter().flat_map(|json| match json {
        Json::Array(items) => items,
        other => vec![other],
    });
    Some(Json::Array(items.collect()))
}

fn to_json(args: &Args<'_>, ty: &SqlType) -> Result<Returned> {
    let values = args.values(0)?;
    let mut out = StringBuilder::new();
    let mut text = Vec::new();
    for row in 0..args.rows {
        text.clear();
        write(&value_at(values.array(), ty, values.index(row)), &mut text);
        out.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn member(name: &str, value: &Value, out: &mut Vec<u8>) {
    write_json_string(out, name.as_bytes());
    out.push(b':');
    write(value, out);
}

/// Dates and times are texts here, BYTES base64; members are in the order of their names.
fn write(value: &Value, out: &mut Vec<u8>) {
    let list = |open: u8, close: u8, out: &mut Vec<u8>, count: usize, item: &mut dyn FnMut(usize, &mut Vec<u8>)| {
        out.push(open);
        for i in 0..count {
            if i > 0 {
                out.push(b',');
            }
            item(i, out);
        }
        out.push(close);
    };
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Boolean(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Integer(i) => out.extend_from_slice(i.to_string().as_bytes()),
        Value::BigInt(i) => out.extend_from_slice(i.to_string().as_bytes()),
        Value::Double(d) if !d.is_finite() => write_json_string(out, number::java_double(*d).as_bytes()),
        Value::Double(d) => number::write_double(out, *d),
        Value::Decimal { unscaled, scale, .. } => number::write_decimal(out, *unscaled, *scale),
        Value::String(s) => write_json_string(out, s.as_bytes()),
        Value::Bytes(b) => {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(b);
            write_json_string(out, text.as_bytes());
        }
        Value::Date(_) | Value::Time(_) | Value::Timestamp(_) => {
            let text = millpond_formats::text::value_text(value).unwrap_or_default();
            write_json_string(out, text.as_bytes());
        }
        Value::Array(items) => list(b'[', b']', out, items.len(), &mut |i, out| write(&items[i], out)),
        Value::Map(entries) => {
            let text = |key| millpond_formats::text::value_text(key).unwrap_or_default();
            let mut named: Vec<(String, &Value)> = entries.iter().map(|(key, value)| (text(key), value)).collect();
            named.sort_by(|(a, _), (b, _)| deep::compare_text(a, b));
            list(b'{', b'}', out, named.len(), &mut |i, out| member(&named[i].0, named[i].1, out));
        }
        Value::Struct(fields) => {
            let mut named: Vec<&(_, Value)> = fields.iter().collect();
            named.sort_by(|(a, _), (b, _)| deep::compare_text(a, b));
            list(b'{', b'}', out, named.len(), &mut |i, out| member(&named[i].0, &named[i].1, out));
        }
    }
}
