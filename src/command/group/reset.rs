//! Where a group goes on reading is set anew, as `kafka-consumer-groups --reset-offsets` does it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use clap::{ArgGroup, Args};
use serde_json::json;

use super::describe::{describe, ends};
use crate::command::consume::start::Start;
use crate::command::report::{Form, Rows, Shown, note, say, say_json};
use crate::command::time;
use crate::command::topic::chosen;
use crate::command::usage::usage;
use crate::kafka::Client;
use crate::kafka::client::{EARLIEST, Isolation, Place};
use crate::kafka::member::{commit, committed};

#[derive(Args)]
#[command(group(ArgGroup::new("to").required(true)), group(ArgGroup::new("of").required(true).multiple(true)))]
pub struct ResetArgs {
    group: String,
    /// Of this topic, or of some of its partitions; can be repeated
    #[arg(short, long, value_name = "TOPIC[:0,1]", group = "of")]
    topic: Vec<String>,
    /// Of all topics that the group has offsets of
    #[arg(long, group = "of", conflicts_with = "topic")]
    all_topics: bool,
    /// To the oldest record
    #[arg(long, group = "to")]
    to_earliest: bool,
    /// To the end
    #[arg(long, group = "to")]
    to_latest: bool,
    /// To this offset, or the nearest that there is
    #[arg(long, value_name = "OFFSET", group = "to")]
    to_offset: Option<i64>,
    /// To the first record of this time or later; ISO 8601, UTC where it says no zone
    #[arg(long, value_name = "TIME", group = "to", value_parser = datetime)]
    to_datetime: Option<i64>,
    /// So many records on, or back
    #[arg(long, value_name = "N", group = "to", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// So long before now: PT30M, P1D, 90s, 2h
    #[arg(long, value_name = "TIME", group = "to", value_parser = duration)]
    by_duration: Option<i64>,
    /// Do it
    #[arg(long)]
    execute: bool,
    /// Only show what would be done; this is the default
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
}

fn datetime(text: &str) -> Result<i64, String> {
    time::parse(text).ok_or_else(|| "expected a time such as 2026-01-31T12:00:00Z".to_string())
}

fn duration(text: &str) -> Result<i64, String> {
    time::duration(text).ok_or_else(|| "expected a duration such as PT30M, P1D, 90s or 2h".to_string())
}

pub async fn run(client: &Client, shown: &Shown, args: ResetArgs) -> Result<()> {
    let group = &args.group;
    let described = describe(client, group).await?;
    if let Some(found) = described.as_ref().filter(|d| !d.members.is_empty()) {
        let count = found.members.len();
        bail!("group \"{group}\" is {} with {count} members; stop them first", found.state);
    }
    let known = committed(client, group, None).await?;
    let places = places(client, &args, &known).await?;
    let progress = shown.progress("partitions");
    let found = targets(client, &args, &known, &places);
    let targets = progress.during(places.len(), "are set", found).await?;
    let mut rows = Rows::new(&[
        ("GROUP", "group"),
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("CURRENT-OFFSET", "current_offset"),
        ("NEW-OFFSET", "new_offset"),
    ]);
    for (place, target) in &targets {
        rows.push(vec![json!(group), json!(place.0), json!(place.1), json!(known.get(place)), json!(target)]);
    }
    if args.execute {
        progress.during(targets.len(), "are set", commit(client, group, -1, "", &targets)).await?;
    }
    match shown.output {
        Form::Json => say_json(&rows.json())?,
        Form::Table => say(&rows.text())?,
    }
    if !args.execute {
        let new = if described.is_none() { format!(" (there is no group \"{group}\" yet)") } else { String::new() };
        note(&format!("nothing was changed; --execute does it{new}"));
    }
    Ok(())
}

async fn places(client: &Client, args: &ResetArgs, known: &BTreeMap<Place, i64>) -> Result<BTreeSet<Place>> {
    if args.all_topics {
        if known.is_empty() {
            bail!("group \"{}\" has no offsets; name topics with --topic", args.group);
        }
        let all: BTreeSet<Place> = known.keys().cloned().collect();
        // A topic that was deleted has nothing to be set to.
        let there = ends(client, &all).await?;
        return Ok(all.into_iter().filter(|p| there.contains_key(p)).collect());
    }
    let mut places = BTreeSet::new();
    for text in &args.topic {
        let (name, only) = match text.rsplit_once(':') {
            None => (text.as_str(), Vec::new()),
            Some((name, numbers)) => {
                let parsed: Result<Vec<i32>, _> = numbers.split(',').map(str::parse).collect();
                let Ok(parsed) = parsed else {
                    return Err(usage(format!(
                        "\"{numbers}\" in --topic \"{text}\" are no partitions; expected TOPIC:0,1"
                    )));
                };
                (name, parsed)
            }
        };
        let topic = client.topic(name, false).await?;
        places.extend(chosen(name, &topic, &only)?.into_iter().map(|p| (name.to_string(), p)));
    }
    Ok(places)
}

async fn targets(
    client: &Client,
    args: &ResetArgs,
    known: &BTreeMap<Place, i64>,
    places: &BTreeSet<Place>,
) -> Result<BTreeMap<Place, i64>> {
    let list: Vec<Place> = places.iter().cloned().collect();
    let isolation = Isolation::Uncommitted;
    let start = if args.to_earliest {
        Start::Beginning
    } else if args.to_latest {
        Start::End
    } else if let Some(ms) = args.to_datetime {
        Start::Time(ms)
    } else if let Some(ms) = args.by_duration {
        let now = millpond_types::Clock::now_ms(&millpond_types::SystemClock);
        Start::Time(now.saturating_sub(ms).max(0))
    } else {
        return within(client, args, known, &list).await;
    };
    start.resolve(client, &list, isolation).await
}

/// By offset, not beyond what is there.
async fn within(
    client: &Client,
    args: &ResetArgs,
    known: &BTreeMap<Place, i64>,
    places: &[Place],
) -> Result<BTreeMap<Place, i64>> {
    let at: Vec<(Place, i64)> = places.iter().map(|p| (p.clone(), EARLIEST)).collect();
    let firsts = client.offsets(&at, Isolation::Uncommitted).await?;
    let ends = ends(client, &places.iter().cloned().collect()).await?;
    let mut found = BTreeMap::new();
    for place in places {
        let (topic, partition) = place;
        let (first, end) = (firsts.get(place).copied().unwrap_or(0), ends.get(place).copied().unwrap_or(0));
        let wanted = match (args.to_offset, args.shift_by, known.get(place)) {
            (Some(offset), _, _) => offset,
            (None, Some(shift), Some(current)) => current.saturating_add(shift),
            (None, Some(_), None) => bail!(
                "group \"{}\" has no offset in partition {partition} of topic \"{topic}\" that could be shifted",
                args.group
            ),
            (None, None, _) => bail!("it is not said where to"),
        };
        let target = wanted.clamp(first, end.max(first));
        if target != wanted {
            note(&format!(
                "millpond: partition {partition} of topic \"{topic}\" has {first} to {end}; {target} is taken for {wanted}"
            ));
        }
        found.insert(place.clone(), target);
    }
    Ok(found)
}
