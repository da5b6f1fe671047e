#!/usr/bin/env bash
# Runs ksqlDB's own cases, those of queries and those of the HTTP server, and holds the numbers that pass: they only rise.
# The cases are not part of this repository (they are under ksqlDB's licence); $MILLPOND_CASES says where they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# stage WHAT FOLDER RATCHET REPORT
stage() {
  local what=$1 cases=${MILLPOND_CASES:-../shared/cases/ksqldb}/$2 report=$MILLPOND_CACHE/$4 ratchet
  ratchet=$(cat "$3")
  if [ ! -d "$cases" ]; then
    echo "!!! NO CONFORMANCE RUN: ksqlDB's $what cases are not at $cases; set MILLPOND_CASES to their folder"
    # Who works without the cases may; a run that is to prove something may not.
    [ -z "${CI:-}" ]
    return
  fi
  "$MILLPOND" test --at-least "$ratchet" "$cases" >"$report" || {
    echo "$what cases:"
    tail -n 3 "$report"
    return 1
  }
  echo "$what cases: $(tail -n 1 "$report") (at least $ratchet must pass; per case: $report)"
}

failed=0
stage query query-validation-tests tests/conformance.ratchet conformance.txt || failed=1
stage REST rest-query-validation-tests tests/rest.ratchet conformance-rest.txt || failed=1
exit "$failed"
