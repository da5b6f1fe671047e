#!/usr/bin/env bash
# Builds the guests from source: examples/guests/build.sh [rust] [javascript]     (default: all)
#
# The components land in $MILLPOND_GUESTS (default: ~/.cache/millpond/guests): classify.wasm, probes.wasm and
# sundial.wasm from Rust, words.wasm from JavaScript. What is already built from the same sources is left alone. Rust takes about 40 seconds (two
# minutes where the standard library has to be built too), JavaScript 30, most of it for tools that are fetched once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${MILLPOND_GUESTS:-$HOME/.cache/millpond/guests}
mkdir -p "$out"

say() { echo "guests: $*" >&2; }

# One build at a time: tests that run side by side all ask for the guests.
exec 9>"$out/.lock"
flock 9

# Installs Debian packages, where that is possible.
need() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
  else
    say "missing: please install $*"
    exit 1
  fi
}

# The digest of all sources under the given paths.
sources() {
  find "$@" -type f -not -path '*/node_modules/*' -not -path '*/target/*' -print0 | sort -z | xargs -0 sha256sum |
    sha256sum | cut -d' ' -f1
}

# fresh NAME DIGEST FILE...: whether the files were built from these sources.
fresh() {
  local stamp=$out/.$1.stamp digest=$2 file
  shift 2
  [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] || return 1
  for file in "$@"; do [ -s "$out/$file" ] || return 1; done
}

build_rust() {
  local target=wasm32-unknown-unknown digest
  digest=$(sources "$here/rust" "$here/../../udfs/wit")
  if fresh rust "$digest" classify.wasm probes.wasm sundial.wasm; then return; fi
  say "building the Rust guests (about 40 s the first time)"
  # Whatever started this may be a cargo with settings of its own.
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_TARGET_DIR RUSTC RUSTC_WRAPPER
  local build=(build --release --locked --quiet --target "$target" --target-dir "$out/target"
    --manifest-path "$here/rust/Cargo.toml")
  if command -v rustup >/dev/null && rustup target add "$target" >/dev/null 2>&1; then
    cargo "${build[@]}"
  elif [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; then
    cargo "${build[@]}"
  else
    # Debian's compiler has no standard library for WebAssembly, but its source.
    if ! [ -x /usr/bin/cargo ] || ! [ -d /usr/lib/rustlib/src/rust/library ] || ! command -v wasm-ld-19 >/dev/null; then
      need rustc-web cargo-web rust-web-src lld-19
    fi
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 \
      /usr/bin/cargo "${build[@]}" -Zbuild-std=std,panic_abort
  fi
  cp "$out/target/$target/release/"{classify,probes,sundial}.wasm "$out/"
  echo "$digest" >"$out/.rust.stamp"
}

build_javascript() {
  local digest
  digest=$(sources "$here/javascript")
  if fresh javascript "$digest" words.wasm; then return; fi
  say "building the JavaScript guest (about 30 s the first time)"
  command -v npm >/dev/null || need nodejs npm
  # Built in a copy, so that the sources stay as they are.
  mkdir -p "$out/javascript"
  cp "$here"/javascript/* "$out/javascript/"
  (
    cd "$out/javascript"
    npm ci --no-audit --no-fund --silent
    node build.mjs "$out/words.wasm.new"
  )
  mv "$out/words.wasm.new" "$out/words.wasm"
  echo "$digest" >"$out/.javascript.stamp"
}

[ $# -gt 0 ] || set -- rust javascript
for language in "$@"; do
  case $language in
    rust) build_rust ;;
    javascript) build_javascript ;;
    *)
      say "no guests in \"$language\"; there are rust and javascript"
      exit 2
      ;;
  esac
done
echo "$out"
