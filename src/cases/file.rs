//! Case files: reading them, and unfolding `format` and `config` lists into one case each.

use std::path::Path;

use anyhow::{Context, Result, bail};
use millpond_formats::SchemaKind;
use millpond_formats::json::{Comments, Json};

/// One case, ready to run.
#[derive(Clone, Debug)]
pub struct Case {
    /// `file - name - FORMAT`
    pub id: String,
    pub enabled: bool,
    pub statements: Vec<String>,
    /// Session properties.
    pub properties: Vec<(String, String)>,
    pub topics: Vec<Topic>,
    pub inputs: Vec<Record>,
    pub outputs: Vec<Record>,
    /// What the refusal should say, where a refusal is expected.
    pub refusal: Option<String>,
    /// The refusal is the death of a query at work, not that of a statement.
    pub dies_at_work: bool,
    pub post: Option<Json>,
    /// What a client of the HTTP server sees, where that is what the file is about.
    pub rest: Option<Rest>,
}

#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Kind (`admin`, `query`, `queryProto`) and what is expected of each answer.
    pub responses: Vec<(String, Json)>,
    pub error: Option<ExpectedError>,
    /// Inputs are written when the push queries are open, not before.
    pub waits_for_push: bool,
}

/// What must be true of the error that ends a case.
#[derive(Clone, Debug)]
pub struct ExpectedError {
    pub ty: Option<String>,
    pub message: String,
    pub status: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    /// `None`: as a CREATE statement says.
    pub partitions: Option<i32>,
    pub replicas: i16,
    pub key_schema: Option<TopicSchema>,
    pub value_schema: Option<TopicSchema>,
}

/// A schema that is registered before the statements run.
#[derive(Clone, Debug)]
pub struct TopicSchema {
    pub kind: SchemaKind,
    pub text: String,
    pub id: Option<u32>,
    /// Names and texts of what it refers to.
    pub references: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub topic: String,
    pub key: Json,
    pub value: Json,
    pub timestamp: Option<i64>,
    pub window: Option<Window>,
    /// Name and base64 value.
    pub headers: Vec<(String, Option<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: i64,
    pub end: i64,
    pub session: bool,
}

pub fn read_file(path: &Path, name: &str) -> Result<Vec<Case>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let json = Json::parse(&text, Comments::Allowed).with_context(|| format!("\"{}\" is not JSON", path.display()))?;
    let Some(tests) = json.get("tests").and_then(Json::as_array) else {
        bail!("\"{}\" has no list \"tests\"", path.display());
    };
    let mut cases = Vec::new();
    for test in tests {
        let title = test.get("name").and_then(Json::as_str).unwrap_or("?");
        unfold(test, &format!("{name} - {title}"), &mut cases)
            .with_context(|| format!("case \"{title}\" in \"{}\"", path.display()))?;
    }
    // Files are about the one or the other; not every case of a file about HTTP has a member that tells.
    if !tests.iter().any(|t| REST_MEMBERS.iter().any(|m| t.get(m).is_some())) {
        for case in &mut cases {
            case.rest = None;
        }
    }
    Ok(cases)
}

/// Members that only cases about the HTTP server have.
const REST_MEMBERS: [&str; 3] = ["responses", "expectedError", "inputConditions"];

fn list<'a>(json: &'a Json, name: &str) -> &'a [Json] {
    json.get(name).and_then(Json::as_array).unwrap_or(&[])
}

fn unfold(test: &Json, id: &str, cases: &mut Vec<Case>) -> Result<()> {
    let formats: Vec<Option<&str>> = match list(test, "format") {
        [] => vec![None],
        some => some.iter().map(Json::as_str).collect(),
    };
    // `{CONFIG}` in properties stands for each of these in turn.
    let configs: Vec<Option<String>> = match list(test, "config") {
        [] => vec![None],
        some => some.iter().map(|value| Some(text_of(value))).collect(),
    };
    for format in &formats {
        for config in &configs {
            let suffix: String = format.map(str::to_string).iter().chain(config).map(|s| format!(" - {s}")).collect();
            cases.push(read_case(test, format!("{id}{suffix}"), *format, config.as_deref())?);
        }
    }
    Ok(())
}

/// A scalar as text; strings without quotes.
fn text_of(json: &Json) -> String {
    match json {
        Json::String(s) => s.clone(),
        other => {
            let mut out = Vec::new();
            other.write(&mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
    }
}

fn read_case(test: &Json, id: String, format: Option<&str>, config: Option<&str>) -> Result<Case> {
    let statements = list(test, "statements")
        .iter()
        .map(|s| {
            let text = s.as_str().context("a statement is not text")?;
            Ok(format.map_or_else(|| text.to_string(), |f| text.replace("{FORMAT}", f)))
        })
        .collect::<Result<Vec<_>>>()?;
    let properties = test.get("properties").and_then(Json::as_object).unwrap_or(&[]);
    let properties = properties
        .iter()
        .map(|(key, value)| (key.clone(), text_of(value).replace("{CONFIG}", config.unwrap_or("{CONFIG}"))))
        .collect();
    let refusal =
        test.get("expectedException").map(|e| e.get("message").and_then(Json::as_str).unwrap_or_default().to_string());
    Ok(Case {
        id,
        enabled: test.get("enabled").and_then(Json::as_bool).unwrap_or(true),
        statements,
        properties,
        topics: list(test, "topics").iter().map(topic).collect::<Result<_>>()?,
        inputs: list(test, "inputs").iter().map(record).collect::<Result<_>>()?,
        outputs: list(test, "outputs").iter().map(record).collect::<Result<_>>()?,
        refusal,
        dies_at_work: test
            .get("expectedException")
            .and_then(|e| e.get("type"))
            .and_then(Json::as_str)
            .is_some_and(|ty| ty.ends_with("StreamsException")),
        post: test.get("post").cloned(),
        rest: Some(rest(test)?),
    })
}

fn rest(test: &Json) -> Result<Rest> {
    let text = |json: &Json, name: &str| json.get(name).and_then(Json::as_str).map(str::to_string);
    let responses = list(test, "responses").iter().map(|response| match response.as_object() {
        Some([(kind, expected)]) => Ok((kind.clone(), expected.clone())),
        _ => bail!("a response has not exactly one kind"),
    });
    let error = test.get("expectedError").map(|e| ExpectedError {
        ty: text(e, "type"),
        message: text(e, "message").unwrap_or_default(),
        status: e.get("status").and_then(Json::as_i64),
    });
    let waits = test.get("inputConditions").and_then(|c| c.get("waitForActivePushQuery")).and_then(Json::as_bool);
    Ok(Rest { responses: responses.collect::<Result<_>>()?, error, waits_for_push: waits.unwrap_or(false) })
}

fn topic(json: &Json) -> Result<Topic> {
    Ok(Topic {
        name: json.get("name").and_then(Json::as_str).context("a topic has no name")?.to_string(),
        partitions: json.get("partitions").and_then(Json::as_i64).and_then(|n| i32::try_from(n).ok()),
        replicas: json.get("replicas").and_then(Json::as_i64).map_or(1, |n| n as i16),
        key_schema: topic_schema(json, "key")?,
        value_schema: topic_schema(json, "value")?,
    })
}

fn topic_schema(json: &Json, side: &str) -> Result<Option<TopicSchema>> {
    let of = |what: &str| json.get(&format!("{side}{what}")).filter(|j| !j.is_null());
    let Some(schema) = of("Schema") else { return Ok(None) };
    let kind = match of("Format").and_then(Json::as_str) {
        Some("PROTOBUF") => SchemaKind::Protobuf,
        Some("JSON" | "JSON_SR") => SchemaKind::Json,
        _ => SchemaKind::Avro,
    };
    let text = |schema: &Json| match (kind, schema) {
        (SchemaKind::Protobuf, Json::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    };
    let references = of("SchemaReferences").and_then(Json::as_array).unwrap_or(&[]);
    let reference = |r: &Json| {
        let name = r.get("name").and_then(Json::as_str).context("a reference has no name")?;
        Ok((name.to_string(), text(r.get("schema").context("a reference has no schema")?)))
    };
    Ok(Some(TopicSchema {
        kind,
        text: text(schema),
        id: of("SchemaId").and_then(Json::as_i64).and_then(|id| u32::try_from(id).ok()),
        references: references.iter().map(reference).collect::<Result<_>>()?,
    }))
}

fn record(json: &Json) -> Result<Record> {
    let window = match json.get("window") {
        None | Some(Json::Null) => None,
        Some(w) => Some(Window {
            start: w.get("start").and_then(Json::as_i64).context("a window has no start")?,
            end: w.get("end").and_then(Json::as_i64).context("a window has no end")?,
            session: w.get("type").and_then(Json::as_str).is_some_and(|t| t.eq_ignore_ascii_case("session")),
        }),
    };
    let headers = list(json, "headers")
        .iter()
        .map(|h| {
            let key = h.get("KEY").and_then(Json::as_str).context("a header has no KEY")?.to_string();
            Ok((key, h.get("VALUE").and_then(Json::as_str).map(str::to_string)))
        })
        .collect::<Result<_>>()?;
    Ok(Record {
        topic: json.get("topic").and_then(Json::as_str).context("a record has no topic")?.to_string(),
        key: json.get("key").cloned().unwrap_or(Json::Null),
        value: json.get("value").cloned().unwrap_or(Json::Null),
        timestamp: json.get("timestamp").and_then(Json::as_i64),
        window,
        headers,
    })
}
