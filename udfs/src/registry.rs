//! The modules that were uploaded, by name: what is there, what may come in, what may go.
//!
//! Not here: what uses a module (the caller knows its queries), how writes become durable ([`ModuleStore`]).
//!
//! Invariants: a name stands for one upload at a time; no two functions of modules, and none of a module and a built-in
//! one, have the same name and parameter types. Opening reads the entries alone: nothing is compiled or loaded, and the
//! bytes stay where they are.
//!
//! ```text
//! entry/<name>                     JSON: version, report
//! bytes/<digest>/<chunk, 4 bytes>  at most 1 MiB of the upload
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use millpond_types::{Error, ErrorKind, Result};

use crate::{FunctionSignature, Host, Module, ModuleReport, ParamType};

/// Bytes of an upload in one stored value.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Characters of a module's name.
const NAME_CHARS_MAX: usize = 128;

const ENTRY_PREFIX: &[u8] = b"entry/";
const BYTES_PREFIX: &[u8] = b"bytes/";
const ENTRY_VERSION: u32 = 1;

/// Where modules are kept: keys and values of the caller's catalog, under a prefix that is the caller's.
pub trait ModuleStore: Send + Sync {
    /// Entries whose key starts with `prefix`, in key order.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>>;

    /// Puts (`Some`) and deletes (`None`), all or none, durable when this returns.
    fn commit(&self, writes: Vec<(Vec<u8>, Option<Bytes>)>) -> Result<()>;
}

/// An uploaded module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleEntry {
    pub name: String,
    pub report: Arc<ModuleReport>,
}

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    Created(ModuleEntry),
    /// The same bytes were there under this name already.
    Unchanged(ModuleEntry),
}

impl Put {
    pub fn entry(&self) -> &ModuleEntry {
        match self {
            Self::Created(entry) | Self::Unchanged(entry) => entry,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    version: u32,
    report: ModuleReport,
}

pub struct Registry {
    host: Host,
    store: Arc<dyn ModuleStore>,
    entries: RwLock<BTreeMap<String, ModuleEntry>>,
    /// Held by whoever changes something, from the first check to the commit.
    changing: Mutex<()>,
}

impl Registry {
    /// Reads the entries.
    pub fn open(host: Host, store: Arc<dyn ModuleStore>) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for (key, value) in store.scan(ENTRY_PREFIX)? {
            let name = key.strip_prefix(ENTRY_PREFIX).and_then(|name| String::from_utf8(name.to_vec()).ok());
            let name = name.ok_or_else(|| Error::corrupt("the name of a stored module is no text"))?;
            let stored: StoredEntry = serde_json::from_slice(&value)
                .map_err(|e| Error::corrupt(format!("the entry of module \"{name}\" cannot be read: {e}")))?;
            if stored.version != ENTRY_VERSION {
                return Err(Error::corrupt(format!(
                    "the entry of module \"{name}\" has version {}; this Millpond reads version {ENTRY_VERSION}",
                    stored.version
                )));
            }
            entries.insert(name.clone(), ModuleEntry { name, report: Arc::new(stored.report) });
        }
        Ok(Self { host, store, entries: RwLock::new(entries), changing: Mutex::new(()) })
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// All, by name.
    pub fn entries(&self) -> Vec<ModuleEntry> {
        self.entries.read().values().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<ModuleEntry> {
        self.entries.read().get(name).cloned()
    }

    /// All functions of all modules, with the module's entry and the index within its report.
    pub fn functions(&self) -> Vec<(ModuleEntry, usize)> {
        let entries = self.entries.read();
        entries.values().flat_map(|entry| (0..entry.report.functions.len()).map(|i| (entry.clone(), i))).collect()
    }

    /// Takes an upload in, compiled and durable when this returns; blocks accordingly. `is_built_in` says whether a
    /// built-in function has this name and takes these types; `users` names what uses a module.
    pub fn put(
        &self,
        name: &str,
        upload: &[u8],
        is_built_in: &dyn Fn(&str, &[ParamType]) -> bool,
        users: &dyn Fn(&ModuleEntry) -> Vec<String>,
    ) -> Result<Put> {
        check_name(name)?;
        let digest = crate::inspect::digest_of(upload);
        if let Some(known) = self.known(name, &digest, users)? {
            return Ok(Put::Unchanged(known));
        }
        // Compiling can take a minute; others may change things meanwhile, so all is looked at again after it.
        let report = self.host.prepare(upload)?;
        let _changing = self.changing.lock();
        if let Some(known) = self.known(name, &digest, users)? {
            return Ok(Put::Unchanged(known));
        }
        let taken = self.check_functions(name, &report, is_built_in);
        let shared = self.entries.read().values().any(|entry| entry.report.digest == digest);
        if let Err(e) = taken {
            if !shared {
                self.host.forget(&digest);
            }
            return Err(e);
        }
        if !shared {
            for (i, chunk) in upload.chunks(CHUNK_BYTES_MAX).enumerate() {
                // Each by itself, so that no commit is larger than a chunk; without its entry a chunk means nothing.
                self.store.commit(vec![(chunk_key(&digest, i as u32), Some(Bytes::copy_from_slice(chunk)))])?;
            }
        }
        let stored = StoredEntry { version: ENTRY_VERSION, report };
        let value = serde_json::to_vec(&stored).map_err(|e| Error::bug(format!("an entry cannot be written: {e}")))?;
        self.store.commit(vec![(entry_key(name), Some(value.into()))])?;
        let entry = ModuleEntry { name: name.to_string(), report: Arc::new(stored.report) };
        self.entries.write().insert(name.to_string(), entry.clone());
        Ok(Put::Created(entry))
    }

    /// Removes a module that nothing uses.
    pub fn delete(&self, name: &str, users: &dyn Fn(&ModuleEntry) -> Vec<String>) -> Result<ModuleEntry> {
        let _changing = self.changing.lock();
        let entry = self.get(name).ok_or_else(|| Error::not_found(format!("there is no module \"{name}\"")))?;
        let users = users(&entry);
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "module \"{name}\" is used by {}; terminate what uses it first",
                quoted(&users)
            )));
        }
        let digest = entry.report.digest.clone();
        let shared = self.entries.read().values().any(|other| other.name != name && other.report.digest == digest);
        let mut writes = vec![(entry_key(name), None)];
        if !shared {
            let chunks = entry.report.bytes.div_ceil(CHUNK_BYTES_MAX as u64);
            writes.extend((0..chunks).map(|i| (chunk_key(&digest, i as u32), None)));
        }
        self.store.commit(writes)?;
        self.entries.write().remove(name);
        if !shared {
            self.host.forget(&digest);
        }
        Ok(entry)
    }

    /// The module of an entry, loaded on first use. Blocks on disk, and where the compiled code is gone on compiling.
    pub fn load(&self, entry: &ModuleEntry) -> Result<Arc<Module>> {
        self.host.load(&entry.report, || self.upload(&entry.report))
    }

    /// The module with this digest, as a query's catalog entry names it.
    pub fn load_digest(&self, digest: &str) -> Result<Arc<Module>> {
        let entry = self.entries.read().values().find(|entry| entry.report.digest == digest).cloned();
        let entry = entry.ok_or_else(|| Error::not_found(format!("there is no module with digest {digest}")))?;
        self.load(&entry)
    }

    fn upload(&self, report: &ModuleReport) -> Result<Bytes> {
        let mut prefix = BYTES_PREFIX.to_vec();
        prefix.extend_from_slice(report.digest.as_bytes());
        prefix.push(b'/');
        let chunks = self.store.scan(&prefix)?;
        let mut upload = Vec::with_capacity(chunks.iter().map(|(_, chunk)| chunk.len()).sum());
        for (_, chunk) in chunks {
            upload.extend_from_slice(&chunk);
        }
        Ok(upload.into())
    }

    /// The entry if it is there with the same bytes; a conflict if with others.
    fn known(
        &self,
        name: &str,
        digest: &str,
        users: &dyn Fn(&ModuleEntry) -> Vec<String>,
    ) -> Result<Option<ModuleEntry>> {
        let Some(entry) = self.get(name) else { return Ok(None) };
        if entry.report.digest == digest {
            return Ok(Some(entry));
        }
        let users = users(&entry);
        Err(Error::conflict(if users.is_empty() {
            format!("module \"{name}\" is there with other bytes; delete it first")
        } else {
            format!("module \"{name}\" is there with other bytes and used by {}", quoted(&users))
        }))
    }

    fn check_functions(
        &self,
        module: &str,
        report: &ModuleReport,
        is_built_in: &dyn Fn(&str, &[ParamType]) -> bool,
    ) -> Result<()> {
        let entries = self.entries.read();
        for function in &report.functions {
            let types = function.param_types();
            if is_built_in(&function.name, &types) {
                return Err(Error::conflict(format!("\"{}\" is a built-in function", call_of(function))));
            }
            for other in entries.values().filter(|other| other.name != module) {
                if other.report.functions.iter().any(|f| f.name == function.name && f.param_types() == types) {
                    return Err(Error::conflict(format!(
                        "\"{}\" is already a function of module \"{}\"",
                        call_of(function),
                        other.name
                    )));
                }
            }
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= NAME_CHARS_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if good {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::BadRequest,
        format!("a module's name has 1 to {NAME_CHARS_MAX} letters, digits, \"-\", \"_\" and \".\""),
    ))
}

fn call_of(function: &FunctionSignature) -> String {
    let types: Vec<String> = function.param_types().iter().map(ToString::to_string).collect();
    format!("{}({})", function.name, types.join(", "))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn entry_key(name: &str) -> Vec<u8> {
    [ENTRY_PREFIX, name.as_bytes()].concat()
}

fn chunk_key(digest: &str, chunk: u32) -> Vec<u8> {
    [BYTES_PREFIX, digest.as_bytes(), b"/", &chunk.to_be_bytes()].concat()
}
