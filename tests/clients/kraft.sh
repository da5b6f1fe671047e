#!/usr/bin/env bash
# One node of Apache Kafka (KRaft) from Maven Central on loopback: kraft.sh DIR PORT. Runs until it is killed.
set -euo pipefail
dir="${1:?usage: kraft.sh DIR PORT}" port="${2:?}"
LIB="${MILLPOND_CACHE:-$HOME/.cache/millpond}/kafka/${KAFKA_JAVA:-4.1.2}/lib"
controller=$(python3 "$(dirname "${BASH_SOURCE[0]}")/ports.py")
mkdir -p "$dir"
[ -f "$dir/server.properties" ] || cat >"$dir/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=100
P
jvm=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$LIB/*")
[ -f "$dir/data/meta.properties" ] || "${jvm[@]}" kafka.tools.StorageTool format --cluster-id "$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | tr -d =)" --config "$dir/server.properties"
exec "${jvm[@]}" kafka.Kafka "$dir/server.properties"
