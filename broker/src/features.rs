//! What the cluster has agreed on beyond the versions of single requests: features, each at a level that tools raise and
//! lower while the server runs.
//!
//! `group.version` 1 is the consumer group protocol, `transaction.version` 2 makes clients take the newer way of
//! transactions; both can be lowered and raised again, and stay so over restarts. `metadata.version` says which release
//! tools take the cluster for. Features of what is not here (voters that change, replicas that are eligible) are not told;
//! tools raise them with a release all the same, which is taken and changes nothing.
//! Invariant: a level in memory was written before; the epoch grows with every change and at every start.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use crate::keys::Fields;
use crate::storage::{SecurityKind, Storage, StorageError};

const VERSION: u8 = 1;
pub const GROUP_VERSION: &str = "group.version";
const METADATA_VERSION: &str = "metadata.version";
/// The lowest that means the same as the highest.
const METADATA_SAME: i16 = 26;
/// Changes of one run that the epoch has room for.
const CHANGES_BITS: u32 = 20;

/// What a cluster can agree on.
#[derive(Debug)]
pub struct Feature {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    /// Where a cluster begins.
    level: i16,
}

/// By name; levels as in Kafka 4.1.
pub static FEATURES: &[Feature] = &[
    Feature { name: GROUP_VERSION, min: 0, max: 1, level: 1 },
    Feature { name: METADATA_VERSION, min: 7, max: 27, level: 27 },
    Feature { name: "transaction.version", min: 0, max: 2, level: 2 },
];

/// What releases of Kafka bring and is not here.
static NOT_HERE: &[Feature] = &[
    Feature { name: "eligible.leader.replicas.version", min: 0, max: 1, level: 0 },
    Feature { name: "kraft.version", min: 0, max: 1, level: 0 },
];

/// Which way somebody means a feature to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

pub struct Features {
    storage: Storage,
    levels: RwLock<Levels>,
    /// Changes go one after the other.
    changing: tokio::sync::Mutex<()>,
}

struct Levels {
    by_name: BTreeMap<&'static str, i16>,
    epoch: i64,
}

/// Why features were not changed.
#[derive(Debug)]
pub enum FeatureError {
    Invalid(String),
    Storage(StorageError),
}

impl Features {
    /// Blocks on disk.
    pub fn load(storage: Storage) -> Result<Self, StorageError> {
        let mut by_name: BTreeMap<_, _> = FEATURES.iter().map(|f| (f.name, f.level)).collect();
        for (key, value) in storage.security_scan(SecurityKind::Feature)? {
            let mut fields = Fields(&value);
            let level = (fields.u8() == Some(VERSION)).then(|| fields.i16()).flatten();
            let feature = FEATURES.iter().find(|f| f.name.as_bytes() == key);
            match (feature, level) {
                (Some(feature), Some(level)) => {
                    by_name.insert(feature.name, level.clamp(feature.min, feature.max));
                }
                // Of a build that told more.
                (None, Some(_)) => {}
                (_, None) => return Err(StorageError::Corrupt("the level of a feature cannot be read".into())),
            }
        }
        let epoch = i64::from(storage.leader_epoch()) << CHANGES_BITS;
        Ok(Self { storage, levels: RwLock::new(Levels { by_name, epoch }), changing: tokio::sync::Mutex::new(()) })
    }

    /// Each with its level, by name, and the epoch of all.
    pub fn all(&self) -> (Vec<(&'static Feature, i16)>, i64) {
        let levels = self.levels.read();
        let level = |f: &Feature| levels.by_name.get(f.name).copied().unwrap_or(f.level);
        (FEATURES.iter().map(|f| (f, level(f))).collect(), levels.epoch)
    }

    pub fn level(&self, name: &str) -> i16 {
        self.levels.read().by_name.get(name).copied().unwrap_or_default()
    }

    /// Brings features to levels, all or none. The error says what is wrong with the first that cannot be.
    pub async fn update(
        &self,
        wanted: &[(String, i16, Option<Direction>)],
        validate_only: bool,
    ) -> Result<(), FeatureError> {
        let _one_by_one = self.changing.lock().await;
        let mut changed = Vec::new();
        for (name, level, direction) in wanted {
            if let Some(feature) = self.check(name, *level, *direction).map_err(FeatureError::Invalid)? {
                changed.push((feature, *level));
            }
        }
        if validate_only || changed.is_empty() {
            return Ok(());
        }
        let value = |level: i16| [&[VERSION][..], &level.to_be_bytes()].concat();
        let entries = changed.iter().map(|(f, level)| (f.name.as_bytes().to_vec(), Some(value(*level))));
        let written = self.storage.security_write(SecurityKind::Feature, entries.collect()).await;
        written.map_err(FeatureError::Storage)?;
        let mut levels = self.levels.write();
        levels.by_name.extend(changed.into_iter().map(|(feature, level)| (feature.name, level)));
        levels.epoch += 1;
        Ok(())
    }

    /// The feature, if it is to change.
    fn check(&self, name: &str, level: i16, direction: Option<Direction>) -> Result<Option<&'static Feature>, String> {
        let invalid = |why: &str| Err(format!("feature \"{name}\" cannot be at level {level}: {why}"));
        let Some(direction) = direction else { return invalid("the kind of change is not known") };
        let not_here = NOT_HERE.iter().find(|f| f.name == name);
        let Some(feature) = FEATURES.iter().find(|f| f.name == name).or(not_here) else {
            return invalid("there is no such feature");
        };
        if level < feature.min || level > feature.max {
            return invalid(&format!("it is supported from {} to {}", feature.min, feature.max));
        }
        if not_here.is_some() {
            return Ok(None);
        }
        let now = self.level(name);
        if level < now && direction == Direction::Upgrade {
            return invalid(&format!("it is at {now}, and an upgrade does not lower it"));
        }
        if level > now && direction != Direction::Upgrade {
            return invalid(&format!("it is at {now}, and a downgrade does not raise it"));
        }
        if level < now && name == METADATA_VERSION && (level < METADATA_SAME || direction == Direction::UnsafeDowngrade)
        {
            return invalid(&format!("it can be lowered to {METADATA_SAME}, and without harm only"));
        }
        Ok((level != now).then_some(feature))
    }
}
