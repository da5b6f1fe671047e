//! Where reading begins: a word, an offset, so many from the end, or a time. `millpond group` takes the same times.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::kafka::Client;
use crate::kafka::client::{EARLIEST, Isolation, LATEST, Place};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    Beginning,
    End,
    Offset(i64),
    /// So many before the end.
    Last(i64),
    /// Milliseconds.
    Time(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "beginning" | "earliest" => Self::Beginning,
            "end" | "latest" => Self::End,
            number if number.parse::<i64>().is_ok_and(|n| n >= 0) => Self::Offset(number.parse().unwrap_or(0)),
            number if number.parse::<i64>().is_ok_and(|n| n < 0 && n > i64::MIN) => {
                Self::Last(number.parse::<i64>().unwrap_or(0).saturating_neg())
            }
            time => match crate::command::time::parse(time) {
                Some(ms) => Self::Time(ms),
                None => {
                    return Err("expected beginning, end, an offset, -N or a time such as 2026-01-31T12:00:00Z".into());
                }
            },
        })
    }
}

impl Start {
    /// The offset of each partition. One that the log does not have is an error.
    pub async fn resolve(
        &self,
        client: &Client,
        places: &[Place],
        isolation: Isolation,
    ) -> Result<BTreeMap<Place, i64>> {
        if places.is_empty() {
            return Ok(BTreeMap::new());
        }
        let at = |time: i64| places.iter().map(|p| (p.clone(), time)).collect::<Vec<_>>();
        let ends = async || client.offsets(&at(LATEST), isolation).await;
        let firsts = async || client.offsets(&at(EARLIEST), isolation).await;
        let mut found = BTreeMap::new();
        match self {
            Self::Beginning => found.extend(firsts().await?),
            Self::End => found.extend(ends().await?),
            Self::Time(ms) => {
                let later = client.offsets(&at(*ms), isolation).await?;
                let ends = ends().await?;
                for place in places {
                    let end = ends.get(place).copied().unwrap_or(0);
                    // -1: no record is so young.
                    let offset = later.get(place).copied().filter(|o| *o >= 0).unwrap_or(end);
                    found.insert(place.clone(), offset);
                }
            }
            Self::Last(count) => {
                let (firsts, ends) = (firsts().await?, ends().await?);
                for place in places {
                    let end = ends.get(place).copied().unwrap_or(0);
                    let first = firsts.get(place).copied().unwrap_or(0);
                    found.insert(place.clone(), end.saturating_sub(*count).max(first));
                }
            }
            Self::Offset(offset) => {
                let (firsts, ends) = (firsts().await?, ends().await?);
                let mut ranges = Vec::new();
                for place in places {
                    let end = ends.get(place).copied().unwrap_or(0);
                    let first = firsts.get(place).copied().unwrap_or(0);
                    if (first..=end).contains(offset) {
                        found.insert(place.clone(), *offset);
                    } else {
                        ranges.push(format!("partition {} has {first} to {end}", place.1));
                    }
                }
                if found.is_empty() {
                    let topic = places.first().map(|p| p.0.as_str()).context("no partition")?;
                    bail!("topic \"{topic}\" has no offset {offset}: {}", ranges.join(", "));
                }
                // Of several partitions those that are shorter have nothing to show, and those that are longer begin there.
                for place in places.iter().filter(|p| !found.contains_key(*p)).cloned().collect::<Vec<_>>() {
                    let end = ends.get(&place).copied().unwrap_or(0);
                    let first = firsts.get(&place).copied().unwrap_or(0);
                    found.insert(place, (*offset).clamp(first, end));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let parsed = |text: &str| text.parse::<Start>();
        assert_eq!(parsed("beginning"), Ok(Start::Beginning));
        assert_eq!(parsed("latest"), Ok(Start::End));
        assert_eq!(parsed("17"), Ok(Start::Offset(17)));
        assert_eq!(parsed("-17"), Ok(Start::Last(17)));
        assert_eq!(parsed("1970-01-01T00:00:01Z"), Ok(Start::Time(1000)));
        for wrong in ["", "yesterday", "-", "1.5", "99999999999999999999"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
