#!/usr/bin/env bash
# Every stock client against a server: run.sh [BOOTSTRAP]. Without an address it starts the log by itself, in a
# directory of its own. Prints one line per client; exits non-zero when one of them fails.
set -uo pipefail
cd "$(dirname "$0")"
CACHE="${MILLPOND_CACHE:-$HOME/.cache/millpond}"
WORK="$(mktemp -d)"
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$WORK"' EXIT

./setup.sh || exit 1
bootstrap="${1:-}"
if [ -z "$bootstrap" ]; then
    (cd ../.. && cargo build --quiet -p millpond-broker --example serve) || exit 1
    "${CARGO_TARGET_DIR:-../../target}/debug/examples/serve" "$WORK/data" 127.0.0.1:0 >"$WORK/server" 2>&1 & server=$!
    for _ in $(seq 100); do grep -q '^kafka ' "$WORK/server" && break; sleep 0.1; done
    bootstrap="$(sed -n 's/^kafka //p' "$WORK/server")"
    [ -n "$bootstrap" ] || { echo "clients: the server did not start:" >&2; cat "$WORK/server" >&2; exit 1; }
fi

python="$CACHE/venv/bin/python"
failed=0
check() {
    local name="$1"; shift
    local began=$SECONDS
    if timeout 400 "$@" >"$WORK/$name" 2>&1; then
        echo "clients: $name ok, $((SECONDS - began)) s"
    else
        failed=1
        echo "clients: $name FAILED"
        sed 's/^/    /' "$WORK/$name"
    fi
}
check kcat ./kcat.sh "$bootstrap"
check confluent "$python" confluent.py "$bootstrap"
check churn "$python" churn.py "$bootstrap"
check kafka-python "$python" kafka_python.py "$bootstrap"
check kafkajs node kafkajs.js "$bootstrap"
check java ./java.sh "$bootstrap"
if [ -n "$server" ] && ! kill -0 "$server" 2>/dev/null; then
    failed=1
    echo "clients: the server is gone:"; sed 's/^/    /' "$WORK/server"
fi
exit $failed
