#!/usr/bin/env bash
# Coverage-guided fuzzing by libFuzzer: fuzz.sh [SECONDS] [TARGET...]    (default: 60 seconds each of request, batch, statement)
#
# Begins with the corpus, fuzz/corpus/TARGET.tar.gz, and with what earlier runs found, kept below ~/.cache/millpond/fuzz. A crash, a
# hang of ten seconds or more than 2 GiB ends it with the input's path. `fuzz.sh --keep [TARGET...]` adds what was found to the corpus.
# `fuzz.sh --same [TARGET...]`, for CI: the corpus and nothing else, then a fixed number of inputs from a fixed seed, minutes of them for
# what strangers send. There are as many targets under way as there are processors.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export MILLPOND_CACHE=${MILLPOND_CACHE:-$HOME/.cache/millpond}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$MILLPOND_CACHE/target}
declare -A same=([request]=30000000 [batch]=10000000 [statement]=1000000)
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(request batch statement)

# Only the crates of this workspace are compiled anew, with coverage; the others are those of every build.
RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/rustc-with-coverage \
  cargo build --locked --quiet -p millpond-fuzz -p millpond-deps --features millpond-fuzz/fuzz
fuzz=$CARGO_TARGET_DIR/debug/fuzz
work=$(mktemp -d)
# Addresses are among what libFuzzer learns: only where they are the same do the same inputs come.
fixed=(setarch -R)
"${fixed[@]}" true 2>/dev/null || { echo "addresses cannot be fixed here: --same is not quite the same every time" && fixed=(); }
trap 'rm -rf "$work"' EXIT

# one TARGET: fuzzes it, or keeps what was found of it.
one() {
  local target=$1 found=$MILLPOND_CACHE/fuzz/$1 corpus=$work/$1 limit
  mkdir -p "$found" "$corpus"
  tar -xzf "fuzz/corpus/$target.tar.gz" -C "$corpus"
  export MILLPOND_FUZZ=$target
  if [ "$seconds" = --keep ]; then
    mkdir "$work/kept.$target"
    "$fuzz" -merge=1 -max_len=2048 "$work/kept.$target" "$corpus" "$found" >"$work/$target.log" 2>&1
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/kept.$target" -c . | gzip -9n >"fuzz/corpus/$target.tar.gz"
    echo "$target: $(find "$work/kept.$target" -type f | wc -l) inputs kept"
    return
  fi
  limit=(-max_total_time="$seconds" "$found" "$corpus")
  if [ "$seconds" = --same ]; then
    found=$work/$target.found
    mkdir "$found"
    # By name, as a folder's order is its file system's.
    find "$corpus" -type f | LC_ALL=C sort | paste -sd, >"$work/$target.list"
    limit=(-seed=1 -runs="${same[$target]}" -reload=0 -seed_inputs=@"$work/$target.list" "$found")
  fi
  if ! "${fixed[@]}" "$fuzz" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -artifact_prefix="$MILLPOND_CACHE/fuzz/$target.failed-" \
    "${limit[@]}" >"$found.log" 2>&1; then
    tail -n 40 "$found.log"
    return 1
  fi
  echo "$target: $(tail -n 1 "$found.log"), from $(find "$corpus" -type f | wc -l) inputs"
}

running=0 failed=0
for target in "${targets[@]}"; do
  if [ $running -ge "$(nproc)" ]; then
    wait -n || failed=1
    running=$((running - 1))
  fi
  one "$target" &
  running=$((running + 1))
done
for ((; running > 0; running--)); do wait -n || failed=1; done
exit $failed
