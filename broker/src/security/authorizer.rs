//! Decides whether somebody may do something, by Kafka's rules over all access control entries.
//!
//! Super users may do everything. Otherwise an entry that denies wins over those that allow, and where no entry is about
//! the resource at all, `allow_everyone_if_no_acl_found` decides. Entries are indexed by what they are about, so that a
//! check looks at few of them; [`Decisions`] remembers a connection's answers until the entries change.
//!
//! Not here: what an entry says by itself (`acl`), who somebody is (`principal`), which operation an API asks for (`api`).
//! Invariants: what is in memory was written before; `version` grows with each change and never before its entries are
//! in force.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_types::Principal;
use millpond_types::access::{Authority, Protected, Right};
use parking_lot::{Mutex, RwLock};

use super::acl::{Binding, CLUSTER_NAME, Filter, Operation, PatternType, Permission, ResourceType, WILDCARD, Who};
use crate::storage::{SecurityKind, Storage, StorageError};

/// Answers that a connection remembers; it forgets all when there are more.
const DECISIONS_MAX: usize = 1_024;

/// How the authorizer decides where entries do not.
#[derive(Debug, Clone)]
pub struct AuthorizationSettings {
    /// Everybody may use what no entry is about.
    pub allow_everyone_if_no_acl_found: bool,
    /// Entries in all.
    pub acls_max: usize,
}

impl Default for AuthorizationSettings {
    fn default() -> Self {
        Self { allow_everyone_if_no_acl_found: false, acls_max: 10_000 }
    }
}

/// The entries in force; clones share them.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Option<Storage>,
    settings: AuthorizationSettings,
    super_users: HashSet<Principal>,
    acls: RwLock<Arc<Acls>>,
    version: AtomicU64,
    /// Changes go one after the other.
    changing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

/// Why entries were not changed.
#[derive(Debug, Clone)]
pub enum AclError {
    /// There would be more than `acls_max`.
    TooMany(String),
    Storage(StorageError),
}

impl Authorizer {
    /// Reads the entries. Blocks on disk.
    pub fn load(
        storage: Storage,
        settings: AuthorizationSettings,
        super_users: &[Principal],
    ) -> Result<Self, StorageError> {
        let mut all = BTreeSet::new();
        for (key, value) in storage.security_scan(SecurityKind::Acl)? {
            let binding = Binding::decode(&key, &value)
                .ok_or_else(|| StorageError::Corrupt(format!("the stored acl {key:02x?} is damaged")))?;
            all.insert(binding);
        }
        Ok(Self::of(Some(storage), settings, super_users, all))
    }

    fn of(
        storage: Option<Storage>,
        settings: AuthorizationSettings,
        super_users: &[Principal],
        all: BTreeSet<Binding>,
    ) -> Self {
        let super_users = super_users.iter().cloned().collect();
        let acls = RwLock::new(Arc::new(Acls::of(all)));
        let (version, changing) = (AtomicU64::new(1), tokio::sync::Mutex::new(()));
        Self { inner: Arc::new(Inner { storage, settings, super_users, acls, version, changing }) }
    }

    /// Grows when the entries change.
    pub fn version(&self) -> u64 {
        self.inner.version.load(Ordering::Acquire)
    }

    pub fn is_super_user(&self, principal: &Principal) -> bool {
        self.inner.super_users.contains(principal)
    }

    /// Whether somebody may do something to a resource.
    pub fn allows(&self, who: Who<'_>, operation: Operation, resource: ResourceType, name: &str) -> bool {
        if self.is_super_user(who.principal) {
            return true;
        }
        let acls = Arc::clone(&self.inner.acls.read());
        acls.decide(who, operation, resource, name).unwrap_or(self.inner.settings.allow_everyone_if_no_acl_found)
    }

    /// Whether there is any resource of a type to which somebody may do something.
    pub fn allows_any(&self, who: Who<'_>, operation: Operation, resource: ResourceType) -> bool {
        // A name as good as any other: who is allowed it by a rule for all needs no closer look.
        if self.allows(who, operation, resource, "hardcode") {
            return true;
        }
        let acls = Arc::clone(&self.inner.acls.read());
        acls.any(who, operation, resource)
    }

    /// Whether anybody at all may change the entries: a super user, somebody by an entry, or everybody.
    pub fn can_be_changed(&self) -> bool {
        let gives = |entry: &Binding| {
            entry.resource == ResourceType::Cluster
                && entry.permission == Permission::Allow
                && entry.operation.allows(Operation::Alter)
        };
        !self.inner.super_users.is_empty()
            || self.inner.settings.allow_everyone_if_no_acl_found
            || self.inner.acls.read().all.iter().any(gives)
    }

    /// Entries that a filter finds, in order.
    pub fn find(&self, filter: &Filter) -> Vec<Binding> {
        let acls = Arc::clone(&self.inner.acls.read());
        acls.all.iter().filter(|binding| filter.finds(binding)).cloned().collect()
    }

    /// Adds entries, all or none; those that are there already are no error. They are durable and in force when it returns.
    pub async fn create(&self, new: Vec<Binding>) -> Result<(), AclError> {
        let _one = self.inner.changing.lock().await;
        let mut all = self.inner.acls.read().all.clone();
        let added: Vec<Binding> = new.into_iter().filter(|binding| all.insert(binding.clone())).collect();
        let (count, max) = (all.len(), self.inner.settings.acls_max);
        if !added.is_empty() && count > max {
            return Err(AclError::TooMany(format!("there would be {count} acls, more than \"acls_max\" = {max}")));
        }
        let entries = added.iter().map(|binding| (binding.key(), Some(Binding::value()))).collect();
        self.change(all, entries).await
    }

    /// Removes what each filter finds and tells what that was; an entry that two find is told by the first.
    pub async fn delete(&self, filters: &[Filter]) -> Result<Vec<Vec<Binding>>, AclError> {
        let _one = self.inner.changing.lock().await;
        let mut all = self.inner.acls.read().all.clone();
        let mut found = Vec::with_capacity(filters.len());
        for filter in filters {
            let these: Vec<Binding> = all.iter().filter(|binding| filter.finds(binding)).cloned().collect();
            all.retain(|binding| !filter.finds(binding));
            found.push(these);
        }
        let entries = found.iter().flatten().map(|binding| (binding.key(), None)).collect();
        self.change(all, entries).await?;
        Ok(found)
    }

    async fn change(&self, all: BTreeSet<Binding>, entries: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), AclError> {
        if entries.is_empty() {
            return Ok(());
        }
        if let Some(storage) = &self.inner.storage {
            storage.security_write(SecurityKind::Acl, entries).await.map_err(AclError::Storage)?;
        }
        *self.inner.acls.write() = Arc::new(Acls::of(all));
        self.inner.version.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl Authority for Authorizer {
    fn allows(&self, principal: &Principal, host: IpAddr, right: Right, of: Protected<'_>) -> bool {
        let operation = match right {
            Right::Read => Operation::Read,
            Right::Write => Operation::Write,
            Right::Create => Operation::Create,
            Right::Delete => Operation::Delete,
            Right::Alter => Operation::Alter,
            Right::Describe => Operation::Describe,
        };
        let (resource, name) = match of {
            Protected::Topic(name) => (ResourceType::Topic, name),
            Protected::Group(name) => (ResourceType::Group, name),
            Protected::Cluster => (ResourceType::Cluster, CLUSTER_NAME),
        };
        Authorizer::allows(self, Who { principal, host }, operation, resource, name)
    }
}

/// All entries, by what they are about.
#[derive(Default)]
struct Acls {
    all: BTreeSet<Binding>,
    /// By exact name, `*` among them.
    literal: HashMap<ResourceType, HashMap<String, Vec<Binding>>>,
    prefixed: HashMap<ResourceType, Prefixes>,
}

#[derive(Default)]
struct Prefixes {
    by_prefix: HashMap<Vec<u8>, Vec<Binding>>,
    /// Lengths that occur, so that a name is looked up once for each and not once for every length.
    lengths: BTreeSet<usize>,
}

impl Acls {
    fn of(all: BTreeSet<Binding>) -> Self {
        let mut literal: HashMap<ResourceType, HashMap<String, Vec<Binding>>> = HashMap::new();
        let mut prefixed: HashMap<ResourceType, Prefixes> = HashMap::new();
        for binding in &all {
            match binding.pattern {
                PatternType::Literal => {
                    let names = literal.entry(binding.resource).or_default();
                    names.entry(binding.name.clone()).or_default().push(binding.clone());
                }
                PatternType::Prefixed => {
                    let prefixes = prefixed.entry(binding.resource).or_default();
                    prefixes.lengths.insert(binding.name.len());
                    let entries = prefixes.by_prefix.entry(binding.name.clone().into_bytes()).or_default();
                    entries.push(binding.clone());
                }
            }
        }
        Self { all, literal, prefixed }
    }

    /// Lists of entries about a resource.
    fn about(&self, resource: ResourceType, name: &str) -> impl Iterator<Item = &Vec<Binding>> {
        let names = self.literal.get(&resource);
        let exact = names.and_then(|names| names.get(name));
        let all = names.filter(|_| name != WILDCARD).and_then(|names| names.get(WILDCARD));
        let prefixes = self.prefixed.get(&resource).into_iter().flat_map(move |prefixes| {
            let lengths = prefixes.lengths.range(..=name.len());
            lengths.filter_map(|len| prefixes.by_prefix.get(name.as_bytes().get(..*len)?))
        });
        exact.into_iter().chain(all).chain(prefixes)
    }

    /// `None`: no entry is about the resource.
    fn decide(&self, who: Who<'_>, operation: Operation, resource: ResourceType, name: &str) -> Option<bool> {
        let (mut found, mut allowed) = (false, false);
        for binding in self.about(resource, name).flatten() {
            found = true;
            if !binding.is_about(who) {
                continue;
            }
            match binding.permission {
                Permission::Deny if binding.operation.denies(operation) => return Some(false),
                Permission::Allow => allowed |= binding.operation.allows(operation),
                Permission::Deny => {}
            }
        }
        found.then_some(allowed)
    }

    /// Some entry allows it for names that no entry denies altogether. Nothing is implied, as in Kafka.
    fn any(&self, who: Who<'_>, operation: Operation, resource: ResourceType) -> bool {
        let relevant = |binding: &&Binding| {
            binding.resource == resource && binding.is_about(who) && binding.operation.denies(operation)
        };
        let (denied, allowed): (Vec<_>, Vec<_>) =
            self.all.iter().filter(relevant).partition(|binding| binding.permission == Permission::Deny);
        let denied_literally: HashSet<&str> =
            denied.iter().filter(|b| b.pattern == PatternType::Literal).map(|b| b.name.as_str()).collect();
        if denied_literally.contains(WILDCARD) {
            return false;
        }
        let denied_prefixes: Vec<&str> =
            denied.iter().filter(|b| b.pattern == PatternType::Prefixed).map(|b| b.name.as_str()).collect();
        allowed.iter().any(|binding| match binding.pattern {
            PatternType::Literal if binding.name == WILDCARD => true,
            PatternType::Literal => {
                !denied_literally.contains(binding.name.as_str())
                    && !denied_prefixes.iter().any(|prefix| binding.name.starts_with(prefix))
            }
            PatternType::Prefixed => !denied_prefixes.iter().any(|prefix| binding.name.starts_with(prefix)),
        })
    }
}

/// What a connection was answered, while the entries stay as they are.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    version: u64,
    principal: Option<Principal>,
    /// By name, so that a look-up copies nothing.
    answers: HashMap<String, Vec<(ResourceType, Operation, bool)>>,
    count: usize,
}

/// Names of topics end at 249 bytes; longer ones of groups and transactions are looked up each time.
const NAME_REMEMBERED_BYTES_MAX: usize = 255;

impl Decisions {
    /// As [`Authorizer::allows`], from memory where it was asked before. One `Decisions` is for one host.
    pub fn allows(
        &self,
        authorizer: &Authorizer,
        who: Who<'_>,
        operation: Operation,
        resource: ResourceType,
        name: &str,
    ) -> bool {
        // Answers are counted, not their bytes.
        if name.len() > NAME_REMEMBERED_BYTES_MAX {
            return authorizer.allows(who, operation, resource, name);
        }
        // Read before the entries, so that an answer by older entries is never kept under the newer version.
        let version = authorizer.version();
        let mut remembered = self.0.lock();
        let stale = remembered.version != version || remembered.principal.as_ref() != Some(who.principal);
        if stale || remembered.count >= DECISIONS_MAX {
            *remembered = Remembered { version, principal: Some(who.principal.clone()), ..Remembered::default() };
        }
        let known = remembered.answers.get(name).and_then(|answers| {
            answers.iter().find(|(r, o, _)| *r == resource && *o == operation).map(|(.., allowed)| *allowed)
        });
        if let Some(allowed) = known {
            return allowed;
        }
        let allowed = authorizer.allows(who, operation, resource, name);
        remembered.answers.entry(name.to_owned()).or_default().push((resource, operation, allowed));
        remembered.count += 1;
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::super::acl::RawBinding;
    use super::*;

    const TOPIC: ResourceType = ResourceType::Topic;

    /// An entry as `allow alice read orders`, `deny * all ord* 10.0.0.1`.
    fn entry(text: &str) -> Binding {
        let words: Vec<&str> = text.split(' ').collect();
        let [permission, user, operation, name, rest @ ..] = &words[..] else { panic!("{text}") };
        let (name, pattern) = match name.strip_suffix('*').filter(|prefix| !prefix.is_empty()) {
            Some(prefix) => (prefix, 4),
            None => (*name, 3),
        };
        let operation = match *operation {
            "all" => 2,
            "read" => 3,
            "write" => 4,
            "alter" => 7,
            "describe" => 8,
            "alterconfigs" => 11,
            other => panic!("{other}"),
        };
        let raw = RawBinding {
            resource: 2,
            name,
            pattern,
            principal: &format!("User:{user}"),
            host: rest.first().copied().unwrap_or("*"),
            operation,
            permission: if *permission == "allow" { 3 } else { 2 },
        };
        Binding::check(raw).unwrap()
    }

    fn authorizer(entries: &[&str], everyone: bool) -> Authorizer {
        let settings = AuthorizationSettings { allow_everyone_if_no_acl_found: everyone, ..Default::default() };
        let all = entries.iter().map(|text| entry(text)).collect();
        Authorizer::of(None, settings, &[Principal::user("root")], all)
    }

    fn may(authorizer: &Authorizer, user: &str, operation: Operation, name: &str) -> bool {
        let principal = Principal::user(user);
        authorizer.allows(Who { principal: &principal, host: "127.0.0.1".parse().unwrap() }, operation, TOPIC, name)
    }

    #[test]
    fn a_denial_wins_and_rights_imply_others() {
        use Operation::*;
        let a = authorizer(
            &[
                "allow alice read ord*",
                "deny alice read orders-secret",
                "allow * describe public",
                "allow bob all * 127.0.0.1",
                "allow carol all x 10.0.0.1",
                "deny dan describe public",
                "allow dan read public",
                "allow eve alterconfigs x",
            ],
            false,
        );
        assert!(may(&a, "alice", Read, "orders") && may(&a, "alice", Describe, "ord"));
        assert!(!may(&a, "alice", Write, "orders") && !may(&a, "alice", Read, "other"));
        assert!(!may(&a, "alice", Read, "orders-secret"));
        // What is denied is the reading; describing is still implied by the prefix's entry.
        assert!(may(&a, "alice", Describe, "orders-secret"));
        assert!(may(&a, "nobody", Describe, "public") && !may(&a, "nobody", Read, "public"));
        assert!(may(&a, "bob", AlterConfigs, "anything") && !may(&a, "carol", Read, "x"));
        assert!(may(&a, "dan", Read, "public") && !may(&a, "dan", Describe, "public"));
        assert!(may(&a, "eve", DescribeConfigs, "x") && !may(&a, "eve", Describe, "x"));
        assert!(may(&a, "root", Delete, "orders-secret"));
    }

    #[test]
    fn everyone_may_only_where_no_entry_is_about_the_resource() {
        let a = authorizer(&["allow alice read orders", "deny alice write pre*"], true);
        assert!(may(&a, "bob", Operation::Write, "other"));
        assert!(!may(&a, "bob", Operation::Read, "orders") && !may(&a, "bob", Operation::Read, "prefix"));
        assert!(!may(&authorizer(&[], false), "bob", Operation::Read, "other"));
    }

    #[test]
    fn any_topic_is_one_that_is_not_denied_altogether() {
        let any = |entries: &[&str]| {
            let (alice, host) = (Principal::user("alice"), "127.0.0.1".parse().unwrap());
            let who = Who { principal: &alice, host };
            authorizer(entries, false).allows_any(who, Operation::Write, TOPIC)
        };
        assert!(any(&["allow alice write t"]) && any(&["allow * all t*"]) && any(&["allow alice write *"]));
        assert!(!any(&[]) && !any(&["allow bob write t"]) && !any(&["allow alice read t"]));
        assert!(!any(&["allow alice write t", "deny alice write t"]));
        assert!(!any(&["allow alice write t*", "allow alice write to", "deny * all t*"]));
        assert!(!any(&["allow alice write t", "deny * write *"]));
        assert!(any(&["allow alice write t*", "deny alice write to*"]));
    }

    #[tokio::test]
    async fn remembered_decisions_end_with_the_entries() {
        let a = authorizer(&[], false);
        let (alice, host) = (Principal::user("alice"), "127.0.0.1".parse().unwrap());
        let decisions = Decisions::default();
        let may = |name: &str| decisions.allows(&a, Who { principal: &alice, host }, Operation::Read, TOPIC, name);
        assert!(!may("t") && !may("t"));
        a.create(vec![entry("allow alice read t")]).await.unwrap();
        assert!(may("t") && may("t"));
        let deleted = a.delete(&[Filter::any(), Filter::any()]).await.unwrap();
        assert_eq!(deleted.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
        assert!(!may("t"));
        for i in 0..3 * DECISIONS_MAX {
            may(&i.to_string());
        }
        assert!(decisions.0.lock().count <= DECISIONS_MAX);
        let too_many = (0..=10_000).map(|i| entry(&format!("allow alice read t{i}"))).collect();
        assert!(matches!(a.create(too_many).await, Err(AclError::TooMany(_))));
        assert!(a.find(&Filter::any()).is_empty());
    }
}
