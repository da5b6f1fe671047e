#!/usr/bin/env bash
# Millpond's own commands against Apache Kafka: command.sh MILLPOND. Starts a node of Kafka with logins and rights.
# Exits non-zero on any failure.
set -euo pipefail
millpond="${1:?usage: command.sh MILLPOND}"
LIB="${MILLPOND_CACHE:-$HOME/.cache/millpond}/kafka/${KAFKA_SERVER:-4.1.2}/lib"
[ -d "$LIB" ] || KAFKA_JAVA="${KAFKA_SERVER:-4.1.2}" "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORK="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$WORK"' EXIT
say() { echo "command: $*"; }
die() { echo "command: FAILED: $*" >&2; tail -n 20 "$WORK"/kafka.log >&2 || true; exit 1; }
jvm=(java -XX:TieredStopAtLevel=1 -Xshare:auto -Xmx256m -XX:+UseSerialGC -cp "$LIB/*")
java_() { "${jvm[@]}" "$@"; }

{ read -r plain; read -r sasl; read -r controller; } < <(python3 "$(dirname "${BASH_SOURCE[0]}")/ports.py" 3)
cat >"$WORK/server.properties" <<CONFIG
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$plain,SASL_PLAINTEXT://127.0.0.1:$sasl,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ben="ben's secret";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
log.dirs=$WORK/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
CONFIG
java_ kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qk -c "$WORK/server.properties" \
  --add-scram 'SCRAM-SHA-256=[name=anna,password=annas]' --add-scram 'SCRAM-SHA-512=[name=anna,password=annas]' >"$WORK/kafka.log" 2>&1
java -XX:TieredStopAtLevel=1 -Xshare:auto -Xmx400m -XX:+UseSerialGC -cp "$LIB/*" kafka.Kafka "$WORK/server.properties" >"$WORK/kafka.log" 2>&1 &
m() { MILLPOND_BOOTSTRAP=127.0.0.1:$plain timeout 60 "$millpond" "$@"; }
as() { local mechanism=$1 user=$2; shift 2; MILLPOND_BOOTSTRAP=127.0.0.1:$sasl timeout 60 "$millpond" "$@" --user "$user" --sasl-mechanism "$mechanism"; }
for _ in $(seq 400); do m topic list >/dev/null 2>&1 && break; sleep 0.3; done
m topic list >/dev/null || die "Kafka does not start"
is() { [ "$1" = "$2" ] || die "\"$1\" instead of \"$2\""; }
refused() { local words=$1; shift; local out; out=$("$@" 2>&1) && die "it went well: $*"; grep -q -- "$words" <<<"$out" || die "no \"$words\" in: $out"; }

m topic create t --partitions 3 --set retention.ms=100000 >/dev/null
refused TOPIC_ALREADY_EXISTS m topic create t
refused 'did you mean "t"' m topic describe tt
for codec in none gzip snappy lz4 zstd; do
  seq 1 1000 | sed 's/$/:value/' | m produce t -K : --compression $codec --quiet
done
is "$(m consume t --until-end | wc -l)" 5000
is "$(m consume t --until-end -f '%k\n' | sort -n | uniq -c | awk '$1 != 5' | wc -l)" 0
m consume t --until-end -f '%p %k\n' | sort -u >"$WORK/ours"
java_ org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server 127.0.0.1:$plain --topic t --from-beginning --max-messages 5000 --timeout-ms 60000 \
  --property print.key=true --property print.partition=true --property print.value=false 2>/dev/null |
  sed -E 's/Partition:([0-9]+)\t/\1 /' | sort -u >"$WORK/theirs" || true
cmp -s "$WORK/ours" "$WORK/theirs" || die "Java reads other keys: $(diff "$WORK/ours" "$WORK/theirs" | head -n 5)"
# Java's producer puts the same keys into the same partitions.
m topic create u --partitions 3 >/dev/null
seq 1 1000 | sed 's/$/:x/' | java_ org.apache.kafka.tools.ConsoleProducer --bootstrap-server 127.0.0.1:$plain --topic u \
  --property parse.key=true --property key.separator=: >/dev/null 2>&1
m consume u --until-end -f '%p %k\n' | sort -u | cmp -s - "$WORK/ours" || die "Java's producer partitions differently"
say "topics, producing in all codecs, consuming, partitions as Java's"

m consume t --group g --count 100 >/dev/null
is "$(m group describe g --output json | grep -c '"lag"')" 3
refused 'NON_EMPTY_GROUP\|no group' m group delete nothere --yes
m group reset-offsets g --topic t --to-earliest --execute >/dev/null
is "$(m consume t --group g --until-end | wc -l)" 5000
# A group of the newer protocol.
"${jvm[@]}" org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server 127.0.0.1:$plain --topic t --group n \
  --from-beginning --consumer-property group.protocol=consumer >/dev/null 2>"$WORK/consumer.log" &
reader=$!
for _ in $(seq 200); do m group describe n --output json >"$WORK/n" 2>/dev/null && grep -q '"client_id": "console' "$WORK/n" && break; sleep 0.3; done
grep -q '"type": "consumer"' "$WORK/n" || die "the newer protocol's group is not described: $(cat "$WORK/n" "$WORK/consumer.log")"
refused 'stop them first' m group reset-offsets n --topic t --to-latest --execute
kill -TERM $reader
wait $reader || true
m group reset-offsets n --topic t --to-offset 3 --execute >/dev/null
is "$(m group describe n --output json | grep -c '"current_offset": 3,')" 3
m group delete g --yes >/dev/null
say "groups of both protocols"

export MILLPOND_PASSWORD=annas
for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do refused TOPIC_AUTHORIZATION_FAILED as $mechanism anna produce t </dev/null; done
m acl add --principal anna --producer --topic t >/dev/null
m acl add --principal User:anna --consumer --topic t --group a --prefixed >/dev/null
echo 'k:v' | as SCRAM-SHA-512 anna produce t -K : --quiet
is "$(as SCRAM-SHA-256 anna consume t --group a-group --from -1 --count 1 | wc -l)" 1
refused GROUP_AUTHORIZATION_FAILED as SCRAM-SHA-256 anna consume t --group b --count 1
is "$(m acl list --principal anna --output json | grep -c '"operation"')" 6
m acl remove --principal anna --yes >/dev/null
refused TOPIC_AUTHORIZATION_FAILED as SCRAM-SHA-256 anna consume t
MILLPOND_PASSWORD=wrong refused 'refuses the login' as SCRAM-SHA-512 anna topic list
MILLPOND_TOKEN=none refused 'it takes' as OAUTHBEARER anna topic list
MILLPOND_PASSWORD="ben's secret" as PLAIN ben topic list >/dev/null 2>&1
cat >"$WORK/client.properties" <<CONFIG
bootstrap.servers=127.0.0.1:$sasl
security.protocol=SASL_PLAINTEXT
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="anna" password="annas";
CONFIG
timeout 60 "$millpond" topic list --config "$WORK/client.properties" 2>/dev/null >/dev/null
say "logins, rights, Kafka's own properties"

# MILLPOND_PASSWORD, which is set here, is not taken for the new password.
is "$(echo carls | m user add carl --bootstrap 127.0.0.1:$plain)" 'added user "carl"'
for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do MILLPOND_PASSWORD=carls as $mechanism carl topic list >/dev/null; done
printf 'another\n' >"$WORK/new"
is "$(m user add carl --bootstrap 127.0.0.1:$plain --new-password-file "$WORK/new" --iterations 4096)" 'changed the password of user "carl"'
MILLPOND_PASSWORD=carls refused 'refuses the login' as SCRAM-SHA-256 carl topic list
MILLPOND_PASSWORD=another as SCRAM-SHA-256 carl topic list >/dev/null
is "$(m user list --bootstrap 127.0.0.1:$plain | sed -n 2p)" $'carl\tSCRAM-SHA-256 (4096), SCRAM-SHA-512 (4096)'
is "$(m user remove carl --yes)" 'removed user "carl"'
refused 'no user "carl"' m user remove carl --yes
MILLPOND_PASSWORD=another refused 'refuses the login' as SCRAM-SHA-256 carl topic list
say "users"

m topic alter t --partitions 4 --set retention.bytes=1000000 --unset retention.ms >/dev/null
# Kafka answers before its broker has the change.
named() { m config describe topic t --output json | grep -c '"name": "retention.bytes"'; }
for _ in $(seq 100); do [ "$(named)" = 1 ] && break; sleep 0.1; done
is "$(named)" 1
m config describe broker 1 >/dev/null
m topic delete-records t --before end --yes >/dev/null
is "$(m consume t --until-end | wc -l)" 0
m topic delete t u --yes >/dev/null
say "settings, deleting"
