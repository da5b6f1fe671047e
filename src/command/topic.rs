//! `millpond topic`: topics of a broker are created, shown, changed and deleted.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeLogDirsRequest,
};
use serde_json::{Value as Json, json};

use super::config::{Resource, alter, describe, set_pair};
use super::connect::Connect;
use super::report::{Form, Rows, Shown, confirm, counted, note, say, say_json, say_line, size};
use super::usage::usage;
use crate::kafka::client::{EARLIEST, Isolation, LATEST, Place};
use crate::kafka::metadata::Topic;
use crate::kafka::{Client, Error, Lane, To, topic_name};

/// Creating and deleting may wait for every broker of a cluster.
const BROKER_TIMEOUT_MS: i32 = 30_000;
/// Topics that one request deletes.
const DELETED_AT_ONCE: usize = 100;

#[derive(Args)]
pub struct TopicArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Subcommand)]
enum Action {
    /// Create a topic
    Create {
        topic: String,
        /// How many partitions [default: what the broker does]
        #[arg(short, long, value_name = "N")]
        partitions: Option<i32>,
        /// On how many brokers each partition lies [default: what the broker does]
        #[arg(long, value_name = "N")]
        replication_factor: Option<i16>,
        /// A setting of the topic; can be repeated
        #[arg(short, long = "set", value_name = "NAME=VALUE", value_parser = set_pair)]
        set: Vec<(String, String)>,
        /// Do nothing where the topic is there already
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Show all topics
    List {
        /// Those that the broker made for itself, too
        #[arg(long)]
        internal: bool,
    },
    /// Show a topic's partitions with their offsets and sizes, and its settings
    Describe { topic: String },
    /// Give a topic more partitions, or change its settings
    Alter {
        topic: String,
        /// How many partitions it shall have, more than before
        #[arg(short, long, value_name = "N")]
        partitions: Option<i32>,
        /// Change a setting; can be repeated
        #[arg(short, long = "set", value_name = "NAME=VALUE", value_parser = set_pair)]
        set: Vec<(String, String)>,
        /// Take a setting back to its default; can be repeated
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
    /// Delete topics with all their records
    Delete {
        #[arg(required = true)]
        topics: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Topics that are not there are no error
        #[arg(long)]
        if_exists: bool,
    },
    /// Delete the oldest records of a topic's partitions
    DeleteRecords {
        topic: String,
        /// The first offset that stays; "end" leaves nothing
        #[arg(long, value_name = "OFFSET", value_parser = before, allow_hyphen_values = true)]
        before: i64,
        /// Only in this partition; can be repeated [default: in all]
        #[arg(short, long, value_name = "N")]
        partition: Vec<i32>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Kafka's own word for "all records".
const ALL_RECORDS: i64 = -1;

fn before(text: &str) -> Result<i64, String> {
    match (text, text.parse()) {
        ("end", _) => Ok(ALL_RECORDS),
        (_, Ok(offset)) if offset >= 0 => Ok(offset),
        _ => Err("expected an offset, or \"end\"".to_string()),
    }
}

pub async fn run(args: TopicArgs) -> Result<ExitCode> {
    if let Action::Alter { partitions: None, set, unset, .. } = &args.action
        && set.is_empty()
        && unset.is_empty()
    {
        return Err(usage("nothing is to be changed; there are --partitions, --set and --unset"));
    }
    let client = args.connect.client()?;
    let (form, shown) = (args.shown.output, &args.shown);
    match args.action {
        Action::Create { topic, partitions, replication_factor, set, if_not_exists } => {
            create(&client, &topic, partitions, replication_factor, &set, if_not_exists).await?;
        }
        Action::List { internal } => list(&client, form, internal).await?,
        Action::Describe { topic } => show(&client, form, &topic).await?,
        Action::Alter { topic, partitions, set, unset } => {
            client.topic(&topic, false).await?;
            if let Some(count) = partitions {
                grow(&client, &topic, count).await?;
                say_line(&format!("topic \"{topic}\" has {count} partitions"))?;
            }
            if !set.is_empty() || !unset.is_empty() {
                alter(&client, &Resource::Topic(topic.clone()), &set, &unset).await?;
                say_line(&format!("settings of topic \"{topic}\" are changed"))?;
            }
        }
        Action::Delete { topics, yes, if_exists } => delete(&client, shown, &topics, yes, if_exists).await?,
        Action::DeleteRecords { topic, before, partition, yes } => {
            delete_records(&client, shown, &topic, before, &partition, yes).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(
    client: &Client,
    topic: &str,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
    set: &[(String, String)],
    if_not_exists: bool,
) -> Result<()> {
    let configs = set.iter().map(|(name, value)| {
        CreatableTopicConfig::default().with_name(crate::kafka::text(name)).with_value(Some(crate::kafka::text(value)))
    });
    let wanted = CreatableTopic::default()
        .with_name(topic_name(topic))
        .with_num_partitions(partitions.unwrap_or(-1))
        .with_replication_factor(replication_factor.unwrap_or(-1))
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(BROKER_TIMEOUT_MS);
    let wait = Duration::from_millis(BROKER_TIMEOUT_MS as u64);
    let answer = client.call_once(&To::Controller, Lane::Main, &request, wait).await?;
    let found = answer.topics.first().context("the broker's answer does not speak of the topic")?;
    let message = found.error_message.as_ref().map(|m| m.as_str());
    let what = || format!("cannot create topic \"{topic}\"");
    match Error::check(found.error_code, what, message) {
        Err(e) if if_not_exists && e.code() == Some(kafka_protocol::error::ResponseError::TopicAlreadyExists) => {
            say_line(&format!("topic \"{topic}\" is there already"))
        }
        Err(e) => Err(e.into()),
        Ok(()) => {
            // A cluster may take a moment until all know it.
            let count = client.topic(topic, false).await.map_or(0, |t| t.partitions.len());
            say_line(&format!("topic \"{topic}\" is created, with {}", counted(count as u64, "partition")))
        }
    }
}

async fn list(client: &Client, form: Form, internal: bool) -> Result<()> {
    let found = client.refresh(None).await?;
    let mut rows = Rows::new(&[("TOPIC", "topic"), ("PARTITIONS", "partitions"), ("REPLICAS", "replicas")]);
    for (name, topic) in found.topics.iter().filter(|(_, t)| internal || !t.internal) {
        let replicas = topic.partitions.values().map(|p| p.replicas.len()).max().unwrap_or(0);
        rows.push(vec![json!(name), json!(topic.partitions.len()), json!(replicas)]);
    }
    match form {
        Form::Json => say_json(&rows.json()),
        Form::Table if rows.is_empty() => {
            note("there are no topics, or none that this user may see");
            Ok(())
        }
        Form::Table => say(&rows.text()),
    }
}

/// Bytes of each partition on the disks of the brokers that lead it; empty where this user may not know.
async fn sizes(client: &Client, name: &str, topic: &Topic) -> HashMap<i32, u64> {
    let mut found = HashMap::new();
    let leaders: BTreeMap<i32, ()> = topic.partitions.values().filter_map(|p| Some((p.leader?, ()))).collect();
    for leader in leaders.into_keys() {
        let request = DescribeLogDirsRequest::default().with_topics(None);
        let answer = client.call_once(&To::Broker(leader), Lane::Main, &request, Duration::ZERO).await;
        let Ok(answer) = answer else { continue };
        for partition in answer
            .results
            .iter()
            .flat_map(|d| &d.topics)
            .filter(|t| t.name.0.as_str() == name)
            .flat_map(|t| &t.partitions)
        {
            let leads = topic.partitions.get(&partition.partition_index).is_some_and(|p| p.leader == Some(leader));
            if leads && !partition.is_future_key {
                found.insert(partition.partition_index, partition.partition_size.max(0) as u64);
            }
        }
    }
    found
}

pub async fn both_ends(
    client: &Client,
    topic: &str,
    partitions: impl Iterator<Item = i32> + Clone,
) -> Result<(HashMap<Place, i64>, HashMap<Place, i64>)> {
    let places = |time: i64| partitions.clone().map(|p| ((topic.to_string(), p), time)).collect::<Vec<_>>();
    let first = client.offsets(&places(EARLIEST), Isolation::Uncommitted).await?;
    let end = client.offsets(&places(LATEST), Isolation::Uncommitted).await?;
    Ok((first, end))
}

async fn show(client: &Client, form: Form, name: &str) -> Result<()> {
    let topic = client.topic(name, false).await?;
    let (first, end) = both_ends(client, name, topic.partitions.keys().copied()).await?;
    let sizes = sizes(client, name, &topic).await;
    let mut settings = describe(client, &Resource::Topic(name.to_string()), true).await.unwrap_or_default();
    // Compaction leaves offsets without records; so it may be where this user may not see the settings.
    let policy = settings.iter().find(|s| s.name == "cleanup.policy").and_then(|s| s.value.as_deref());
    let each_has_a_record = policy.is_some_and(|policy| policy.split(',').all(|one| one.trim() != "compact"));
    settings.retain(|s| s.own);
    let mut rows = Rows::new(&[
        ("PARTITION", "partition"),
        ("FIRST", "first_offset"),
        ("END", "end_offset"),
        (if each_has_a_record { "RECORDS" } else { "OFFSETS" }, "offsets"),
        ("SIZE", "bytes"),
        ("LEADER", "leader"),
        ("REPLICAS", "replicas"),
        ("IN SYNC", "in_sync"),
    ]);
    let (mut offsets, mut bytes) = (0u64, 0);
    for (number, partition) in &topic.partitions {
        let place = (name.to_string(), *number);
        let (first, end) = (first.get(&place).copied().unwrap_or(0), end.get(&place).copied().unwrap_or(0));
        let on_disk = sizes.get(number).copied();
        offsets += end.saturating_sub(first).max(0) as u64;
        bytes += on_disk.unwrap_or(0);
        let shown = match form {
            Form::Table => on_disk.map(size).map_or(Json::Null, Json::from),
            Form::Json => on_disk.map_or(Json::Null, Json::from),
        };
        rows.push(vec![
            json!(number),
            json!(first),
            json!(end),
            json!(end - first),
            shown,
            json!(partition.leader),
            json!(partition.replicas),
            json!(partition.in_sync),
        ]);
    }
    if form == Form::Json {
        let settings: serde_json::Map<_, _> =
            settings.iter().map(|s| (s.name.clone(), s.value.clone().map_or(Json::Null, Json::from))).collect();
        return say_json(&json!({
            "topic": name,
            "id": topic.id.map(|id| id.to_string()),
            "internal": topic.internal,
            "partitions": rows.json(),
            "settings": settings,
        }));
    }
    let id = topic.id.map(|id| format!(", id {id}")).unwrap_or_default();
    let partitions = counted(topic.partitions.len() as u64, "partition");
    let held = counted(offsets, if each_has_a_record { "record" } else { "offset" });
    let on_disk = if sizes.is_empty() { String::new() } else { format!(", {}", size(bytes)) };
    say_line(&format!("topic \"{name}\": {partitions}, {held}{on_disk}{id}"))?;
    say(&rows.text())?;
    for setting in &settings {
        say_line(&format!("{} = {}", setting.name, setting.value.as_deref().unwrap_or("(hidden)")))?;
    }
    Ok(())
}

async fn grow(client: &Client, topic: &str, count: i32) -> Result<()> {
    let wanted = CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(count).with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(BROKER_TIMEOUT_MS);
    let wait = Duration::from_millis(BROKER_TIMEOUT_MS as u64);
    let answer = client.call_once(&To::Controller, Lane::Main, &request, wait).await?;
    let found = answer.results.first().context("the broker's answer does not speak of the topic")?;
    let message = found.error_message.as_ref().map(|m| m.as_str());
    Ok(Error::check(found.error_code, || format!("cannot give topic \"{topic}\" {count} partitions"), message)?)
}

async fn delete(client: &Client, shown: &Shown, topics: &[String], yes: bool, if_exists: bool) -> Result<()> {
    let mut there = Vec::new();
    for topic in topics {
        match client.topic(topic, false).await {
            Ok(_) => there.push(topic),
            Err(Error::Missing(_)) if if_exists => note(&format!("there is no topic \"{topic}\"")),
            Err(e) => return Err(e.into()),
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = there.iter().map(|t| format!("\"{t}\"")).collect();
    confirm(yes, &format!("delete {} with all records", names.join(", ")))?;
    let progress = shown.progress("topics");
    let work = async {
        let mut failed = None;
        for some in there.chunks(DELETED_AT_ONCE) {
            let request = DeleteTopicsRequest::default()
                .with_topic_names(some.iter().map(|t| topic_name(t)).collect())
                .with_timeout_ms(BROKER_TIMEOUT_MS);
            let wait = Duration::from_millis(BROKER_TIMEOUT_MS as u64);
            let answer = client.call_once(&To::Controller, Lane::Main, &request, wait).await?;
            for found in &answer.responses {
                let name = found.name.as_ref().map_or("", |n| n.0.as_str());
                let message = found.error_message.as_ref().map(|m| m.as_str());
                match Error::check(found.error_code, || format!("cannot delete topic \"{name}\""), message) {
                    Ok(()) => {
                        progress.add(1);
                        say_line(&format!("topic \"{name}\" is deleted"))?;
                    }
                    Err(e) => {
                        if let Some(earlier) = failed.replace(e) {
                            note(&format!("millpond: {earlier}"));
                        }
                    }
                }
            }
        }
        failed.map_or(Ok(()), |e| Err(e.into()))
    };
    progress.during(there.len(), "are deleted", work).await
}

async fn delete_records(
    client: &Client,
    shown: &Shown,
    name: &str,
    offset: i64,
    only: &[i32],
    yes: bool,
) -> Result<()> {
    let topic = client.topic(name, false).await?;
    let partitions = chosen(name, &topic, only)?;
    let what =
        if offset == ALL_RECORDS { "all records".to_string() } else { format!("the records before offset {offset}") };
    confirm(
        yes,
        &format!("delete {what} in {} of {} partitions of topic \"{name}\"", partitions.len(), topic.partitions.len()),
    )?;
    let wanted = partitions.iter().map(|p| ((name.to_string(), *p), ())).collect();
    let mut rows = Rows::new(&[("PARTITION", "partition"), ("FIRST", "first_offset")]);
    let progress = shown.progress("partitions");
    let work = async {
        for (leader, places) in client.by_leader(wanted).await? {
            let wanted = places.iter().map(|((_, partition), ())| {
                DeleteRecordsPartition::default().with_partition_index(*partition).with_offset(offset)
            });
            let wanted = DeleteRecordsTopic::default().with_name(topic_name(name)).with_partitions(wanted.collect());
            let request = DeleteRecordsRequest::default().with_topics(vec![wanted]).with_timeout_ms(BROKER_TIMEOUT_MS);
            let wait = Duration::from_millis(BROKER_TIMEOUT_MS as u64);
            let answer = client.call_once(&To::Broker(leader), Lane::Main, &request, wait).await?;
            for p in answer.topics.iter().flat_map(|t| &t.partitions) {
                let what = || format!("cannot delete records of partition {} of topic \"{name}\"", p.partition_index);
                Error::check(p.error_code, what, None)?;
                progress.add(1);
                rows.push(vec![json!(p.partition_index), json!(p.low_watermark)]);
            }
        }
        anyhow::Ok(())
    };
    progress.during(partitions.len(), "are done", work).await?;
    match shown.output {
        Form::Json => say_json(&rows.json()),
        Form::Table => say(&rows.text()),
    }
}

/// Those partitions that are named, or all; one that is not there is an error.
pub fn chosen(name: &str, topic: &Topic, only: &[i32]) -> Result<Vec<i32>> {
    if let Some(missing) = only.iter().find(|p| !topic.partitions.contains_key(p)) {
        let count = topic.partitions.len();
        let last = topic.partitions.keys().next_back().copied().unwrap_or(0);
        bail!("topic \"{name}\" has no partition {missing}; it has {count}, 0 to {last}");
    }
    let all = topic.partitions.keys().copied();
    Ok(if only.is_empty() { all.collect() } else { all.filter(|p| only.contains(p)).collect() })
}
