#!/usr/bin/env bash
# The Java command-line tools against a server: java.sh BOOTSTRAP. Exits non-zero on any failure.
set -euo pipefail
B="${1:?usage: java.sh BOOTSTRAP}"
LIB="${MILLPOND_CACHE:-$HOME/.cache/millpond}/kafka/${KAFKA_JAVA:-3.9.1}/lib"
RUN="java$$"
WORK="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$WORK"' EXIT
say() { echo "java: $*"; }
die() { echo "java: FAILED: $*" >&2; cat "$WORK"/out* >&2 2>/dev/null || true; exit 1; }
cat >"$WORK/log4j.properties" <<'LOG'
log4j.rootLogger=ERROR, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.Target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%p %m%n
LOG
tool() {
    local class="$1"; shift
    timeout 90 java -XX:TieredStopAtLevel=1 -Xshare:auto -Xmx256m -Dlog4j.configuration="file:$WORK/log4j.properties" \
        -cp "$LIB/*" "$class" "$@"
}
# The console producer moved to another package in 4.0.
PRODUCER=kafka.tools.ConsoleProducer
if ls "$LIB"/kafka-tools-4* >/dev/null 2>&1; then PRODUCER=org.apache.kafka.tools.ConsoleProducer; fi
topics() { tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$B" "$@"; }
produce() { tool "$PRODUCER" --bootstrap-server "$B" "$@"; }
consume() { tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$B" "$@"; }
groups() { tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$B" "$@"; }
has() { grep -Eq -- "$1" "$2" || die "no \"$1\" in: $(cat "$2")"; }

T="$RUN-topic"
topics --create --topic "$T" --partitions 2 --config retention.ms=123456 >"$WORK/out"
topics --list >"$WORK/out"; has "^$T\$" "$WORK/out"
topics --describe --topic "$T" >"$WORK/out"
has "PartitionCount: 2" "$WORK/out"; has "retention.ms=123456" "$WORK/out"; has "Leader: 1" "$WORK/out"
topics --alter --topic "$T" --partitions 3 >"$WORK/out"
topics --describe --topic "$T" >"$WORK/out"; has "PartitionCount: 3" "$WORK/out"
say "kafka-topics"

seq 1 300 >"$WORK/lines"
for codec in none gzip snappy lz4 zstd; do
    C="$RUN-$codec"
    topics --create --topic "$C" >/dev/null
    produce --topic "$C" --compression-codec "$codec" <"$WORK/lines" >"$WORK/out" 2>&1
    consume --topic "$C" --from-beginning --max-messages 300 --timeout-ms 20000 >"$WORK/got" 2>"$WORK/out"
    sort -n "$WORK/got" | cmp -s "$WORK/lines" - || die "$codec: $(wc -l <"$WORK/got") lines"
done
say "console producer (idempotent by default) and consumer, all codecs"

X="$RUN-txn"
topics --create --topic "$X" --partitions 2 >/dev/null
tool org.apache.kafka.tools.ProducerPerformance --topic "$X" --num-records 2000 --record-size 50 --throughput 4000 \
    --producer-props "bootstrap.servers=$B" --transactional-id "$X" --transaction-duration-ms 100 >"$WORK/out" 2>&1
has "2000 records sent" "$WORK/out"
consume --topic "$X" --from-beginning --isolation-level read_committed --timeout-ms 5000 >"$WORK/got" 2>"$WORK/out" || true
[ "$(wc -l <"$WORK/got")" = 2000 ] || die "of 2000 in transactions $(wc -l <"$WORK/got") were read"
transactions() { tool org.apache.kafka.tools.TransactionsCommand --bootstrap-server "$B" "$@"; }
transactions list >"$WORK/out"; has "^$X\s.*CompleteCommit" "$WORK/out"
transactions describe --transactional-id "$X" >"$WORK/out"; has "CompleteCommit\s+60000" "$WORK/out"
transactions describe-producers --topic "$X" --partition 0 >"$WORK/out"; has "^[0-9]+\s+0\s.*None" "$WORK/out"
say "transactional producer, read_committed, kafka-transactions"

G="$RUN-group"
sed 's/.*/&:&/' "$WORK/lines" >"$WORK/keyed" # keys spread over the partitions
produce --topic "$T" --property parse.key=true --property key.separator=: <"$WORK/keyed" >"$WORK/out" 2>&1
consume --topic "$T" --group "$G" --from-beginning --timeout-ms 60000 >"$WORK/got1" 2>"$WORK/out1" & first=$!
consume --topic "$T" --group "$G" --from-beginning --timeout-ms 60000 >"$WORK/got2" 2>"$WORK/out2" & second=$!
both() { groups --describe --group "$G" --state >"$WORK/out" 2>&1; grep -Eq "range +Stable +2" "$WORK/out"; }
for _ in $(seq 20); do if both; then break; fi; sleep 1; done
both || die "not two members"
groups --describe --group "$G" --members >"$WORK/out" 2>&1
[ "$(grep -c "^$G .*console-consumer" "$WORK/out")" = 2 ] || die "describe --members"
all_read() { [ "$(cat "$WORK"/got1 "$WORK"/got2 | sort -n | uniq | wc -l)" = 300 ]; }
for _ in $(seq 30); do all_read && break; sleep 1; done
all_read || die "read $(cat "$WORK"/got1 "$WORK"/got2 | wc -l) of 300"
sleep 6 # auto.commit.interval.ms
groups --describe --group "$G" >"$WORK/out"
[ "$(awk -v g="$G" '$1 == g { end += $5; at += $4; lag += $6; n++ } END { print n, at, end, lag }' "$WORK/out")" = "3 300 300 0" ] || die "describe"
kill $first $second; wait $first $second 2>/dev/null || true
say "two members, describe"

groups --list >"$WORK/out"; has "^$G\$" "$WORK/out"
for _ in $(seq 60); do
    groups --describe --group "$G" --state >"$WORK/out" 2>&1 || true
    if grep -q Empty "$WORK/out"; then break; fi
    sleep 1
done
groups --reset-offsets --group "$G" --topic "$T" --to-earliest --execute >"$WORK/out"
groups --describe --group "$G" >"$WORK/out" 2>/dev/null
[ "$(awk -v g="$G" '$1 == g { at += $4; lag += $6 } END { print at, lag }' "$WORK/out")" = "0 300" ] || die "reset"
groups --reset-offsets --group "$G" --topic "$T:0" --to-offset 2 --execute >"$WORK/out"; has " 0 +2 *\$" "$WORK/out"
consume --topic "$T" --group "$G" --timeout-ms 8000 >"$WORK/got" 2>"$WORK/out" || true
[ "$(wc -l <"$WORK/got")" = 298 ] || die "after the reset $(wc -l <"$WORK/got") of 298 were read"
say "reset-offsets"

groups --delete-offsets --group "$G" --topic "$T" >"$WORK/out" 2>&1; has "Successful" "$WORK/out"
groups --delete --group "$G" >"$WORK/out"; has "success" "$WORK/out"
tool org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$B" --topic "$T" >"$WORK/out"
[ "$(awk -F: '{ n += $3 } END { print n }' "$WORK/out")" = 300 ] || die "get-offsets"
tool org.apache.kafka.tools.LogDirsCommand --bootstrap-server "$B" --describe --topic-list "$T" >"$WORK/out"; has "\"partition\":\"$T-0\"" "$WORK/out"
tool kafka.admin.ConfigCommand --bootstrap-server "$B" --alter --entity-type topics --entity-name "$T" --add-config max.message.bytes=5000 >"$WORK/out"
tool kafka.admin.ConfigCommand --bootstrap-server "$B" --describe --entity-type topics --entity-name "$T" >"$WORK/out"; has "max.message.bytes=5000" "$WORK/out"
topics --delete --topic "$T" >"$WORK/out"
topics --list >"$WORK/out"; if grep -qx "$T" "$WORK/out"; then die "deleted topic is listed"; fi
say "delete-offsets, delete, get-offsets, log-dirs, configs"
say ok
