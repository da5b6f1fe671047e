//! `millpond group`: consumer groups with their lag, their offsets set anew, deleted.

mod describe;
mod reset;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::{DeleteGroupsRequest, ListGroupsRequest, OffsetDeleteRequest};
use serde_json::json;

use super::connect::Connect;
use super::report::{Form, Rows, Shown, confirm, note, say, say_json, say_line};
use crate::kafka::member::committed;
use crate::kafka::metadata::{near, what_there_is};
use crate::kafka::{Client, Error, Lane, To, group_id, topic_name};

#[derive(Args)]
pub struct GroupArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Subcommand)]
enum Action {
    /// Show all groups
    List,
    /// Show where groups are in each partition, how far behind, and who reads
    Describe {
        #[arg(required_unless_present = "all")]
        groups: Vec<String>,
        /// All groups
        #[arg(long, conflicts_with = "groups")]
        all: bool,
    },
    /// Say where a group shall go on reading; without --execute only what would be done is shown
    ResetOffsets(reset::ResetArgs),
    /// Delete groups with their offsets
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Forget a group's offsets of a topic
    DeleteOffsets {
        group: String,
        #[arg(short, long)]
        topic: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub async fn run(args: GroupArgs) -> Result<ExitCode> {
    let client = args.connect.client()?;
    let (form, shown) = (args.shown.output, &args.shown);
    match args.action {
        Action::List => list(&client, form).await?,
        Action::Describe { groups, all } => {
            let groups = if all { listed(&client).await?.into_iter().map(|g| g.name).collect() } else { groups };
            let progress = shown.progress("groups");
            let work = describe::run(&client, form, &groups, &progress);
            progress.during(groups.len(), "are shown", work).await?;
        }
        Action::ResetOffsets(args) => reset::run(&client, shown, args).await?,
        Action::Delete { groups, yes } => delete(&client, shown, &groups, yes).await?,
        Action::DeleteOffsets { group, topic, yes } => delete_offsets(&client, &group, &topic, yes).await?,
    }
    Ok(ExitCode::SUCCESS)
}

struct Listed {
    name: String,
    protocol: String,
    /// Empty where the broker does not say it.
    state: String,
    kind: String,
}

/// Every broker knows the groups that it keeps.
async fn listed(client: &Client) -> Result<Vec<Listed>, Error> {
    let brokers = client.refresh(Some(&[])).await?.brokers;
    let mut found = BTreeMap::new();
    for broker in brokers.into_keys() {
        let judge = |answer: &kafka_protocol::messages::ListGroupsResponse| {
            Error::check(answer.error_code, || format!("cannot list the groups of broker {broker}"), None)
        };
        let answer = client.call(&To::Broker(broker), &ListGroupsRequest::default(), judge).await?;
        for group in &answer.groups {
            let name = group.group_id.to_string();
            let listed = Listed {
                name: name.clone(),
                protocol: group.protocol_type.to_string(),
                state: group.group_state.to_string(),
                kind: group.group_type.to_lowercase(),
            };
            found.insert(name, listed);
        }
    }
    Ok(found.into_values().collect())
}

async fn list(client: &Client, form: Form) -> Result<()> {
    let mut rows = Rows::new(&[("GROUP", "group"), ("STATE", "state"), ("TYPE", "type"), ("PROTOCOL", "protocol")]);
    let some = |text: &str| (!text.is_empty()).then(|| text.to_string());
    for group in listed(client).await? {
        rows.push(vec![
            json!(group.name),
            json!(some(&group.state)),
            json!(some(&group.kind)),
            json!(some(&group.protocol)),
        ]);
    }
    match form {
        Form::Json => say_json(&rows.json()),
        Form::Table if rows.is_empty() => {
            note("there are no groups, or none that this user may see");
            Ok(())
        }
        Form::Table => say(&rows.text()),
    }
}

/// What to say of a group that is not there.
async fn no_group(client: &Client, group: &str) -> Error {
    let all = listed(client).await.unwrap_or_default();
    let names: Vec<String> =
        near(group, all.iter().map(|g| g.name.as_str())).iter().map(|n| format!("\"{n}\"")).collect();
    let more = match names.is_empty() {
        false => format!("did you mean {}?", names.join(" or ")),
        true => what_there_is("group", all.len()),
    };
    Error::Missing(format!("there is no group \"{group}\"; {more}"))
}

async fn delete(client: &Client, shown: &Shown, groups: &[String], yes: bool) -> Result<()> {
    for group in groups {
        if describe::describe(client, group).await?.is_none() {
            return Err(no_group(client, group).await.into());
        }
    }
    let names: Vec<String> = groups.iter().map(|t| format!("\"{t}\"")).collect();
    confirm(yes, &format!("delete the offsets of {}", names.join(", ")))?;
    let progress = shown.progress("groups");
    let work = async {
        for group in groups {
            let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
            let judge = |answer: &kafka_protocol::messages::DeleteGroupsResponse| {
                let mut codes = answer.results.iter().map(|r| r.error_code);
                codes.try_for_each(|code| Error::check(code, || format!("cannot delete group \"{group}\""), None))
            };
            client.call(&To::Group(group.clone()), &request, judge).await?;
            progress.add(1);
            say_line(&format!("group \"{group}\" is deleted"))?;
        }
        Ok(())
    };
    progress.during(groups.len(), "are deleted", work).await
}

async fn delete_offsets(client: &Client, group: &str, topic: &str, yes: bool) -> Result<()> {
    let known = committed(client, group, None).await?;
    let partitions: Vec<i32> = known.keys().filter(|(t, _)| t == topic).map(|(_, p)| *p).collect();
    if partitions.is_empty() {
        return Err(Error::Missing(format!("group \"{group}\" has no offsets of topic \"{topic}\"")).into());
    }
    confirm(
        yes,
        &format!("forget the offsets of group \"{group}\" in {} partitions of topic \"{topic}\"", partitions.len()),
    )?;
    let partitions = partitions.into_iter().map(|p| OffsetDeleteRequestPartition::default().with_partition_index(p));
    let wanted = OffsetDeleteRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect());
    let request = OffsetDeleteRequest::default().with_group_id(group_id(group)).with_topics(vec![wanted]);
    let answer = client.call_once(&To::Group(group.to_string()), Lane::Main, &request, Duration::ZERO).await?;
    let what = || format!("cannot forget the offsets of group \"{group}\" in topic \"{topic}\"");
    Error::check(answer.error_code, what, None)?;
    for partition in answer.topics.iter().flat_map(|t| &t.partitions) {
        Error::check(partition.error_code, what, None)?;
    }
    say_line(&format!("the offsets of group \"{group}\" in topic \"{topic}\" are deleted"))
}
