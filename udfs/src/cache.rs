//! Compiled code on disk, and the one unsafe call: making it runnable.
//!
//! ```text
//! <module digest>-<engine mark>.code
//! 0        8                    40
//! | MPWCODE1 | sha256(name, code) | code as wasmtime serialises it |
//! ```
//!
//! A file that is not whole is as good as none: it is compiled anew. What is for another engine is removed when the
//! code for this one is stored.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use millpond_types::{Error, Result};

const MAGIC: &[u8; 8] = b"MPWCODE1";
const HEADER_BYTES: usize = 40;

/// Code that came from this process's compiler or from a file that is what this process's compiler wrote.
pub(crate) struct TrustedCode(Vec<u8>);

impl TrustedCode {
    /// Only for what [`crate::compile`] made for the same engine mark.
    pub(crate) fn from_compiler(code: Vec<u8>) -> Self {
        Self(code)
    }
}

pub(crate) struct CodeCache {
    dir: PathBuf,
}

impl CodeCache {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `None` where there is none, or none that is whole.
    pub(crate) fn load(&self, digest: &str, mark: &str) -> Result<Option<TrustedCode>> {
        let name = file_name(digest, mark);
        let mut bytes = match fs::read(self.dir.join(&name)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::retry(format!("compiled code \"{name}\" cannot be read: {e}"))),
        };
        let whole = bytes.len() >= HEADER_BYTES
            && bytes.get(..8) == Some(MAGIC)
            && bytes.get(8..HEADER_BYTES) == Some(checksum(&name, &bytes[HEADER_BYTES..]).as_slice());
        if !whole {
            tracing::warn!("compiled code \"{name}\" is damaged; compiling anew");
            return Ok(None);
        }
        bytes.drain(..HEADER_BYTES);
        Ok(Some(TrustedCode(bytes)))
    }

    pub(crate) fn store(&self, digest: &str, mark: &str, code: &TrustedCode) -> Result<()> {
        let name = file_name(digest, mark);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.dir)?;
            let unfinished = self.dir.join(format!("{name}.{}", std::process::id()));
            let mut file = fs::File::create(&unfinished)?;
            file.write_all(MAGIC)?;
            file.write_all(&checksum(&name, &code.0))?;
            file.write_all(&code.0)?;
            drop(file);
            fs::rename(&unfinished, self.dir.join(&name))
        };
        write().map_err(|e| Error::retry(format!("compiled code \"{name}\" cannot be stored: {e}")))?;
        self.remove_but(digest, Some(&name));
        Ok(())
    }

    pub(crate) fn remove(&self, digest: &str) {
        self.remove_but(digest, None);
    }

    fn remove_but(&self, digest: &str, keep: Option<&str>) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.strip_prefix(digest).is_some_and(|rest| rest.starts_with('-')) && Some(name) != keep {
                // What cannot be removed now is only disk space; it is tried again with the next store.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn file_name(digest: &str, mark: &str) -> String {
    format!("{digest}-{mark}.code")
}

fn checksum(name: &str, code: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(name).chain_update(code).finalize().into()
}

/// Makes compiled code runnable.
#[allow(unsafe_code, reason = "wasmtime cannot check machine code; this is the only place that vouches for it")]
pub(crate) fn deserialize(engine: &Engine, code: TrustedCode) -> Result<Component> {
    // SAFETY: `Component::deserialize` wants bytes that `Engine::precompile_component` made and nobody changed. A
    // `TrustedCode` is made in two places only: from the output of our own compiler, just now, and from a file in the
    // server's own data directory whose SHA-256 over name and content holds, written from such output. The name has
    // the engine's mark, and wasmtime itself refuses code of another version or configuration. Whoever can forge files
    // with right checksums in the data directory already owns everything that this process protects.
    unsafe { Component::deserialize(engine, code.0) }
        .map_err(|e| Error::corrupt(format!("compiled code cannot be loaded: {e:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, engine};

    #[test]
    fn only_whole_files_are_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::new(dir.path().join("code"));
        let engine = engine::new(&Limits::default()).unwrap();
        let mark = engine::mark(&engine);
        let code = engine.precompile_component(b"(component)").unwrap();
        assert!(cache.load("d1", &mark).unwrap().is_none());
        cache.store("d1", "old-engine", &TrustedCode::from_compiler(vec![1])).unwrap();
        cache.store("d1", &mark, &TrustedCode::from_compiler(code.clone())).unwrap();
        cache.store("d2", &mark, &TrustedCode::from_compiler(code)).unwrap();
        assert!(cache.load("d1", "old-engine").unwrap().is_none(), "code of another engine is removed");
        deserialize(&engine, cache.load("d1", &mark).unwrap().unwrap()).unwrap();

        let file = cache.dir().join(file_name("d1", &mark));
        let whole = fs::read(&file).unwrap();
        for change in [HEADER_BYTES, whole.len() - 1, 9] {
            let mut bytes = whole.clone();
            bytes[change] ^= 1;
            fs::write(&file, bytes).unwrap();
            assert!(cache.load("d1", &mark).unwrap().is_none(), "byte {change} changed");
        }
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(cache.load("d1", &mark).unwrap().is_none(), "cut off");
        fs::copy(cache.dir().join(file_name("d2", &mark)), &file).unwrap();
        assert!(cache.load("d1", &mark).unwrap().is_none(), "another module's code");
        cache.remove("d2");
        assert!(cache.load("d2", &mark).unwrap().is_none());
    }
}
