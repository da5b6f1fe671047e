#!/usr/bin/env bash
# Real clients against one server: clients.sh [NAME...]    (default: all)
#
# Kafka: kcat, confluent-kafka, kafka-python, aiokafka, kafkajs, @platformatic/kafka, franz-go, sarama, kafka-go, the Java tools of two releases, Streams,
# Flink's connector; the same requests to Millpond and to Apache Kafka, answer held against answer; Streams, Connect and MirrorMaker 2 with servers of their own; our own commands against Apache Kafka. ksqlDB: PyPI's
# ksql, npm's ksqldb-client.
# Prints ok or FAILED with the seconds of each; the output of those that failed follows.
#
# CAPTURE=FOLDER keeps a request of each API and version that each client sends, for broker/tests/data/captured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export MILLPOND_CACHE=${MILLPOND_CACHE:-$HOME/.cache/millpond}
export MILLPOND=${MILLPOND:-${CARGO_TARGET_DIR:-$MILLPOND_CACHE/target}/debug/millpond}
python=$MILLPOND_CACHE/venv/bin/python

tests/clients/setup.sh
tests/http/setup.sh

work=$(mktemp -d)
server=
proxy=
cleanup() {
  [ -z "$proxy" ] || kill -TERM "$proxy" 2>/dev/null || true
  [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

# Clients that wait for a rebalance should not wait for long.
cat >"$work/config.toml" <<'TOML'
[broker]
group_initial_rebalance_delay_ms = 0
group_min_session_timeout_ms = 100
group_consumer_heartbeat_interval_ms = 300
transaction_timeout_max_ms = 3600000
TOML
if [ -n "${CAPTURE:-}" ]; then
  mkdir -p "$CAPTURE"
  export CAPTURE=$(realpath "$CAPTURE")
  behind=$(tests/clients/ports.py)
  echo none >"$CAPTURE/client"
  python3 tests/clients/capture.py "127.0.0.1:$behind" "$CAPTURE" >"$work/proxy" &
  proxy=$!
  for _ in $(seq 100); do [ -s "$work/proxy" ] && break; sleep 0.05; done
  sed -i "1i kafka_advertised = \"$(cat "$work/proxy")\"" "$work/config.toml"
fi
touch "$work/listeners"
"$MILLPOND" serve --data "$work/data" --kafka "127.0.0.1:${behind:-0}" --http 127.0.0.1:0 --config "$work/config.toml" \
  >"$work/listeners" 2>"$work/log" &
server=$!
for _ in $(seq 1200); do
  [ "$(wc -l <"$work/listeners")" -ge 2 ] && break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.05
done
kafka=$(sed -n 's/^kafka listening on //p' "$work/listeners")
http=$(sed -n 's/^http listening on //p' "$work/listeners")
if [ -z "$kafka" ] || [ -z "$http" ]; then
  echo "the server did not start:" >&2
  cat "$work/log" >&2
  exit 1
fi

[ -z "$proxy" ] || kafka=$(cat "$work/proxy")

wanted=" $* "
failed=()
# client NAME COMMAND...: runs one client's script.
client() {
  local name=$1 start=$EPOCHREALTIME result=ok
  shift
  [ -z "$proxy" ] || echo "$name" >"$CAPTURE/client"
  [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || return 0
  timeout 900 "$@" >"$work/$name.out" 2>&1 || result=FAILED
  printf '%-8s %-16s %6.1f s\n' "$result" "$name" "$(bc -l <<<"$EPOCHREALTIME - $start")"
  if [ $result = FAILED ]; then
    failed+=("$name")
    sed "s/^/    /" "$work/$name.out" | tail -n 40
  fi
}

client kcat tests/clients/kcat.sh "$kafka"
client confluent "$python" tests/clients/confluent.py "$kafka"
client registry "$python" tests/clients/registry.py "$kafka" "$http"
client churn "$python" tests/clients/churn.py "$kafka"
client churn-cooperative "$python" tests/clients/churn.py "$kafka" cooperative
client churn-consumer "$python" tests/clients/churn.py "$kafka" consumer
client eos-copy "$python" tests/clients/eos_copy.py "$MILLPOND" 50 classic
client eos-consumer "$python" tests/clients/eos_copy.py "$MILLPOND" 50 consumer
client kafka-python "$python" tests/clients/kafka_python.py "$kafka"
client aiokafka "$python" tests/clients/aio_kafka.py "$kafka"
client kafkajs node tests/clients/kafkajs.js "$kafka"
client platformatic "$MILLPOND_CACHE/node/node_modules/.bin/node" tests/clients/platformatic.mjs "$kafka"
client franz-go "$MILLPOND_CACHE/go/franz" "$kafka"
client sarama "$MILLPOND_CACHE/go/sarama" "$kafka"
client kafka-go "$MILLPOND_CACHE/go/segmentio" "$kafka"
client java-3.7 tests/clients/java.sh 3.7.2 "$kafka"
client java-4.1 tests/clients/java.sh 4.1.2 "$kafka"
jvm=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=error)
client command tests/clients/command.sh "$MILLPOND"
client differential "$python" tests/clients/differential.py
client streams "$python" tests/clients/streams.py
client flink "${jvm[@]}" --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED \
  -cp "$MILLPOND_CACHE/java/flink-2.2.1:$MILLPOND_CACHE/flink/2.2.1/lib/*" Flink "$kafka"
client connect "$python" tests/clients/connect.py
client mirror "$python" tests/clients/mirror.py
client security "$python" tests/clients/security.py "$MILLPOND"
client acls tests/clients/acls.sh "$MILLPOND" "$python"
client ksql "$MILLPOND_CACHE/ksql/venv/bin/python" tests/http/ksql_python.py "$http"
address=${http#http://}
client ksqldb-client node tests/http/ksqldb_client.js "${address%:*}" "${address##*:}"

kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
if [ $status != 0 ]; then
  failed+=("the server's end: status $status")
fi
# With colours taken out; what rows are told of is the processing log's business.
if sed 's/\x1b\[[0-9;]*m//g' "$work/log" | grep -E ' (WARN|ERROR) |panicked' | grep -v millpond::processing >"$work/alarming"; then
  echo "the server logged:"
  sort "$work/alarming" | uniq -c | sed 's/^/    /' | tail -n 20
  failed+=("the server's log")
fi
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
