#!/usr/bin/env bash
# Installs the two published ksqlDB clients that the tests use, in fixed versions, below ~/.cache/millpond.
# What is there is left alone. Both are old: the Python one is built with the tools of its time.
set -euo pipefail

CACHE="${MILLPOND_CACHE:-$HOME/.cache/millpond}"
KSQL_PYTHON=0.10.2
KSQLDB_CLIENT=1.0.5

venv="$CACHE/ksql/venv"
if [ "$(cat "$CACHE/ksql/version" 2>/dev/null)" != "$KSQL_PYTHON" ]; then
  echo "http clients: installing ksql $KSQL_PYTHON from PyPI into $venv"
  rm -rf "$venv" && python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "setuptools<81" wheel requests six
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation "ksql==$KSQL_PYTHON"
  echo "$KSQL_PYTHON" >"$CACHE/ksql/version"
fi

node="$CACHE/ksqldb-client"
if [ "$(cat "$node/version" 2>/dev/null)" != "$KSQLDB_CLIENT" ]; then
  echo "http clients: installing ksqldb-client $KSQLDB_CLIENT from npm into $node"
  rm -rf "$node" && mkdir -p "$node"
  (
    cd "$node"
    npm init -y >/dev/null 2>&1
    npm install --silent --no-audit --no-fund "ksqldb-client@$KSQLDB_CLIENT"
  )
  echo "$KSQLDB_CLIENT" >"$node/version"
fi
