#!/usr/bin/env bash
# Coverage-guided fuzzing by libFuzzer: fuzz.sh [SECONDS] [TARGET...]    (default: 60 seconds each of request, batch, statement)
#
# Begins with the corpus, fuzz/corpus/TARGET.tar.gz, and with what earlier runs found, kept below ~/.cache/millpond/fuzz. A crash, a
# hang of ten seconds or more than 2 GiB ends it with the input's path. `fuzz.sh --keep [TARGET...]` adds what was found to the corpus.
# `fuzz.sh --same [TARGET...]`, for CI: the corpus and nothing else, then a fixed number of inputs from a fixed seed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export MILLPOND_CACHE=${MILLPOND_CACHE:-$HOME/.cache/millpond}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$MILLPOND_CACHE/target}
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(request batch statement)

# Only the crates of this workspace are compiled anew, with coverage; the others are those of every build.
RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/rustc-with-coverage \
  cargo build --locked --quiet -p millpond-fuzz -p millpond-deps --features millpond-fuzz/fuzz
fuzz=$CARGO_TARGET_DIR/debug/fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for target in "${targets[@]}"; do
  found=$MILLPOND_CACHE/fuzz/$target corpus=$work/$target
  mkdir -p "$found" "$corpus"
  tar -xzf "fuzz/corpus/$target.tar.gz" -C "$corpus"
  export MILLPOND_FUZZ=$target
  if [ "$seconds" = --keep ]; then
    mkdir "$work/kept"
    "$fuzz" -merge=1 -max_len=2048 "$work/kept" "$corpus" "$found" >"$work/log" 2>&1
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/kept" -c . | gzip -9n >"fuzz/corpus/$target.tar.gz"
    echo "$target: $(find "$work/kept" -type f | wc -l) inputs kept"
    rm -rf "$work/kept"
    continue
  fi
  limit=(-max_total_time="$seconds")
  if [ "$seconds" = --same ]; then
    found=$work/$target.found
    mkdir "$found"
    limit=(-seed=1 -runs=1000000)
  fi
  if ! "$fuzz" "${limit[@]}" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -artifact_prefix="$MILLPOND_CACHE/fuzz/$target.failed-" \
    "$found" "$corpus" >"$found.log" 2>&1; then
    tail -n 40 "$found.log"
    exit 1
  fi
  echo "$target: $(tail -n 1 "$found.log"), from $(find "$corpus" -type f | wc -l) inputs"
done
