//! `millpond config`: settings of topics, brokers and groups, as the broker keeps them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use serde_json::json;

use super::connect::Connect;
use super::report::{Form, Rows, Shown, note, say, say_json, say_line};
use super::usage::usage;
use crate::kafka::{Client, Error, Lane, To, text};

#[derive(Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Topic,
    Broker,
    Group,
}

#[derive(Subcommand)]
enum Action {
    /// Show settings: those that were changed, or all
    Describe {
        kind: Kind,
        /// The topic, the broker's number, or the group
        name: String,
        /// Defaults too
        #[arg(short, long)]
        all: bool,
    },
    /// Change settings
    Alter {
        kind: Kind,
        /// The topic, the broker's number, or the group
        name: String,
        /// Change a setting; can be repeated
        #[arg(short, long = "set", value_name = "NAME=VALUE", value_parser = set_pair)]
        set: Vec<(String, String)>,
        /// Take a setting back to its default; can be repeated
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
}

pub fn set_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_string(), value.trim().to_string())),
        _ => Err("expected NAME=VALUE".to_string()),
    }
}

#[derive(Clone, Debug)]
pub enum Resource {
    Topic(String),
    Broker(i32),
    Group(String),
}

impl Resource {
    fn of(kind: Kind, name: String) -> Result<Self> {
        Ok(match kind {
            Kind::Topic => Self::Topic(name),
            Kind::Group => Self::Group(name),
            Kind::Broker => match name.parse() {
                Ok(number) => Self::Broker(number),
                Err(_) => return Err(usage(format!("\"{name}\" is no broker's number"))),
            },
        })
    }

    fn number(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) => 4,
            Self::Group(_) => 32,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Topic(name) | Self::Group(name) => name.clone(),
            Self::Broker(number) => number.to_string(),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Topic(name) => format!("topic \"{name}\""),
            Self::Group(name) => format!("group \"{name}\""),
            Self::Broker(number) => format!("broker {number}"),
        }
    }

    /// A broker answers for its own settings, any for the others.
    async fn to(&self, client: &Client) -> Result<To, Error> {
        match self {
            Self::Broker(number) => {
                let found = client.refresh(Some(&[])).await?;
                if !found.brokers.contains_key(number) {
                    let there: Vec<String> = client.brokers().keys().map(ToString::to_string).collect();
                    return Err(Error::Missing(format!("there is no broker {number}; there is {}", there.join(", "))));
                }
                Ok(To::Broker(*number))
            }
            _ => Ok(To::Any),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Setting {
    pub name: String,
    /// `None`: it is secret.
    pub value: Option<String>,
    source: &'static str,
    read_only: bool,
    /// Somebody set it here; the others come from elsewhere.
    pub own: bool,
}

const DEFAULT: &str = "default";

fn source(number: i8) -> &'static str {
    match number {
        1 => "topic",
        2 => "broker",
        3 => "all brokers",
        4 => "broker's file",
        5 => DEFAULT,
        6 => "broker's log levels",
        8 => "group",
        _ => "unknown",
    }
}

pub async fn run(args: ConfigArgs) -> Result<ExitCode> {
    match args.action {
        Action::Describe { kind, name, all } => {
            let resource = Resource::of(kind, name)?;
            let client = args.connect.client()?;
            if let Resource::Topic(name) = &resource {
                client.topic(name, false).await?;
            }
            let mut rows =
                Rows::new(&[("NAME", "name"), ("VALUE", "value"), ("SOURCE", "source"), ("READ ONLY", "read_only")]);
            for s in describe(&client, &resource, all).await? {
                rows.push(vec![json!(s.name), json!(s.value), json!(s.source), json!(s.read_only)]);
            }
            match args.shown.output {
                Form::Json => say_json(&rows.json())?,
                Form::Table if rows.is_empty() => {
                    note(&format!("{} has no settings of its own; --all shows the defaults", resource.shown()));
                }
                Form::Table => say(&rows.text())?,
            }
        }
        Action::Alter { kind, name, set, unset } => {
            if set.is_empty() && unset.is_empty() {
                return Err(usage("nothing is to be changed; there are --set and --unset"));
            }
            let resource = Resource::of(kind, name)?;
            let client = args.connect.client()?;
            if let Resource::Topic(name) = &resource {
                client.topic(name, false).await?;
            }
            alter(&client, &resource, &set, &unset).await?;
            say_line(&format!("settings of {} are changed", resource.shown()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings of something: those that are its own, or all.
pub async fn describe(client: &Client, resource: &Resource, all: bool) -> Result<Vec<Setting>, Error> {
    let wanted = DescribeConfigsResource::default()
        .with_resource_type(resource.number())
        .with_resource_name(text(&resource.name()))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![wanted]);
    let to = resource.to(client).await?;
    let answer = client.call_once(&to, Lane::Main, &request, Duration::ZERO).await?;
    let what = || format!("cannot describe the settings of {}", resource.shown());
    let mut settings = Vec::new();
    for result in &answer.results {
        Error::check(result.error_code, what, result.error_message.as_ref().map(|m| m.as_str()))?;
        for config in &result.configs {
            let source = source(config.config_source);
            let own = config.config_source != 5 && (resource.number() != 2 || config.config_source == 1);
            if all || own {
                settings.push(Setting {
                    name: config.name.to_string(),
                    value: config.value.as_ref().filter(|_| !config.is_sensitive).map(ToString::to_string),
                    source,
                    read_only: config.read_only,
                    own,
                });
            }
        }
    }
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(settings)
}

pub async fn alter(
    client: &Client,
    resource: &Resource,
    set: &[(String, String)],
    unset: &[String],
) -> Result<(), Error> {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    let config = |name: &str, operation: i8, value: Option<&str>| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(value.map(text))
    };
    let configs = set
        .iter()
        .map(|(name, value)| config(name, SET, Some(value)))
        .chain(unset.iter().map(|name| config(name, DELETE, None)));
    let wanted = AlterConfigsResource::default()
        .with_resource_type(resource.number())
        .with_resource_name(text(&resource.name()))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![wanted]);
    let to = match resource.to(client).await? {
        To::Any => To::Controller,
        other => other,
    };
    let answer = client.call_once(&to, Lane::Main, &request, Duration::ZERO).await?;
    let what = || format!("cannot change the settings of {}", resource.shown());
    answer
        .responses
        .iter()
        .try_for_each(|r| Error::check(r.error_code, what, r.error_message.as_ref().map(|m| m.as_str())))
}
