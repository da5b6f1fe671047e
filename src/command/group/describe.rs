//! What a group is doing: its members, and for each partition where it is and how far behind. Of both protocols.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Result;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest};
use serde_json::{Value as Json, json};

use super::no_group;
use crate::command::progress::Progress;
use crate::command::report::{Form, Rows, note, say, say_json, say_line};
use crate::kafka::client::{Isolation, LATEST, Place};
use crate::kafka::member::{assigned, committed};
use crate::kafka::{Client, Error, Lane, To, group_id};

pub struct Described {
    /// `classic` or `consumer`.
    pub kind: &'static str,
    pub state: String,
    /// How partitions are shared out.
    assignor: String,
    pub members: Vec<Reader>,
}

pub struct Reader {
    id: String,
    instance: Option<String>,
    client: String,
    host: String,
    partitions: Vec<Place>,
}

/// `None`: there is no such group.
pub async fn describe(client: &Client, group: &str) -> Result<Option<Described>, Error> {
    let to = To::Group(group.to_string());
    let what = || format!("cannot describe group \"{group}\"");
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
    let judge = |answer: &kafka_protocol::messages::DescribeGroupsResponse| {
        let codes = answer.groups.iter().map(|g| g.error_code).filter(|c| *c != ResponseError::GroupIdNotFound.code());
        codes.into_iter().try_for_each(|code| Error::check(code, what, None))
    };
    let answer = client.call(&to, &request, judge).await?;
    let classic = answer.groups.first().filter(|g| g.error_code == 0 && g.group_state.as_str() != "Dead");
    if let Some(found) = classic {
        let members = found.members.iter().map(|m| Reader {
            id: m.member_id.to_string(),
            instance: m.group_instance_id.as_ref().map(ToString::to_string),
            client: m.client_id.to_string(),
            host: m.client_host.to_string(),
            // Of other protocols than "consumer" nobody but the members knows what they are given.
            partitions: assigned(&m.member_assignment).unwrap_or_default(),
        });
        return Ok(Some(Described {
            kind: "classic",
            state: found.group_state.to_string(),
            assignor: found.protocol_data.to_string(),
            members: members.collect(),
        }));
    }
    // The newer protocol's groups are dead to the older question.
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
    let answer = match client.call_once(&to, Lane::Main, &request, Duration::ZERO).await {
        Err(Error::Unsupported { .. }) => return Ok(None),
        other => other?,
    };
    let Some(found) = answer.groups.first() else { return Ok(None) };
    match ResponseError::try_from_code(found.error_code) {
        None => {}
        Some(ResponseError::GroupIdNotFound | ResponseError::UnsupportedVersion) => return Ok(None),
        Some(error) => {
            return Err(Error::refused(error.code(), what(), found.error_message.as_ref().map(|m| m.as_str())));
        }
    }
    let members = found.members.iter().map(|m| {
        let topics = m.assignment.topic_partitions.iter();
        Reader {
            id: m.member_id.to_string(),
            instance: m.instance_id.as_ref().map(ToString::to_string),
            client: m.client_id.to_string(),
            host: m.client_host.to_string(),
            partitions: topics.flat_map(|t| t.partitions.iter().map(|p| (t.topic_name.to_string(), *p))).collect(),
        }
    });
    Ok(Some(Described {
        kind: "consumer",
        state: found.group_state.to_string(),
        assignor: found.assignor_name.to_string(),
        members: members.collect(),
    }))
}

/// Where partitions end, of those that are there.
pub async fn ends(client: &Client, places: &BTreeSet<Place>) -> Result<HashMap<Place, i64>, Error> {
    let topics: BTreeSet<&str> = places.iter().map(|(topic, _)| topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    let found = client.refresh(Some(&topics)).await?;
    let there = |(topic, partition): &Place| {
        found.topics.get(topic).is_some_and(|t| t.partitions.get(partition).is_some_and(|p| p.leader.is_some()))
    };
    let wanted: Vec<(Place, i64)> = places.iter().filter(|p| there(p)).map(|p| (p.clone(), LATEST)).collect();
    if wanted.is_empty() { Ok(HashMap::new()) } else { client.offsets(&wanted, Isolation::Uncommitted).await }
}

pub async fn run(client: &Client, form: Form, groups: &[String], progress: &Progress) -> Result<()> {
    let mut all = Vec::new();
    for (i, group) in groups.iter().enumerate() {
        let Some(described) = describe(client, group).await? else {
            return Err(no_group(client, group).await.into());
        };
        let offsets = committed(client, group, None).await?;
        let rows = rows(client, group, &described, &offsets).await?;
        progress.add(1);
        match form {
            Form::Json => all.push(json!({
                "group": group,
                "type": described.kind,
                "state": described.state,
                "assignor": described.assignor,
                "members": described.members.iter().map(member).collect::<Vec<_>>(),
                "partitions": rows.json(),
            })),
            Form::Table => {
                if i > 0 {
                    say("\n")?;
                }
                let count = described.members.len();
                let members = if count == 1 { "1 member".to_string() } else { format!("{count} members") };
                let by =
                    if described.assignor.is_empty() { String::new() } else { format!(", {}", described.assignor) };
                say_line(&format!("group \"{group}\": {}, {members}{by} ({})", described.state, described.kind))?;
                if rows.is_empty() {
                    note("it has neither offsets nor partitions");
                } else {
                    say(&rows.text())?;
                }
            }
        }
    }
    if form == Form::Json { say_json(&Json::Array(all)) } else { Ok(()) }
}

fn member(reader: &Reader) -> Json {
    let partitions: Vec<Json> = reader.partitions.iter().map(|(t, p)| json!({"topic": t, "partition": p})).collect();
    json!({
        "id": reader.id, "instance": reader.instance, "client": reader.client, "host": reader.host,
        "partitions": partitions,
    })
}

async fn rows(client: &Client, group: &str, described: &Described, offsets: &BTreeMap<Place, i64>) -> Result<Rows> {
    let mut readers: HashMap<&Place, &Reader> = HashMap::new();
    for reader in &described.members {
        readers.extend(reader.partitions.iter().map(|place| (place, reader)));
    }
    let places: BTreeSet<Place> = offsets.keys().chain(readers.keys().copied()).cloned().collect();
    let ends = ends(client, &places).await?;
    let mut rows = Rows::new(&[
        ("GROUP", "group"),
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("CURRENT-OFFSET", "current_offset"),
        ("LOG-END-OFFSET", "log_end_offset"),
        ("LAG", "lag"),
        ("CONSUMER-ID", "consumer_id"),
        ("HOST", "host"),
        ("CLIENT-ID", "client_id"),
    ]);
    for place in &places {
        let (current, end) = (offsets.get(place).copied(), ends.get(place).copied());
        let lag = current.zip(end).map(|(current, end)| (end - current).max(0));
        let reader = readers.get(place);
        rows.push(vec![
            json!(group),
            json!(place.0),
            json!(place.1),
            json!(current),
            json!(end),
            json!(lag),
            json!(reader.map(|r| &r.id)),
            json!(reader.map(|r| &r.host)),
            json!(reader.map(|r| &r.client)),
        ]);
    }
    Ok(rows)
}
