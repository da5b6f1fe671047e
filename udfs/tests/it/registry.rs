//! Modules by name: what may come in, what may go, what is there after opening again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millpond_types::{ErrorKind, Result, Value};
use millpond_udfs::{Host, HostOptions, InstanceScope, ModuleEntry, ModuleStore, ParamType, Put, Registry};

use crate::support::*;

#[derive(Default)]
struct MemoryStore(Mutex<BTreeMap<Vec<u8>, Bytes>>);

impl ModuleStore for MemoryStore {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>> {
        let entries = self.0.lock().unwrap();
        Ok(entries.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn commit(&self, writes: Vec<(Vec<u8>, Option<Bytes>)>) -> Result<()> {
        let mut entries = self.0.lock().unwrap();
        for (key, value) in writes {
            assert!(value.as_ref().is_none_or(|value| value.len() <= 1 << 20));
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        Ok(())
    }
}

fn add(constant: i64, name: &str) -> Vec<u8> {
    wat::parse_str(format!(
        "(component (core module $m (func (export \"f\") (param i64) (result i64)
             (i64.add (local.get 0) (i64.const {constant}))))
           (core instance $i (instantiate $m))
           (func (export \"{name}\") (param \"n\" s64) (result s64) (canon lift (core func $i \"f\"))))"
    ))
    .unwrap()
}

fn no_built_in(_: &str, _: &[ParamType]) -> bool {
    false
}

fn no_users(_: &ModuleEntry) -> Vec<String> {
    Vec::new()
}

fn sum(registry: &Registry, name: &str, function_name: &str) -> Value {
    let module = registry.load(&registry.get(name).unwrap()).unwrap();
    let f = function(&module, function_name);
    call_in(&f, &mut f.instance(InstanceScope::Step), 1, &[longs(&[1])], 1).unwrap().0.remove(0)
}

#[test]
fn names_and_signatures_are_kept_apart() {
    let store = Arc::new(MemoryStore::default());
    let registry = Registry::open(host(), store.clone()).unwrap();
    let put = |name: &str, bytes: &[u8]| registry.put(name, bytes, &no_built_in, &no_users);
    let one = add(1, "plus");
    assert!(matches!(put("one", &one).unwrap(), Put::Created(_)));
    assert!(matches!(put("one", &one).unwrap(), Put::Unchanged(_)));
    assert_eq!(sum(&registry, "one", "PLUS"), Value::BigInt(2));

    let conflict = |result: Result<Put>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        error.message().to_string()
    };
    let two = add(2, "plus");
    assert_eq!(conflict(put("one", &two)), "module \"one\" is there with other bytes; delete it first");
    let used = |_: &ModuleEntry| vec!["CTAS_1".to_string(), "CSAS_2".to_string()];
    assert_eq!(
        conflict(registry.put("one", &two, &no_built_in, &used)),
        "module \"one\" is there with other bytes and used by \"CTAS_1\", \"CSAS_2\""
    );
    assert_eq!(conflict(put("two", &two)), "\"PLUS(BIGINT)\" is already a function of module \"one\"");
    let abs = |name: &str, types: &[ParamType]| name == "ABS" && types.len() == 1;
    assert_eq!(
        conflict(registry.put("abs", &add(0, "abs"), &abs, &no_users)),
        "\"ABS(BIGINT)\" is a built-in function"
    );
    assert_eq!(registry.put("a/b", &one, &no_built_in, &no_users).unwrap_err().kind(), ErrorKind::BadRequest);

    assert_eq!(registry.delete("one", &used).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(registry.delete("none", &no_users).unwrap_err().kind(), ErrorKind::NotFound);
    registry.delete("one", &no_users).unwrap();
    assert!(registry.entries().is_empty());
    assert!(store.0.lock().unwrap().is_empty(), "nothing is left behind");
    put("two", &two).unwrap();
    assert_eq!(sum(&registry, "two", "PLUS"), Value::BigInt(3));
}

#[test]
fn uploads_outlive_a_restart_and_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        HostOptions { limits: small_limits(), cache_dir: Some(dir.path().to_path_buf()), ..HostOptions::default() };
    let store = Arc::new(MemoryStore::default());
    // Several chunks of upload that compile fast: a guest with a large custom section.
    let mut large = guest("classify");
    large.push(0);
    let padding = [b"\x07padding".as_slice(), &[7; 3 << 20]].concat();
    let size = padding.len() as u32;
    large.extend((0..4).map(|i| (size >> (7 * i)) as u8 & 0x7f | if i < 3 { 0x80 } else { 0 }));
    large.extend(padding);
    {
        let registry = Registry::open(Host::new(options.clone()), store.clone()).unwrap();
        registry.put("plus", &add(1, "plus"), &no_built_in, &no_users).unwrap();
        registry.put("large", &large, &no_built_in, &no_users).unwrap();
    }
    let code_files = || {
        let files = std::fs::read_dir(dir.path()).unwrap().flatten();
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "code")).collect::<Vec<_>>()
    };
    assert_eq!(code_files().len(), 2);
    let registry = Registry::open(Host::new(options.clone()), store.clone()).unwrap();
    assert_eq!(registry.entries().iter().map(|e| e.name.clone()).collect::<Vec<_>>(), ["large", "plus"]);
    assert_eq!(sum(&registry, "plus", "PLUS"), Value::BigInt(2));
    for file in code_files() {
        std::fs::remove_file(file).unwrap();
    }
    // Compiled anew from the stored bytes, which are many chunks.
    let registry = Registry::open(Host::new(options), store).unwrap();
    let digest = registry.get("large").unwrap().report.digest.clone();
    let section = function(&registry.load_digest(&digest).unwrap(), "URL_SECTION");
    let answer = call_in(&section, &mut section.instance(InstanceScope::Step), 1, &[strings(&["/a/b"])], 1).unwrap();
    assert_eq!(answer.0, [text("a")]);
}
