//! Holds the arrows between the crates: which may name which, and who alone may name the heavy libraries.

use std::collections::BTreeSet;
use std::path::Path;

/// Crate, and what of ours it may depend on.
const ARROWS: [(&str, &[&str]); 8] = [
    ("types", &[]),
    ("sql", &["types"]),
    ("formats", &["types"]),
    ("registry", &["types", "formats"]),
    ("udfs", &["types"]),
    ("broker", &["types"]),
    ("engine", &["types", "sql", "formats", "registry", "udfs"]),
    ("server", &["types", "sql", "formats", "registry", "engine"]),
];

/// Library, and the one crate that names it. The root's command is a Kafka client too.
const OWNERS: [(&str, &str); 5] = [
    ("rocksdb", "broker"),
    ("kafka-protocol", "broker"),
    ("datafusion", "engine"),
    ("wasmtime", "udfs"),
    ("axum", "server"),
];

/// Names under `[dependencies]`; what only tests use is free.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(manifest).unwrap_or_else(|e| panic!("{}: {e}", manifest.display()));
    let table: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", manifest.display()));
    table["dependencies"].as_table().map(|t| t.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn arrows_point_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, allowed) in ARROWS {
        for dependency in dependencies(&root.join(name).join("Cargo.toml")) {
            if let Some(own) = dependency.strip_prefix("millpond-") {
                assert!(allowed.contains(&own), "\"{name}\" must not depend on \"{own}\"");
            }
        }
    }
}

#[test]
fn heavy_libraries_have_one_owner() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // `deps` names everything to unify features and has no code.
    for name in ARROWS.map(|(name, _)| name).into_iter().chain(["."]) {
        let found = dependencies(&root.join(name).join("Cargo.toml"));
        for (library, owner) in OWNERS {
            let client = name == "." && library == "kafka-protocol";
            assert!(
                name == owner || client || !found.contains(library),
                "\"{library}\" is named by \"{name}\"; only \"{owner}\" may"
            );
        }
    }
}
