#!/usr/bin/env bash
# Benchmarks as a table: bench.sh [--short] [--only=calls|queries|wire|latency]. All: about two minutes; --short: half a minute.
# Built like everything else (the profile is Cargo's dev with the settings in Cargo.toml), so that nothing is compiled twice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${MILLPOND_CACHE:-$HOME/.cache/millpond}/target}
exec cargo bench --locked --quiet --profile dev -p millpond -p millpond-deps --bench throughput -- "$@"
