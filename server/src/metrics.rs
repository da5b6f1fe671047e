//! GET /metrics: counters in Prometheus' text form.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use millpond_types::access::Right;

use crate::Shared;
use crate::errors::ApiError;
use crate::rights::Speaker;

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Such as `broker_requests_total`; the prefix `millpond_` is added.
    pub name: &'static str,
    pub help: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Only rises.
    Counter(f64),
    /// Moves.
    Gauge(f64),
    Histogram {
        /// Upper bounds, and how many values are not above them; the bound of all is left out.
        buckets: Vec<(f64, u64)>,
        sum: f64,
        count: u64,
    },
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram { .. } => "histogram",
        }
    }
}

/// A part of the process that measures itself. Called per scrape; may block for a moment.
pub trait MetricsSource: Send + Sync {
    /// All samples; those of one name stand together.
    fn samples(&self) -> Vec<Sample>;
}

pub(crate) async fn metrics(State(app): State<Shared>, speaker: Speaker) -> Result<Response, ApiError> {
    // They name topics, groups and queries of everybody.
    speaker.check_cluster(Right::Describe)?;
    let scraped = Arc::clone(&app);
    let scrape = move || {
        let app = scraped;
        let mut text = String::new();
        let mut samples: Vec<Sample> = app.metrics.iter().flat_map(|source| source.samples()).collect();
        samples.extend(queries(&app));
        let mut last = "";
        for sample in &samples {
            if sample.name != last {
                last = sample.name;
                let help = sample.help.replace('\\', "\\\\").replace('\n', "\\n");
                let _ = writeln!(text, "# HELP millpond_{} {help}", sample.name);
                let _ = writeln!(text, "# TYPE millpond_{} {}", sample.name, sample.value.kind());
            }
            write_sample(&mut text, sample);
        }
        text
    };
    let text = app.scrapes.run(scrape).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

fn write_sample(text: &mut String, sample: &Sample) {
    let labels: Vec<String> = sample.labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
    let mut line = |suffix: &str, more: Option<String>, value: &dyn std::fmt::Display| {
        let labels: Vec<&str> = labels.iter().map(String::as_str).chain(more.as_deref()).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "millpond_{}{suffix}{labels} {value}", sample.name);
    };
    match &sample.value {
        Value::Counter(value) | Value::Gauge(value) => line("", None, value),
        Value::Histogram { buckets, sum, count } => {
            for (bound, within) in buckets {
                line("_bucket", Some(format!("le=\"{bound}\"")), within);
            }
            line("_bucket", Some("le=\"+Inf\"".to_owned()), count);
            line("_sum", None, sum);
            line("_count", None, count);
        }
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A query's counter by its name among the metrics.
fn metric_name(counter: &'static str) -> &'static str {
    match counter {
        "rows_in" => "engine_rows_in_total",
        "rows_out" => "engine_rows_out_total",
        "rows_late" => "engine_rows_late_total",
        "rows_skipped" => "engine_rows_skipped_total",
        "row_errors" => "engine_row_errors_total",
        "steps" => "engine_steps_total",
        "steps_helped" => "engine_steps_helped_total",
        other => other,
    }
}

/// Counters of all persistent queries.
fn queries(app: &Shared) -> Vec<Sample> {
    let ids: Vec<String> = app.engine.catalog().queries.keys().cloned().collect();
    let mut samples: Vec<Sample> = ids
        .iter()
        .flat_map(|id| {
            app.engine.query_metrics(id).into_iter().map(move |(counter, value)| Sample {
                name: metric_name(counter),
                help: "Counter of a persistent query.",
                labels: vec![("query", id.clone())],
                value: Value::Counter(value as f64),
            })
        })
        .collect();
    samples.sort_by_key(|s| s.name);
    let mut states =
        std::collections::BTreeMap::from(["ERROR", "PAUSED", "RUNNING", "STALLED"].map(|s| (s.to_string(), 0)));
    for id in &ids {
        *states.entry(app.engine.query_state(id).0).or_default() += 1;
    }
    samples.extend(states.into_iter().map(|(state, count)| Sample {
        name: "engine_queries",
        help: "Persistent queries by state.",
        labels: vec![("state", state)],
        value: Value::Gauge(f64::from(count)),
    }));
    samples
}
