//! `millpond acl`: who may do what, as the broker's authorizer keeps it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};
use serde_json::json;

use super::connect::Connect;
use super::report::{Form, Rows, Shown, confirm, counted, note, say, say_json, say_line};
use super::usage::usage;
use crate::kafka::{Client, Error, Lane, To, text};

const ANY: i8 = 1;
const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
const TRANSACTIONAL_ID: i8 = 5;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const DENY: i8 = 2;
const ALLOW: i8 = 3;
/// The one resource of its kind.
const CLUSTER_NAME: &str = "kafka-cluster";

#[derive(Args)]
pub struct AclArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Subcommand)]
enum Action {
    /// Give rights, or deny them
    Add(Rule),
    /// Show rights: all, or those that fit
    List(Rule),
    /// Take rights away that fit
    Remove {
        #[command(flatten)]
        rule: Rule,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Args, Clone, Debug)]
struct Rule {
    /// Who, as User:NAME or NAME; "*" is everybody; can be repeated
    #[arg(long, value_name = "USER")]
    principal: Vec<String>,
    /// Deny instead of allow
    #[arg(long)]
    deny: bool,
    /// From this address; can be repeated [default: from everywhere]
    #[arg(long, value_name = "ADDRESS")]
    host: Vec<String>,
    /// What; can be repeated [default: all]
    #[arg(short, long, value_enum, ignore_case = true, value_name = "NAME")]
    operation: Vec<Operation>,
    /// What a producer needs: Write, Describe and Create on the topics
    #[arg(long, conflicts_with_all = ["operation", "consumer"])]
    producer: bool,
    /// What a consumer needs: Read and Describe on the topics, Read on the groups
    #[arg(long, conflicts_with = "operation")]
    consumer: bool,
    /// On this topic; "*" is all; can be repeated
    #[arg(short, long, value_name = "NAME")]
    topic: Vec<String>,
    /// On this consumer group; "*" is all; can be repeated
    #[arg(short, long, value_name = "NAME")]
    group: Vec<String>,
    /// On this transactional id; can be repeated
    #[arg(long, value_name = "NAME")]
    transactional_id: Vec<String>,
    /// On the cluster
    #[arg(long)]
    cluster: bool,
    /// The names are beginnings of names
    #[arg(long)]
    prefixed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
#[repr(i8)]
enum Operation {
    All = 2,
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
}

impl Operation {
    /// Those that requests ask for on such a resource, as Kafka's own tool has them. `All` means each of them.
    fn on(resource: i8) -> &'static [Self] {
        use Operation as O;
        match resource {
            TOPIC => {
                &[O::Read, O::Write, O::Create, O::Delete, O::Alter, O::Describe, O::DescribeConfigs, O::AlterConfigs]
            }
            GROUP => &[O::Read, O::Delete, O::Describe, O::DescribeConfigs, O::AlterConfigs],
            CLUSTER => &[
                O::Create,
                O::Alter,
                O::Describe,
                O::ClusterAction,
                O::DescribeConfigs,
                O::AlterConfigs,
                O::IdempotentWrite,
            ],
            TRANSACTIONAL_ID => &[O::Write, O::Describe],
            _ => &[],
        }
    }
}

fn operation_name(number: i8) -> String {
    let known = Operation::value_variants().iter().find(|o| **o as i8 == number);
    known.map_or_else(|| format!("{number}"), |o| format!("{o:?}"))
}

fn resource_name(number: i8) -> &'static str {
    match number {
        TOPIC => "topic",
        GROUP => "group",
        CLUSTER => "cluster",
        TRANSACTIONAL_ID => "transactional-id",
        6 => "delegation-token",
        7 => "user",
        _ => "unknown",
    }
}

fn pattern_name(number: i8) -> &'static str {
    match number {
        LITERAL => "literal",
        PREFIXED => "prefixed",
        _ => "unknown",
    }
}

/// One right, or in filters one set of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    resource: i8,
    name: Option<String>,
    pattern: i8,
    principal: Option<String>,
    host: Option<String>,
    operation: i8,
    permission: i8,
}

fn principal(text: &str) -> String {
    if text.contains(':') { text.to_string() } else { format!("User:{text}") }
}

impl Rule {
    fn resources(&self) -> Vec<(i8, Option<String>)> {
        let named = |kind: i8, names: &[String]| names.iter().map(|n| (kind, Some(n.clone()))).collect::<Vec<_>>();
        let mut all = named(TOPIC, &self.topic);
        all.extend(named(GROUP, &self.group));
        all.extend(named(TRANSACTIONAL_ID, &self.transactional_id));
        if self.cluster {
            all.push((CLUSTER, Some(CLUSTER_NAME.to_string())));
        }
        all
    }

    /// Operations on one kind of resource.
    fn operations(&self, resource: i8) -> Result<Vec<i8>> {
        use Operation as O;
        let numbers = |all: &[Operation]| all.iter().map(|o| *o as i8).collect::<Vec<_>>();
        Ok(match (self.producer, self.consumer, resource) {
            (true, _, TOPIC) => numbers(&[O::Write, O::Describe, O::Create]),
            (true, _, TRANSACTIONAL_ID) => numbers(&[O::Write, O::Describe]),
            (true, _, CLUSTER) => numbers(&[O::IdempotentWrite]),
            (_, true, TOPIC) => numbers(&[O::Read, O::Describe]),
            (_, true, GROUP) => numbers(&[O::Read]),
            (false, false, _) if self.operation.is_empty() => numbers(&[O::All]),
            (false, false, _) => numbers(&self.operation),
            _ => {
                let resource = resource_name(resource);
                return Err(usage(format!("--producer and --consumer say nothing about a {resource}")));
            }
        })
    }

    /// Every right that is meant, one by one.
    fn entries(&self) -> Result<Vec<Entry>> {
        if self.principal.is_empty() {
            return Err(usage("it is not said who; --principal User:NAME"));
        }
        let resources = self.resources();
        if resources.is_empty() {
            let there = "--topic, --group, --transactional-id and --cluster";
            return Err(usage(format!("it is not said on what; there are {there}")));
        }
        if self.consumer && (self.topic.is_empty() || self.group.is_empty()) {
            return Err(usage("a consumer needs rights on topics and on groups: --topic and --group"));
        }
        let hosts = if self.host.is_empty() { vec!["*".to_string()] } else { self.host.clone() };
        let mut entries = Vec::new();
        for (resource, name) in resources {
            for operation in self.operations(resource)? {
                let on = Operation::on(resource);
                if operation != Operation::All as i8 && on.iter().all(|o| *o as i8 != operation) {
                    let names: Vec<String> = on.iter().map(|o| format!("{o:?}")).collect();
                    return Err(usage(format!(
                        "{} means nothing on a {}; there are All, {}",
                        operation_name(operation),
                        resource_name(resource),
                        names.join(", ")
                    )));
                }
                for who in &self.principal {
                    for host in &hosts {
                        entries.push(Entry {
                            resource,
                            name: name.clone(),
                            pattern: if self.prefixed && resource != CLUSTER { PREFIXED } else { LITERAL },
                            principal: Some(principal(who)),
                            host: Some(host.clone()),
                            operation,
                            permission: if self.deny { DENY } else { ALLOW },
                        });
                    }
                }
            }
        }
        Ok(entries)
    }

    /// What is not said fits everything.
    fn filters(&self) -> Result<Vec<Entry>> {
        let mut resources = self.resources();
        if resources.is_empty() {
            resources.push((ANY, None));
        }
        let some = |all: &[String]| {
            let listed: Vec<Option<String>> = all.iter().cloned().map(Some).collect();
            if listed.is_empty() { vec![None] } else { listed }
        };
        let mut filters = Vec::new();
        for (resource, name) in resources {
            let operations = match self.producer || self.consumer || !self.operation.is_empty() {
                true => self.operations(resource)?,
                false => vec![ANY],
            };
            for operation in operations {
                for who in some(&self.principal) {
                    for host in some(&self.host) {
                        filters.push(Entry {
                            resource,
                            name: name.clone(),
                            pattern: match (self.prefixed, &name) {
                                (true, _) => PREFIXED,
                                (false, Some(_)) => LITERAL,
                                (false, None) => ANY,
                            },
                            principal: who.as_deref().map(principal),
                            host,
                            operation,
                            permission: if self.deny { DENY } else { ANY },
                        });
                    }
                }
            }
        }
        Ok(filters)
    }
}

pub async fn run(args: AclArgs) -> Result<ExitCode> {
    // After what is wanted is understood: whoever logs in may be asked for a password.
    let client = || args.connect.client();
    match args.action {
        Action::Add(rule) => {
            let entries = rule.entries()?;
            let client = client()?;
            add(&client, &entries).await?;
        }
        Action::List(rule) => {
            let filters = rule.filters()?;
            let client = client()?;
            let found = list(&client, &filters).await?;
            show(&found, args.shown.output)?;
        }
        Action::Remove { rule, yes } => {
            let filters = rule.filters()?;
            let client = client()?;
            let found = list(&client, &filters).await?;
            if found.is_empty() {
                bail!("no right fits that; \"millpond acl list\" shows those there are");
            }
            show(&found, args.shown.output)?;
            let these = match found.len() {
                1 => "this right".to_string(),
                count => format!("these {count} rights"),
            };
            confirm(yes, &format!("take away {these}"))?;
            remove(&client, &filters).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(client: &Client, entries: &[Entry]) -> Result<()> {
    let creations = entries.iter().map(|e| {
        AclCreation::default()
            .with_resource_type(e.resource)
            .with_resource_name(text(e.name.as_deref().unwrap_or_default()))
            .with_resource_pattern_type(e.pattern)
            .with_principal(text(e.principal.as_deref().unwrap_or_default()))
            .with_host(text(e.host.as_deref().unwrap_or_default()))
            .with_operation(e.operation)
            .with_permission_type(e.permission)
    });
    let request = CreateAclsRequest::default().with_creations(creations.collect());
    let answer = client.call_once(&To::Controller, Lane::Main, &request, Duration::ZERO).await?;
    for (result, entry) in answer.results.iter().zip(entries) {
        let what = || {
            let name = entry.name.as_deref().unwrap_or_default();
            let (operation, resource) = (operation_name(entry.operation), resource_name(entry.resource));
            format!("cannot add the right {operation} on {resource} \"{name}\"")
        };
        Error::check(result.error_code, what, result.error_message.as_ref().map(|m| m.as_str()))?;
    }
    say_rights(entries.len(), "added")
}

fn say_rights(count: usize, done: &str) -> Result<()> {
    let are = if count == 1 { "is" } else { "are" };
    say_line(&format!("{} {are} {done}", counted(count as u64, "right")))
}

async fn list(client: &Client, filters: &[Entry]) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for filter in filters {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(filter.resource)
            .with_resource_name_filter(filter.name.as_deref().map(text))
            .with_pattern_type_filter(filter.pattern)
            .with_principal_filter(filter.principal.as_deref().map(text))
            .with_host_filter(filter.host.as_deref().map(text))
            .with_operation(filter.operation)
            .with_permission_type(filter.permission);
        let answer = client.call_once(&To::Any, Lane::Main, &request, Duration::ZERO).await?;
        let message = answer.error_message.as_ref().map(|m| m.as_str());
        Error::check(answer.error_code, || "cannot list rights".to_string(), message)?;
        for resource in &answer.resources {
            for acl in &resource.acls {
                let entry = Entry {
                    resource: resource.resource_type,
                    name: Some(resource.resource_name.to_string()),
                    pattern: resource.pattern_type,
                    principal: Some(acl.principal.to_string()),
                    host: Some(acl.host.to_string()),
                    operation: acl.operation,
                    permission: acl.permission_type,
                };
                if !found.contains(&entry) {
                    found.push(entry);
                }
            }
        }
    }
    found.sort_by(|a, b| {
        (a.resource, &a.name, &a.principal, a.operation).cmp(&(b.resource, &b.name, &b.principal, b.operation))
    });
    Ok(found)
}

fn show(entries: &[Entry], form: Form) -> Result<()> {
    let mut rows = Rows::new(&[
        ("RESOURCE", "resource"),
        ("NAME", "name"),
        ("PATTERN", "pattern"),
        ("PRINCIPAL", "principal"),
        ("HOST", "host"),
        ("OPERATION", "operation"),
        ("PERMISSION", "permission"),
    ]);
    for e in entries {
        rows.push(vec![
            json!(resource_name(e.resource)),
            json!(e.name),
            json!(pattern_name(e.pattern)),
            json!(e.principal),
            json!(e.host),
            json!(operation_name(e.operation)),
            json!(if e.permission == DENY { "deny" } else { "allow" }),
        ]);
    }
    match form {
        Form::Json => say_json(&rows.json()),
        Form::Table if rows.is_empty() => {
            note("there are no rights that fit");
            Ok(())
        }
        Form::Table => say(&rows.text()),
    }
}

async fn remove(client: &Client, filters: &[Entry]) -> Result<()> {
    let wanted = filters.iter().map(|f| {
        DeleteAclsFilter::default()
            .with_resource_type_filter(f.resource)
            .with_resource_name_filter(f.name.as_deref().map(text))
            .with_pattern_type_filter(f.pattern)
            .with_principal_filter(f.principal.as_deref().map(text))
            .with_host_filter(f.host.as_deref().map(text))
            .with_operation(f.operation)
            .with_permission_type(f.permission)
    });
    let request = DeleteAclsRequest::default().with_filters(wanted.collect());
    let answer = client.call_once(&To::Controller, Lane::Main, &request, Duration::ZERO).await?;
    let what = || "cannot take rights away".to_string();
    let mut count = 0;
    for result in &answer.filter_results {
        Error::check(result.error_code, what, result.error_message.as_ref().map(|m| m.as_str()))?;
        for acl in &result.matching_acls {
            Error::check(acl.error_code, what, acl.error_message.as_ref().map(|m| m.as_str()))?;
            count += 1;
        }
    }
    say_rights(count, "taken away")
}
