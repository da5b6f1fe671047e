#!/usr/bin/env bash
# What the comparison with Apache Kafka needs, below ~/.cache/millpond: Kafka's server and tools from Maven Central, and
# librdkafka's rdkafka_performance, built from the source that the crate rdkafka-sys carries.
set -euo pipefail
CACHE="${MILLPOND_CACHE:-$HOME/.cache/millpond}"
RDKAFKA_SYS=4.10.0+2.12.1

KAFKA_JAVA=4.1.2 "$(dirname "${BASH_SOURCE[0]}")/../../tests/clients/setup.sh"

perf="$CACHE/rdkafka/$RDKAFKA_SYS"
if [ ! -x "$perf/rdkafka_performance" ]; then
  echo "building rdkafka_performance"
  rm -rf "$perf" && mkdir -p "$perf/source"
  curl -sSf --retry 3 "https://static.crates.io/crates/rdkafka-sys/rdkafka-sys-$RDKAFKA_SYS.crate" | tar -xz -C "$perf/source" --strip-components=1
  cd "$perf/source/librdkafka"
  cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DRDKAFKA_BUILD_STATIC=ON -DRDKAFKA_BUILD_TESTS=OFF -DRDKAFKA_BUILD_EXAMPLES=ON \
    -DWITH_SSL=OFF -DWITH_SASL=OFF -DWITH_CURL=OFF -DWITH_ZSTD=OFF -DENABLE_LZ4_EXT=OFF >/dev/null
  # librdkafka asks whether this is defined, and CMake defines it as 0.
  sed -i '/WITH_OAUTHBEARER_OIDC/d' build/generated/config.h
  make -C build -j "$(nproc)" rdkafka_performance >/dev/null
  cp build/examples/rdkafka_performance "$perf/"
  rm -rf "$perf/source"
fi
