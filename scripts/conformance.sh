#!/usr/bin/env bash
# Runs ksqlDB's own query cases and holds the number that pass: it only rises.
# The cases are not part of this repository (they are under ksqlDB's licence); $MILLPOND_CASES says where they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cases=${MILLPOND_CASES:-../shared/cases/ksqldb}/query-validation-tests
ratchet=$(cat tests/conformance.ratchet)
if [ ! -d "$cases" ]; then
  echo "!!! NO CONFORMANCE RUN: ksqlDB's query cases are not at $cases; set MILLPOND_CASES to their folder"
  exit 0
fi
"$MILLPOND" test --at-least "$ratchet" "$cases" >"$MILLPOND_CACHE/conformance.txt" || {
  tail -n 3 "$MILLPOND_CACHE/conformance.txt"
  exit 1
}
tail -n 2 "$MILLPOND_CACHE/conformance.txt"
echo "(at least $ratchet must pass; per case: $MILLPOND_CACHE/conformance.txt)"
