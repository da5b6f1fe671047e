#!/usr/bin/env bash
# What somebody may do, seen by real tools: acls.sh MILLPOND PYTHON. Starts a server of its own, with a plain listener for
# the administrator and one with SCRAM for users. Exits non-zero on any failure.
set -Eeuo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
MILLPOND="${1:?usage: acls.sh MILLPOND PYTHON}"
PYTHON="${2:?usage: acls.sh MILLPOND PYTHON}"
CACHE="${MILLPOND_CACHE:-$HOME/.cache/millpond}"
VERSIONS="${KAFKA_JAVA:-3.7.2 4.1.2}"
WORK="$(mktemp -d)"
server=
proxies=()
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true; kill -TERM "${proxies[@]}" 2>/dev/null || true; rm -rf "$WORK"' EXIT
say() { echo "acls: $*"; }
die() { echo "acls: FAILED: $*" >&2; tail -n 30 "$WORK/out" "$WORK/log" >&2 2>/dev/null || true; exit 1; }
trap 'die "line $LINENO: $BASH_COMMAND"' ERR
has() { grep -Eq -- "$1" "$WORK/out" || die "no \"$1\" in: $(cat "$WORK/out")"; }
hasnt() { if grep -Eq -- "$1" "$WORK/out"; then die "\"$1\" in: $(cat "$WORK/out")"; fi; }

cat >"$WORK/config.toml" <<'TOML'
[[listener]]
name = "USERS"
address = "127.0.0.1:0"
protocol = "SASL_PLAINTEXT"
mechanisms = ["SCRAM-SHA-256"]

[security]
authorizer = true
super_users = ["User:ANONYMOUS"]

[http_security]
authentication = false

[broker]
group_initial_rebalance_delay_ms = 0
TOML
# With CAPTURE=FOLDER what the tools send is kept there, as clients.sh says.
admin_port=0
if [ -n "${CAPTURE:-}" ]; then
  { read -r admin_port; read -r users_port; } < <(python3 "$here/ports.py" 2)
  for side in admin users; do
    port=${side}_port
    python3 "$here/capture.py" "127.0.0.1:${!port}" "$CAPTURE" 0 "acls-$side" >"$WORK/$side.proxy" &
    proxies+=($!)
    for _ in $(seq 100); do [ -s "$WORK/$side.proxy" ] && break; sleep 0.05; done
  done
  sed -i -e "s/^address = .*/address = \"127.0.0.1:$users_port\"\nadvertised = \"$(cat "$WORK/users.proxy")\"/" \
    -e "1i kafka_advertised = \"$(cat "$WORK/admin.proxy")\"" "$WORK/config.toml"
fi
touch "$WORK/listeners"
"$MILLPOND" serve --data "$WORK/data" --kafka "127.0.0.1:$admin_port" --http 127.0.0.1:0 --config "$WORK/config.toml" \
  >"$WORK/listeners" 2>"$WORK/log" &
server=$!
for _ in $(seq 1200); do
  [ "$(wc -l <"$WORK/listeners")" -ge 3 ] && break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.05
done
admin=$(sed -n 's/^kafka listening on //p' "$WORK/listeners")
users=$(sed -n 's/^kafka USERS listening on //p' "$WORK/listeners")
[ -n "$admin" ] && [ -n "$users" ] || die "the server did not start"
[ -z "${CAPTURE:-}" ] || { admin=$(cat "$WORK/admin.proxy") users=$(cat "$WORK/users.proxy"); }

cat >"$WORK/log4j.properties" <<'LOG'
log4j.rootLogger=ERROR, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.Target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%p %m%n
LOG
tool() {
  local class="$1"
  shift
  timeout 90 java -XX:TieredStopAtLevel=1 -Xshare:auto -Xmx256m -Dlog4j.configuration="file:$WORK/log4j.properties" \
    -cp "$LIB/*" "$class" "$@"
}
configs() { tool kafka.admin.ConfigCommand --bootstrap-server "$admin" "$@"; }

for version in $VERSIONS; do
  LIB="$CACHE/kafka/$version/lib"
  [ -d "$LIB" ] || die "Kafka's tools $version are not in $LIB: KAFKA_JAVA=$version tests/clients/setup.sh"
  ACLS=kafka.admin.AclCommand
  case $version in 4.*) ACLS=org.apache.kafka.tools.AclCommand ;; esac
  acls() { tool "$ACLS" --bootstrap-server "$admin" "$@"; }
  T="t-$version"

  acls --add --allow-principal User:alice --operation Read --operation Write --topic "$T" >"$WORK/out" 2>&1
  acls --add --allow-principal User:alice --consumer --topic "pre-$version" --group g --resource-pattern-type prefixed \
    >"$WORK/out" 2>&1
  acls --add --deny-principal User:mallory --operation All --topic '*' --deny-host 10.0.0.1 >"$WORK/out" 2>&1
  acls --add --allow-principal User:alice --operation IdempotentWrite --cluster >"$WORK/out" 2>&1
  acls --list >"$WORK/out" 2>&1
  has "resourceType=TOPIC, name=$T, patternType=LITERAL"
  has "resourceType=TOPIC, name=pre-$version, patternType=PREFIXED"
  has "principal=User:mallory, host=10.0.0.1, operation=ALL, permissionType=DENY"
  has "resourceType=CLUSTER, name=kafka-cluster"
  acls --list --topic "pre-$version-x" --resource-pattern-type match >"$WORK/out" 2>&1
  has "name=pre-$version, patternType=PREFIXED"; has "User:mallory"; hasnt "name=$T,"
  acls --remove --force --allow-principal User:alice --operation Read --topic "$T" >"$WORK/out" 2>&1
  acls --list --topic "$T" >"$WORK/out" 2>&1
  has "operation=WRITE"; hasnt "operation=READ"
  acls --remove --force --topic '*' >"$WORK/out" 2>&1
  acls --list >"$WORK/out" 2>&1; hasnt mallory
  say "kafka-acls $version"

  configs --alter --add-config 'SCRAM-SHA-256=[password=alice-secret]' --entity-type users --entity-name alice >"$WORK/out" 2>&1
  configs --alter --add-config 'producer_byte_rate=1048576,request_percentage=400' --entity-type users --entity-name alice \
    --entity-type clients --entity-name slow >"$WORK/out" 2>&1
  configs --alter --add-config 'consumer_byte_rate=2097152' --entity-type users --entity-default >"$WORK/out" 2>&1
  configs --alter --add-config 'connection_creation_rate=1000' --entity-type ips --entity-name 127.0.0.1 >"$WORK/out" 2>&1
  configs --describe --entity-type users --entity-type clients >"$WORK/out" 2>&1
  has "user-principal 'alice', client-id 'slow' are .*producer_byte_rate=1048576"
  configs --describe --entity-type users >"$WORK/out" 2>&1
  has "default user-principal.*consumer_byte_rate=2097152"; has "user-principal 'alice' are SCRAM-SHA-256"
  configs --describe --entity-type ips >"$WORK/out" 2>&1; has "127.0.0.1.*connection_creation_rate=1000"
  configs --alter --delete-config consumer_byte_rate --entity-type users --entity-default >"$WORK/out" 2>&1
  configs --alter --delete-config connection_creation_rate --entity-type ips --entity-name 127.0.0.1 >"$WORK/out" 2>&1
  configs --alter --delete-config request_percentage,producer_byte_rate --entity-type users --entity-name alice \
    --entity-type clients --entity-name slow >"$WORK/out" 2>&1
  configs --describe --entity-type users --entity-type clients >"$WORK/out" 2>&1; hasnt "byte_rate"
  say "kafka-configs $version: quotas and users"

  cat >"$WORK/alice.properties" <<PROPERTIES
security.protocol=SASL_PLAINTEXT
sasl.mechanism=SCRAM-SHA-256
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="alice" password="alice-secret";
PROPERTIES
  tokens() { tool org.apache.kafka.tools.DelegationTokenCommand --bootstrap-server "$users" --command-config "$WORK/alice.properties" "$@"; }
  tokens --create --max-life-time-period -1 --renewer-principal User:bob >"$WORK/out" 2>&1
  has "User:alice +.*User:bob"
  id=$(awk '/User:alice/ { print $1 }' "$WORK/out") hmac=$(awk '/User:alice/ { print $2 }' "$WORK/out")
  tokens --describe --owner-principal User:alice >"$WORK/out" 2>&1; has "$id"
  tokens --renew --renew-time-period -1 --hmac "$hmac" >"$WORK/out" 2>&1; has "Completed renew operation"
  sed "s/username=\"alice\" password=\"alice-secret\"/username=\"$id\" password=\"${hmac//\//\\/}\" tokenauth=true/" "$WORK/alice.properties" >"$WORK/token.properties"
  tool kafka.admin.ConfigCommand --bootstrap-server "$users" --command-config "$WORK/token.properties" --describe --entity-type topics >"$WORK/out" 2>&1
  tokens --expire --expiry-time-period -1 --hmac "$hmac" >"$WORK/out" 2>&1; has "Completed expire operation"
  tokens --describe --owner-principal User:alice >"$WORK/out" 2>&1; hasnt "$id"
  say "kafka-delegation-tokens $version: create, describe, renew, use, expire"
  acls --remove --force --topic "$T" >"$WORK/out" 2>&1
  acls --remove --force --topic "pre-$version" --resource-pattern-type prefixed >"$WORK/out" 2>&1
  acls --remove --force --group g --resource-pattern-type prefixed >"$WORK/out" 2>&1
  acls --remove --force --cluster >"$WORK/out" 2>&1
  acls --list >"$WORK/out" 2>&1; hasnt "principal="
done

"$PYTHON" "$here/acls.py" "$admin" "$users" alice alice-secret || die "acls.py"
kill -TERM "$server"
wait "$server" || die "the server's end"
server=
if sed 's/\x1b\[[0-9;]*m//g' "$WORK/log" | grep -E ' (WARN|ERROR) |panicked' >"$WORK/out"; then die "the server logged"; fi
say ok
