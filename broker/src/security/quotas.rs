//! Which quota counts for somebody, how much of it is used up, and how long somebody has to wait.
//!
//! Of several quotas the most special counts, as in Kafka: user and client id, user and any client id, user, any user and
//! client id, any user and any client id, any user, client id, any client id. What is used is kept in a bucket that
//! drains at the quota's rate: of the pair for a quota of a pair, of the user over all client ids for one of a user, of
//! the client id over all users for one of a client id. A bucket holds what the quota gives in a second (ten for changes
//! of topics); what is over has to drain before the next request is read.
//!
//! Not here: what a quota says by itself (`quota`), answering and waiting (`server`).
//! Invariants: what is in memory was written before; there are no more than `buckets_max` buckets, and the fullest stay.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::quota::{
    CONNECTION_CREATION_RATE, CONSUMER_BYTE_RATE, CONTROLLER_MUTATION_RATE, Entity, Filter, Limits, PRODUCER_BYTE_RATE,
    PartKind, REQUEST_PERCENTAGE, decode, encode_entity, encode_limits,
};
use crate::storage::{SecurityKind, Storage, StorageError};

/// Nobody waits longer at a time.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Limits of quotas themselves.
#[derive(Debug, Clone)]
pub struct QuotaSettings {
    /// Users, client ids, pairs and addresses that have quotas.
    pub entities_max: usize,
    /// Users and client ids whose use is being counted.
    pub buckets_max: usize,
}

impl Default for QuotaSettings {
    fn default() -> Self {
        Self { entities_max: 10_000, buckets_max: 10_000 }
    }
}

/// What quotas of users and client ids are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Bytes of produce requests.
    Produced,
    /// Bytes of fetch answers.
    Fetched,
    /// Nanoseconds of a thread.
    Time,
    /// Partitions created and deleted.
    Mutations,
}

impl Measure {
    const ALL: [Self; 4] = [Self::Produced, Self::Fetched, Self::Time, Self::Mutations];

    fn key(self) -> &'static str {
        match self {
            Self::Produced => PRODUCER_BYTE_RATE,
            Self::Fetched => CONSUMER_BYTE_RATE,
            Self::Time => REQUEST_PERCENTAGE,
            Self::Mutations => CONTROLLER_MUTATION_RATE,
        }
    }

    /// Its unit a second, for a quota's value.
    fn rate(self, value: f64) -> f64 {
        match self {
            Self::Time => value / 100.0 * 1e9,
            _ => value,
        }
    }

    /// How many seconds' worth may be used at once.
    fn burst(self) -> f64 {
        match self {
            Self::Mutations => 10.0,
            _ => 1.0,
        }
    }
}

/// A user and a client id, as a request has them.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    pub user: &'a str,
    pub client_id: &'a str,
}

/// The quotas in force; clones share them.
#[derive(Clone)]
pub struct Quotas {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Option<Storage>,
    settings: QuotaSettings,
    table: RwLock<Arc<Table>>,
    /// Without any, nothing is counted.
    any: AtomicBool,
    /// Whether time is counted.
    timed: AtomicBool,
    buckets: Mutex<HashMap<BucketKey, Bucket>>,
    /// Changes go one after the other.
    changing: tokio::sync::Mutex<()>,
}

/// Why quotas were not changed.
#[derive(Debug, Clone)]
pub enum QuotaError {
    TooMany(String),
    Storage(StorageError),
}

/// A change of one quota; `None` removes it.
pub type Change = (Entity, Vec<(String, Option<f64>)>);

impl Quotas {
    /// Reads the quotas. Blocks on disk.
    pub fn load(storage: Storage, settings: QuotaSettings) -> Result<Self, StorageError> {
        let mut all = BTreeMap::new();
        for (key, value) in storage.security_scan(SecurityKind::Quota)? {
            let (entity, limits) = decode(&key, &value)
                .ok_or_else(|| StorageError::Corrupt(format!("the stored quota {key:02x?} is damaged")))?;
            all.insert(entity, limits);
        }
        Ok(Self::of(Some(storage), settings, all))
    }

    fn of(storage: Option<Storage>, settings: QuotaSettings, all: BTreeMap<Entity, Limits>) -> Self {
        let inner = Inner {
            storage,
            settings,
            table: RwLock::default(),
            any: AtomicBool::new(false),
            timed: AtomicBool::new(false),
            buckets: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        };
        let quotas = Self { inner: Arc::new(inner) };
        quotas.show(all);
        quotas
    }

    fn show(&self, all: BTreeMap<Entity, Limits>) {
        let timed = all.values().any(|limits| limits.contains_key(REQUEST_PERCENTAGE));
        self.inner.any.store(!all.is_empty(), Ordering::Release);
        self.inner.timed.store(timed, Ordering::Release);
        *self.inner.table.write() = Arc::new(Table::of(all));
    }

    /// Whether anybody is limited.
    pub fn any(&self) -> bool {
        self.inner.any.load(Ordering::Acquire)
    }

    /// Whether anybody's time is limited, so that it has to be measured.
    pub fn timed(&self) -> bool {
        self.inner.timed.load(Ordering::Acquire)
    }

    fn table(&self) -> Option<Arc<Table>> {
        self.any().then(|| Arc::clone(&self.inner.table.read()))
    }

    /// Counts what a client used, and tells how long it has to wait for that.
    pub fn used(&self, client: Client<'_>, measure: Measure, amount: f64, now: Instant) -> Duration {
        let Some((rate, key)) = self.table().and_then(|table| table.limit(client, measure)) else {
            return Duration::ZERO;
        };
        self.count(key, rate, measure.burst(), amount, now)
    }

    /// How long a client has to wait for what it used before.
    pub fn owed(&self, client: Client<'_>, measure: Measure, now: Instant) -> Duration {
        self.used(client, measure, 0.0, now)
    }

    /// How much a client may use at once, where it is limited.
    pub fn at_once(&self, client: Client<'_>, measure: Measure) -> Option<f64> {
        let (rate, _) = self.table()?.limit(client, measure)?;
        Some(rate * measure.burst())
    }

    /// Counts a connection from an address; it is one too many for so long.
    pub fn connected(&self, address: IpAddr, now: Instant) -> Duration {
        let Some(rate) = self.table().and_then(|table| table.of_address(address)) else { return Duration::ZERO };
        let key = BucketKey::Address(address);
        let owed = self.count(key.clone(), rate, 1.0, 0.0, now);
        if owed.is_zero() {
            self.count(key, rate, 1.0, 1.0, now);
        }
        owed
    }

    fn count(&self, key: BucketKey, rate: f64, burst: f64, amount: f64, now: Instant) -> Duration {
        let mut buckets = self.inner.buckets.lock();
        if !buckets.contains_key(&key) {
            if amount <= 0.0 {
                return Duration::ZERO;
            }
            make_room(&mut buckets, self.inner.settings.buckets_max, now);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { level: 0.0, rate, at: now });
        bucket.drain(now);
        bucket.rate = rate;
        bucket.level += amount;
        let over = bucket.level - rate * burst;
        if over <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64((over / rate).min(WAIT_MAX.as_secs_f64())) }
    }

    /// All quotas that a filter finds.
    pub fn find(&self, filter: &Filter) -> Vec<(Entity, Limits)> {
        let table = Arc::clone(&self.inner.table.read());
        table.all.iter().filter(|(e, _)| filter.finds(e)).map(|(e, l)| (e.clone(), l.clone())).collect()
    }

    /// Changes quotas, all or none. They are durable and in force when it returns.
    pub async fn change(&self, changes: Vec<Change>) -> Result<(), QuotaError> {
        let _one = self.inner.changing.lock().await;
        let mut all = self.inner.table.read().all.clone();
        let mut entries = Vec::with_capacity(changes.len());
        for (entity, values) in changes {
            let mut limits = all.remove(&entity).unwrap_or_default();
            for (key, value) in values {
                match value {
                    Some(value) => limits.insert(key, value),
                    None => limits.remove(&key),
                };
            }
            entries.push((encode_entity(&entity), (!limits.is_empty()).then(|| encode_limits(&limits))));
            if !limits.is_empty() {
                all.insert(entity, limits);
            }
        }
        let (count, max) = (all.len(), self.inner.settings.entities_max);
        if count > max && count > self.inner.table.read().all.len() {
            let message = format!("there would be quotas of {count} users, client ids and addresses, more than {max}");
            return Err(QuotaError::TooMany(message));
        }
        if let Some(storage) = &self.inner.storage {
            storage.security_write(SecurityKind::Quota, entries).await.map_err(QuotaError::Storage)?;
        }
        self.show(all);
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum BucketKey {
    Pair(Measure, String, String),
    User(Measure, String),
    ClientId(Measure, String),
    Address(IpAddr),
}

/// What was used and did not drain yet.
struct Bucket {
    level: f64,
    rate: f64,
    at: Instant,
}

impl Bucket {
    fn drain(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level - passed * self.rate).max(0.0);
        self.at = self.at.max(now);
    }
}

/// Forgets empty buckets where there are too many, and if that does not do, the one that is empty soonest.
fn make_room(buckets: &mut HashMap<BucketKey, Bucket>, max: usize, now: Instant) {
    if buckets.len() < max.max(1) {
        return;
    }
    buckets.retain(|_, bucket| {
        bucket.drain(now);
        bucket.level > 0.0
    });
    if buckets.len() >= max.max(1) {
        let seconds = |bucket: &Bucket| bucket.level / bucket.rate;
        let soonest = buckets.iter().min_by(|a, b| seconds(a.1).total_cmp(&seconds(b.1))).map(|(key, _)| key.clone());
        soonest.and_then(|key| buckets.remove(&key));
    }
}

/// All quotas, by whom they are for.
#[derive(Default)]
struct Table {
    all: BTreeMap<Entity, Limits>,
    users: HashMap<String, OfUser>,
    any_user: OfUser,
    /// Those of client ids alone.
    no_user: OfUser,
    addresses: HashMap<IpAddr, f64>,
    any_address: Option<f64>,
}

type Rates = HashMap<Measure, f64>;

/// A user's quotas, over all client ids and by them.
#[derive(Default)]
struct OfUser {
    own: Rates,
    client_ids: HashMap<String, Rates>,
    any_client_id: Rates,
}

impl Table {
    fn of(all: BTreeMap<Entity, Limits>) -> Self {
        let mut table = Self::default();
        for (entity, limits) in &all {
            if let Some(address) = entity.get(&PartKind::Address) {
                let rate = limits.get(CONNECTION_CREATION_RATE).copied();
                match address.as_ref().map(|address| address.parse::<IpAddr>()) {
                    None => table.any_address = rate,
                    Some(Ok(address)) => {
                        rate.and_then(|rate| table.addresses.insert(address.to_canonical(), rate));
                    }
                    Some(Err(_)) => {}
                }
                continue;
            }
            let of_user = match entity.get(&PartKind::User) {
                None => &mut table.no_user,
                Some(None) => &mut table.any_user,
                Some(Some(user)) => table.users.entry(user.clone()).or_default(),
            };
            let rates = match entity.get(&PartKind::ClientId) {
                None => &mut of_user.own,
                Some(None) => &mut of_user.any_client_id,
                Some(Some(id)) => of_user.client_ids.entry(id.clone()).or_default(),
            };
            for measure in Measure::ALL {
                limits.get(measure.key()).and_then(|value| rates.insert(measure, measure.rate(*value)));
            }
        }
        table.all = all;
        table
    }

    /// The rate that counts for a client, and the bucket that it is counted in.
    fn limit(&self, client: Client<'_>, measure: Measure) -> Option<(f64, BucketKey)> {
        let (user, id) = (client.user, client.client_id);
        for of_user in self.users.get(user).into_iter().chain([&self.any_user]) {
            if let Some(rate) = of_user.of_client_id(id, measure) {
                return Some((rate, BucketKey::Pair(measure, user.to_owned(), id.to_owned())));
            }
            if let Some(rate) = of_user.own.get(&measure) {
                return Some((*rate, BucketKey::User(measure, user.to_owned())));
            }
        }
        let rate = self.no_user.of_client_id(id, measure)?;
        Some((rate, BucketKey::ClientId(measure, id.to_owned())))
    }

    fn of_address(&self, address: IpAddr) -> Option<f64> {
        self.addresses.get(&address).copied().or(self.any_address)
    }
}

impl OfUser {
    fn of_client_id(&self, id: &str, measure: Measure) -> Option<f64> {
        let special = self.client_ids.get(id).and_then(|rates| rates.get(&measure));
        special.or_else(|| self.any_client_id.get(&measure)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::quota::entity;
    use super::*;

    /// Parts of an entity, key, value.
    type Line<'a> = (&'a [(&'a str, Option<&'a str>)], &'a str, f64);

    fn quotas(all: &[Line<'_>]) -> Quotas {
        let mut table: BTreeMap<Entity, Limits> = BTreeMap::new();
        for (parts, key, value) in all {
            table.entry(entity(parts.iter().copied()).unwrap()).or_default().insert((*key).to_owned(), *value);
        }
        Quotas::of(None, QuotaSettings { entities_max: 100, buckets_max: 3 }, table)
    }

    const A: Client<'static> = Client { user: "a", client_id: "x" };

    #[test]
    fn the_most_special_quota_counts() {
        let levels: [&[(&str, Option<&str>)]; 8] = [
            &[("user", Some("a")), ("client-id", Some("x"))],
            &[("user", Some("a")), ("client-id", None)],
            &[("user", Some("a"))],
            &[("user", None), ("client-id", Some("x"))],
            &[("user", None), ("client-id", None)],
            &[("user", None)],
            &[("client-id", Some("x"))],
            &[("client-id", None)],
        ];
        for first in 0..levels.len() {
            let all: Vec<_> = levels
                .iter()
                .enumerate()
                .skip(first)
                .map(|(i, parts)| (*parts, PRODUCER_BYTE_RATE, (i + 1) as f64))
                .collect();
            let at_once = quotas(&all).at_once(A, Measure::Produced);
            assert_eq!(at_once, Some((first + 1) as f64), "{:?}", levels[first]);
        }
        assert_eq!(quotas(&[(levels[0], CONSUMER_BYTE_RATE, 5.0)]).at_once(A, Measure::Produced), None);
        assert_eq!(
            quotas(&[(levels[0], PRODUCER_BYTE_RATE, 5.0)]).at_once(Client { user: "b", ..A }, Measure::Produced),
            None
        );
    }

    #[tokio::test]
    async fn who_uses_too_much_waits_until_it_drained() {
        let of_user = quotas(&[(&[("user", Some("a"))], PRODUCER_BYTE_RATE, 1000.0)]);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let used = |client, bytes, ms| of_user.used(client, Measure::Produced, bytes, at(ms)).as_millis();
        assert_eq!(used(A, 1000.0, 0), 0);
        assert_eq!(used(Client { client_id: "y", ..A }, 500.0, 0), 500);
        assert_eq!(used(A, 0.0, 400), 100);
        assert_eq!(used(A, 1000.0, 1500), 0);
        assert_eq!(used(Client { user: "b", ..A }, 1e9, 0), 0);
        // A higher rate drains faster from now on.
        assert_eq!(used(A, 3000.0, 1500), 3000);
        of_user
            .change(vec![(
                entity([("user", Some("a"))].into_iter()).unwrap(),
                vec![(PRODUCER_BYTE_RATE.into(), Some(3000.0))],
            )])
            .await
            .unwrap();
        assert_eq!(used(A, 0.0, 1500), 333);
        of_user
            .change(vec![(entity([("user", Some("a"))].into_iter()).unwrap(), vec![(PRODUCER_BYTE_RATE.into(), None)])])
            .await
            .unwrap();
        assert_eq!(used(A, 1e9, 1500), 0);
        assert!(of_user.find(&Filter::default()).is_empty());
    }

    #[test]
    fn buckets_are_few_and_addresses_are_counted() {
        let each = quotas(&[
            (&[("client-id", None)], PRODUCER_BYTE_RATE, 10.0),
            (&[("ip", None)], CONNECTION_CREATION_RATE, 2.0),
        ]);
        let start = Instant::now();
        for i in 0..10 {
            let id = i.to_string();
            each.used(Client { user: "a", client_id: &id }, Measure::Produced, 100.0 - f64::from(i), start);
        }
        assert_eq!(each.inner.buckets.lock().len(), 3);
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!([(); 4].map(|()| each.connected(address, start).is_zero()), [true, true, true, false]);
        assert!(each.connected(address, start + Duration::from_secs(1)).is_zero());
    }
}
