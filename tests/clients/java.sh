#!/usr/bin/env bash
# The Java command-line tools of a release against a server: java.sh VERSION BOOTSTRAP. Exits non-zero on any failure.
set -Eeuo pipefail
VERSION="${1:?usage: java.sh VERSION BOOTSTRAP}" B="${2:?usage: java.sh VERSION BOOTSTRAP}"
CACHE="${MILLPOND_CACHE:-$HOME/.cache/millpond}"
LIB="$CACHE/kafka/$VERSION/lib"
RUN="java${VERSION//./}-$$"
WORK="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$WORK"' EXIT
say() { echo "java $VERSION: $*"; }
die() { echo "java $VERSION: FAILED: $*" >&2; tail -n 12 "$WORK"/*out* "$WORK"/*err* >&2 2>/dev/null || true; exit 1; }
trap 'die "line $LINENO"' ERR
cat >"$WORK/log4j.properties" <<'LOG'
log4j.rootLogger=ERROR, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.Target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%p %m%n
LOG
jvm=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto -Xmx256m -Dlog4j.configuration="file:$WORK/log4j.properties"
    -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$CACHE/java/$VERSION:$LIB/*")

# One virtual machine runs all tools but those that go on beside others.
coproc TOOLS { exec "${jvm[@]}" Tools 2>"$WORK/tools.err"; }
: >"$WORK/stdin"
# tool CLASS ARGUMENT...: standard input is $WORK/stdin; both outputs are passed on.
tool() {
    local line="${SECONDS_MAX:-120}"$'\x1f'"$WORK/stdin"$'\x1f'"$WORK/tool.out"$'\x1f'"$WORK/tool.err" status argument
    for argument in "$@"; do line+=$'\x1f'"$argument"; done
    echo "$line" >&"${TOOLS[1]}"
    read -r status <&"${TOOLS[0]}" || die "the tools' virtual machine ended at: $*"
    cat "$WORK/tool.out"
    cat "$WORK/tool.err" >&2
    return "$status"
}
# alone CLASS ARGUMENT...: for the background; the virtual machine is the child of what $! names.
alone() { exec timeout 300 "${jvm[@]}" "$@"; }
# own CLASS ARGUMENT...: for what finishes when its virtual machine ends.
own() { timeout 180 "${jvm[@]}" "$@"; }

T=org.apache.kafka.tools
case $VERSION in
3.*) PRODUCER=kafka.tools.ConsoleProducer CONSUMER=kafka.tools.ConsoleConsumer GROUPS_=kafka.admin.ConsumerGroupCommand ACLS=kafka.admin.AclCommand APIS=kafka.admin.BrokerApiVersionsCommand ;;
*) PRODUCER=$T.ConsoleProducer CONSUMER=$T.consumer.ConsoleConsumer GROUPS_=$T.consumer.group.ConsumerGroupCommand ACLS=$T.AclCommand APIS=$T.BrokerApiVersionsCommand ;;
esac
topics() { tool $T.TopicCommand --bootstrap-server "$B" "$@"; }
case $VERSION in 3.*) consumer=own ;; *) consumer=tool ;; esac # before 4.0 it counts once for a whole virtual machine
consume() { $consumer $CONSUMER --bootstrap-server "$B" "$@"; }
groups() { tool $GROUPS_ --bootstrap-server "$B" "$@"; }
configs() { tool kafka.admin.ConfigCommand --bootstrap-server "$B" "$@"; }
offsets() { tool $T.GetOffsetShell --bootstrap-server "$B" "$@"; }
transactions() { tool $T.TransactionsCommand --bootstrap-server "$B" "$@"; }
# produce FILE ARGUMENT...
produce() { cp "$1" "$WORK/stdin"; tool $PRODUCER --bootstrap-server "$B" "${@:2}"; }
has() { grep -Eq -- "$1" "$2" || die "no \"$1\" in: $(cat "$2")"; }
# until SECONDS COMMAND...: tries again until it succeeds.
until_() { local end=$((SECONDS + $1)); until "${@:2}"; do [ $SECONDS -lt $end ] || die "not within $1 s: ${*:2}"; sleep 0.3; done; }
OUT="$WORK/out" GOT="$WORK/got"

tool $APIS --bootstrap-server "$B" >"$OUT"; has "Produce\(0\): 0 to [0-9]+ \[usable: [0-9]+\]" "$OUT"; has "EndTxn\(26\)" "$OUT"
say "broker-api-versions"

X="$RUN-topic"
topics --create --topic "$X" --partitions 2 --config retention.ms=123456 >"$OUT"
topics --create --topic "$X" --if-not-exists >"$OUT"
if topics --create --topic "$X" >"$OUT" 2>&1; then die "the same topic twice"; fi; has "exists" "$OUT"
topics --list >"$OUT"; has "^$X\$" "$OUT"
topics --describe --topic "$X" >"$OUT"
has "PartitionCount: 2" "$OUT"; has "retention.ms=123456" "$OUT"; has "Leader: [0-9]+" "$OUT"; has "TopicId: [A-Za-z0-9_-]{22}" "$OUT"
topics --describe --unavailable-partitions >"$OUT"; if grep -q "$X" "$OUT"; then die "unavailable partitions"; fi
topics --alter --topic "$X" --partitions 3 >"$OUT"
topics --describe --topic "$X" >"$OUT"; has "PartitionCount: 3" "$OUT"
say "topics"

configs --alter --entity-type topics --entity-name "$X" --add-config "max.message.bytes=5000,cleanup.policy=[delete,compact]" >"$OUT"
configs --describe --entity-type topics --entity-name "$X" >"$OUT"; has "max.message.bytes=5000 .*DYNAMIC_TOPIC_CONFIG" "$OUT"; has "cleanup.policy=delete,compact" "$OUT"
configs --alter --entity-type topics --entity-name "$X" --delete-config max.message.bytes,cleanup.policy >"$OUT"
configs --describe --entity-type topics --entity-name "$X" --all >"$OUT"; has "max.message.bytes=[0-9]+ .*DEFAULT_CONFIG" "$OUT"
if configs --alter --entity-type topics --entity-name "$X" --add-config retention.ms=never >"$OUT" 2>&1; then die "retention.ms=never"; fi
configs --describe --entity-type brokers --entity-name 1 --all >"$OUT"; has "log.retention" "$OUT"
configs --describe --entity-type topics >"$OUT"; has "$X" "$OUT"
say "configs"

seq 1 300 >"$WORK/lines"
for codec in none gzip snappy lz4 zstd; do
    topics --create --topic "$RUN-$codec" >/dev/null
    produce "$WORK/lines" --topic "$RUN-$codec" --compression-codec "$codec" >"$OUT" 2>&1
    consume --topic "$RUN-$codec" --from-beginning --max-messages 300 --timeout-ms 60000 >"$GOT" 2>"$OUT"
    sort -n "$GOT" | cmp -s "$WORK/lines" - || die "$codec: $(wc -l <"$GOT") lines"
done
printf 'h1:a,h2:b\tkey\tvalue\nh1:c\tnothing\tNULL\n' >"$WORK/headers"
topics --create --topic "$RUN-headers" >/dev/null
produce "$WORK/headers" --topic "$RUN-headers" --property parse.key=true --property parse.headers=true --property null.marker=NULL >"$OUT" 2>&1
consume --topic "$RUN-headers" --from-beginning --max-messages 2 --timeout-ms 60000 --property print.key=true \
    --property print.headers=true --property print.offset=true >"$GOT" 2>"$OUT"
has "Offset:0.h1:a,h2:b.key.value" "$GOT"; has "Offset:1.h1:c.nothing.null" "$GOT"
consume --topic "$RUN-gzip" --partition 0 --offset 290 --max-messages 10 --timeout-ms 60000 >"$GOT" 2>"$OUT"
[ "$(head -n 1 "$GOT")" = 291 ] || die "from offset 290: $(head -n 1 "$GOT")"
say "console producer (idempotent by default) and consumer: codecs, headers, offsets"

offsets --topic "$RUN-none" >"$OUT"; has "^$RUN-none:0:300\$" "$OUT"
offsets --topic "$RUN-none" --time earliest >"$OUT"; has ":0:0\$" "$OUT"
offsets --topic "$RUN-none" --time max-timestamp >"$OUT"; has ":0:[0-9]+\$" "$OUT"
offsets --topic "$RUN-none" --time 1 >"$OUT"; has ":0:0\$" "$OUT"
echo "{\"version\": 1, \"partitions\": [{\"topic\": \"$RUN-none\", \"partition\": 0, \"offset\": 100}]}" >"$WORK/delete.json"
tool $T.DeleteRecordsCommand --bootstrap-server "$B" --offset-json-file "$WORK/delete.json" >"$OUT"; has "low_watermark: 100" "$OUT"
offsets --topic "$RUN-none" --time earliest >"$OUT"; has ":0:100\$" "$OUT"
tool $T.LogDirsCommand --bootstrap-server "$B" --describe --topic-list "$RUN-gzip" >"$OUT"; has "\"partition\":\"$RUN-gzip-0\"" "$OUT"
tool $T.LeaderElectionCommand --bootstrap-server "$B" --election-type preferred --topic "$X" --partition 0 >"$OUT" 2>&1
has "Valid replica already elected" "$OUT"
tool $ACLS --bootstrap-server "$B" --list >"$OUT" 2>&1 || true; has "SecurityDisabled|No Authorizer" "$OUT"
say "get-offsets, delete-records, log-dirs, leader-election, acls"

N="$RUN-txn"
topics --create --topic "$N" --partitions 2 >/dev/null
tool $T.ProducerPerformance --topic "$N" --num-records 2000 --record-size 50 --throughput 4000 \
    --producer-props "bootstrap.servers=$B" --transactional-id "$N" --transaction-duration-ms 100 >"$OUT" 2>&1
has "2000 records sent" "$OUT"
consume --topic "$N" --from-beginning --isolation-level read_committed --max-messages 2000 --timeout-ms 60000 >"$GOT" 2>"$OUT"
[ "$(wc -l <"$GOT")" = 2000 ] || die "of 2000 in transactions $(wc -l <"$GOT") were read"
complete() { transactions list >"$OUT"; grep -Eq "^$N\s.*CompleteCommit" "$OUT"; }
until_ 120 complete
transactions describe --transactional-id "$N" >"$OUT"; has "CompleteCommit\s+60000" "$OUT"
transactions describe-producers --topic "$N" --partition 0 >"$OUT"; has "^[0-9]+\s+[0-9]+\s.*None" "$OUT"
say "transactional producer, read_committed, transactions: list, describe, describe-producers"

# Copies with the group's offsets in its transactions; it tells what it does as JSON.
topics --create --topic "$RUN-source" >/dev/null
topics --create --topic "$RUN-copy" >/dev/null
seq 1 500 >"$WORK/want"
produce "$WORK/want" --topic "$RUN-source" >"$OUT" 2>&1
# It copies what is there when it begins, and no more.
filled() { kcat -b "$B" -Q -t "$RUN-source:0:-1" 2>"$OUT" | grep -q 'offset 500$'; }
until_ 120 filled
own $T.TransactionalMessageCopier --broker-list "$B" --input-topic "$RUN-source" --input-partition 0 --output-topic "$RUN-copy" \
    --transactional-id "$RUN-copier" --consumer-group "$RUN-copier" --transaction-size 100 --enable-random-aborts --max-messages 500 >"$WORK/copier.out" 2>&1
consume --topic "$RUN-copy" --from-beginning --isolation-level read_committed --max-messages 500 --timeout-ms 60000 >"$GOT" 2>"$OUT"
cmp "$GOT" "$WORK/want" || die "the transactional copy differs"
say "transactional copier with aborts"

# A transaction that nobody ends.
topics --create --topic "$RUN-hangs" >/dev/null
alone $T.ProducerPerformance --topic "$RUN-hangs" --num-records 100000 --record-size 50 --throughput 50 \
    --producer-props "bootstrap.servers=$B" --transactional-id "$RUN-hangs" --transaction-duration-ms 60000 >"$WORK/hangs.out" 2>&1 & hangs=$!
open() {
    transactions describe-producers --topic "$RUN-hangs" --partition 0 >"$OUT" 2>&1 || true
    start=$(awk '$1 ~ /^[0-9]+$/ && $6 ~ /^[0-9]+$/ { print $6 }' "$OUT")
    [ -n "$start" ]
}
until_ 120 open
transactions list >"$OUT"; has "$RUN-hangs\s.*Ongoing" "$OUT"
{ pkill -KILL -P $hangs; wait $hangs || true; } 2>/dev/null
if transactions abort --topic "$RUN-hangs" --partition 0 --start-offset "$start" >"$OUT" 2>&1; then
    until_ 120 eval '! open'
    say "transactions: abort"
else
    has "UnsupportedVersion|does not support WRITE_TXN_MARKERS" "$OUT"
    say "transactions: abort is not offered"
fi

G="$RUN-group"
sed 's/.*/&:&/' "$WORK/lines" >"$WORK/keyed" # keys spread over the partitions
produce "$WORK/keyed" --topic "$X" --property parse.key=true --property key.separator=: >"$OUT" 2>&1
alone $CONSUMER --bootstrap-server "$B" --topic "$X" --group "$G" --from-beginning --timeout-ms 240000 >"$WORK/got1" 2>"$WORK/out1" & first=$!
alone $CONSUMER --bootstrap-server "$B" --topic "$X" --group "$G" --from-beginning --timeout-ms 240000 >"$WORK/got2" 2>"$WORK/out2" & second=$!
both() { groups --describe --group "$G" --state >"$OUT" 2>&1; grep -Eq "range +Stable +2" "$OUT"; }
until_ 120 both
groups --describe --group "$G" --members --verbose >"$OUT" 2>&1
[ "$(grep -c "^$G .*console-consumer" "$OUT")" = 2 ] || die "describe --members"
all_read() { [ "$(cat "$WORK"/got1 "$WORK"/got2 | sort -n | uniq | wc -l)" = 300 ]; }
until_ 120 all_read
# awk's numbers of partitions, committed, ends, lag
sums() { groups --describe --group "$G" >"$OUT" 2>/dev/null; awk -v g="$G" '$1 == g { at += $4; end += $5; lag += $6; n++ } END { print n, at, end, lag }' "$OUT"; }
committed() { [ "$(sums)" = "3 300 300 0" ]; }
until_ 120 committed # auto.commit.interval.ms is 5 s
if groups --delete --group "$G" >"$OUT" 2>&1 && ! grep -qi "not empty" "$OUT"; then die "a group with members was deleted"; fi
pkill -TERM -P $first; pkill -TERM -P $second; wait $first $second 2>/dev/null || true
empty() { groups --describe --group "$G" --state >"$OUT" 2>&1 || true; grep -q Empty "$OUT"; }
until_ 120 empty
say "consumer-groups: two members, describe, lag"

# The same from the topic that Kafka keeps it in: partition and offset of each record, or "gone".
case $VERSION in 3.*) formatters='kafka.coordinator.group.GroupMetadataManager$' ;; *) formatters=$T.consumer. ;; esac
told() {
    consume --topic __consumer_offsets --from-beginning --timeout-ms 5000 --formatter "$formatters$1MessageFormatter" >"$GOT" 2>"$OUT" || true
}
told_offsets() {
    told Offsets
    # 4.x prints records without a line's end between.
    sed 's/}{"key"/}\n{"key"/g' "$GOT" | sed -nE -e "s/.*\"group\":\"$G\",\"topic\":\"$X\",\"partition\":([0-9]+).*\"offset\":([0-9]+).*/\1 \2/p" \
        -e "s/.*\"group\":\"$G\",\"topic\":\"$X\",\"partition\":([0-9]+).*\"value\":null.*/\1 gone/p" \
        -e "s/^\[$G,$X,([0-9]+)\]::OffsetAndMetadata\(offset=([0-9]+),.*/\1 \2/p" -e "s/^\[$G,$X,([0-9]+)\]::NULL/\1 gone/p" |
        awk '{ last[$1] = $2 } END { for (p in last) { n++; at += last[p]; gone += last[p] == "gone" } print n + 0, at + 0, gone + 0 }'
}
is_told() { [ "$(told_offsets)" = "$1" ]; }
until_ 120 is_told "3 300 0"
told GroupMetadata; has "$G" "$GOT"; has "consumer" "$GOT"
topics --list >"$OUT"; has "^__consumer_offsets\$" "$OUT"
topics --list --exclude-internal >"$OUT"; if grep -q "__consumer_offsets" "$OUT"; then die "it is not told that a topic is internal"; fi
say "__consumer_offsets: offsets and groups by the console consumer"

groups --list >"$OUT"; has "^$G\$" "$OUT"
groups --list --state >"$OUT"; has "$G +.*Empty" "$OUT"
groups --describe --all-groups >"$OUT" 2>&1; has "$G" "$OUT"
groups --reset-offsets --group "$G" --topic "$X" --to-earliest --dry-run >"$OUT"; [ "$(sums)" = "3 300 300 0" ] || die "a dry run resets"
groups --reset-offsets --group "$G" --all-topics --to-earliest --execute >"$OUT"; [ "$(sums)" = "3 0 300 300" ] || die "to-earliest: $(sums)"
groups --reset-offsets --group "$G" --topic "$X" --shift-by 10 --execute >"$OUT"; [ "$(sums)" = "3 30 300 270" ] || die "shift-by: $(sums)"
groups --reset-offsets --group "$G" --topic "$X" --to-latest --execute >"$OUT"; [ "$(sums)" = "3 300 300 0" ] || die "to-latest: $(sums)"
groups --reset-offsets --group "$G" --topic "$X" --by-duration PT1H --execute >"$OUT"; [ "$(sums)" = "3 0 300 300" ] || die "by-duration: $(sums)"
groups --reset-offsets --group "$G" --topic "$X" --to-datetime 2099-01-01T00:00:00.000 --execute >"$OUT"; [ "$(sums)" = "3 300 300 0" ] || die "to-datetime: $(sums)"
groups --reset-offsets --group "$G" --topic "$X" --to-earliest --execute >"$OUT"
groups --reset-offsets --group "$G" --topic "$X:0" --to-offset 2 --execute >"$OUT"; has " 0 +2 *\$" "$OUT"
consume --topic "$X" --group "$G" --max-messages 298 --timeout-ms 60000 >"$GOT" 2>"$OUT"
[ "$(wc -l <"$GOT")" = 298 ] || die "after the reset $(wc -l <"$GOT") of 298 were read"
until_ 120 empty
groups --delete-offsets --group "$G" --topic "$X" >"$OUT" 2>&1; has "Successful" "$OUT"
groups --delete --group "$G" >"$OUT" 2>&1; has "success" "$OUT"
until_ 120 is_told "3 0 3"
say "consumer-groups: list, reset-offsets, delete-offsets, delete"

# The same by the consumer protocol: one of it joins a group of the classic protocol that is at work, then another.
case $VERSION in
3.*) ;;
*)
    member() { alone $CONSUMER --bootstrap-server "$B" --group "$G" --from-beginning --timeout-ms 240000 --topic "$X" "$@"; }
    member >"$WORK/got1" 2>"$WORK/out1" & first=$!
    until_ 120 eval '[ "$(wc -l <"$WORK/got1")" = 300 ]'
    member --consumer-property group.protocol=consumer >"$WORK/got2" 2>"$WORK/out2" & second=$!
    next() { groups --describe --group "$G" --state >"$OUT" 2>&1; grep -Eq "$1 +Stable +2" "$OUT"; }
    until_ 120 next uniform
    pkill -TERM -P $first; wait $first 2>/dev/null || true
    member --consumer-property group.protocol=consumer --consumer-property group.remote.assignor=range >"$WORK/got1" 2>"$WORK/out1" & first=$!
    until_ 120 next range
    groups --describe --group "$G" --members --verbose >"$OUT" 2>&1
    [ "$(grep -c "^$G .*console-consumer" "$OUT")" = 2 ] || die "describe --members"
    groups --list --type consumer >"$OUT"; has "^$G" "$OUT"
    until_ 120 committed
    pkill -TERM -P $first; pkill -TERM -P $second; wait $first $second 2>/dev/null || true
    until_ 120 empty
    groups --delete --group "$G" >"$OUT" 2>&1; has "success" "$OUT"
    say "consumer-groups: the consumer protocol, changing over to it"
    ;;
esac

V="$RUN-verifiable"
topics --create --topic "$V" --partitions 3 >/dev/null
own $T.VerifiableProducer --bootstrap-server "$B" --topic "$V" --max-messages 500 --throughput 5000 >"$OUT" 2>&1
[ "$(grep -c producer_send_success "$OUT")" = 500 ] || die "verifiable producer"
own $T.VerifiableConsumer --bootstrap-server "$B" --topic "$V" --group-id "$V" --max-messages 500 --reset-policy earliest \
    --session-timeout 45000 >"$OUT" 2>&1
has partitions_assigned "$OUT"; has '"offsets_committed".*"success":true|"success":true.*offsets_committed' "$OUT"
say "verifiable producer and consumer"

P="$RUN-perf"
topics --create --topic "$P" >/dev/null
tool $T.ProducerPerformance --topic "$P" --num-records 20000 --record-size 100 --throughput -1 --producer-props "bootstrap.servers=$B" acks=all >"$OUT" 2>&1
has "20000 records sent" "$OUT"
tool $T.ConsumerPerformance --bootstrap-server "$B" --topic "$P" --messages 20000 --timeout 60000 --hide-header >"$OUT" 2>&1; has ", 20000, " "$OUT"
topics --create --topic "$RUN-e2e" >/dev/null
tool $T.EndToEndLatency "$B" "$RUN-e2e" 100 all 100 >"$OUT" 2>&1
has "Percentiles" "$OUT"
say "performance tools"

# Tools of one broker among others, of what only newer releases have, and of what Millpond has not.
case $VERSION in
3.*) ;;
*)
    features() { tool $T.FeatureCommand --bootstrap-server "$B" "$@"; }
    features describe >"$OUT"; has "group.version.*SupportedMaxVersion: 1.*FinalizedVersionLevel: 1" "$OUT"; has "metadata.version.*FinalizedVersionLevel: 4.1" "$OUT"
    if grep -Eq "kraft.version|eligible.leader" "$OUT"; then die "features of what is not there: $(cat "$OUT")"; fi
    features downgrade --feature transaction.version=1 --dry-run >"$OUT"; has "can be downgraded to 1" "$OUT"
    features downgrade --feature transaction.version=1 >"$OUT"; has "was downgraded to 1" "$OUT"
    features describe >"$OUT"; has "transaction.version.*FinalizedVersionLevel: 1" "$OUT"
    features upgrade --feature transaction.version=2 >"$OUT"; has "was upgraded to 2" "$OUT"
    features upgrade --release-version 4.1 >"$OUT"; has "metadata.version was upgraded" "$OUT"
    if features upgrade --feature nothing=1 >"$OUT" 2>&1; then die "an unknown feature"; fi; has "there is no such feature" "$OUT"
    say "features: describe, downgrade, upgrade"

    # What the server compresses, at the least and the most of each codec's levels.
    seq 1 20000 >"$WORK/numbers"
    for level in gzip=1 gzip=9 lz4=1 lz4=17 zstd=-131072 zstd=22; do
        topic="$RUN-level-${level/=/.}"
        topics --create --topic "$topic" --config "compression.type=${level%=*}" --config "compression.${level%=*}.level=${level#*=}" >/dev/null
        produce "$WORK/numbers" --topic "$topic"
        consume --topic "$topic" --from-beginning --max-messages 20000 >"$GOT" 2>/dev/null
        cmp -s "$WORK/numbers" "$GOT" || die "other records at $level"
    done
    say "levels of compression"

    configs --alter --entity-type groups --entity-name "$G" --add-config consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=6000 >"$OUT"
    configs --describe --entity-type groups --entity-name "$G" >"$OUT"; has "consumer.session.timeout.ms=50000" "$OUT"; has "consumer.heartbeat.interval.ms=6000" "$OUT"
    configs --describe --entity-type groups >"$OUT"; has "$G" "$OUT"
    if configs --alter --entity-type groups --entity-name "$G" --add-config consumer.session.timeout.ms=1 >"$OUT" 2>&1; then die "a session of 1 ms"; fi
    has "must be between" "$OUT"
    configs --alter --entity-type groups --entity-name "$G" --delete-config consumer.session.timeout.ms,consumer.heartbeat.interval.ms >"$OUT"
    configs --describe --entity-type groups >"$OUT"; if grep -q "$G" "$OUT"; then die "settings of a group that were taken back"; fi
    say "configs of groups"

    reassign() { tool $T.reassign.ReassignPartitionsCommand --bootstrap-server "$B" "$@"; }
    echo "{\"version\": 1, \"topics\": [{\"topic\": \"$V\"}]}" >"$WORK/topics.json"
    reassign --generate --topics-to-move-json-file "$WORK/topics.json" --broker-list 1 >"$OUT"
    sed -n '/^Proposed/,$p' "$OUT" | grep '^{' >"$WORK/plan.json"
    reassign --execute --reassignment-json-file "$WORK/plan.json" >"$OUT"; has "Successfully started partition reassignments" "$OUT"
    reassign --execute --throttle 1000000 --reassignment-json-file "$WORK/plan.json" >"$OUT"; has "throttle limit was set to 1000000" "$OUT"
    reassign --list >"$OUT"; has "No partition reassignments found" "$OUT"
    reassign --verify --reassignment-json-file "$WORK/plan.json" >"$OUT"; has "$V-2 is completed" "$OUT"; has "Clearing topic-level throttles" "$OUT"
    reassign --cancel --reassignment-json-file "$WORK/plan.json" >"$OUT"; has "None of the specified partition reassignments are active" "$OUT"
    tool $T.MetadataQuorumCommand --bootstrap-server "$B" describe --status >"$OUT"; has "LeaderId: +1" "$OUT"
    tool $T.MetadataQuorumCommand --bootstrap-server "$B" describe --replication >"$OUT"; has "Leader" "$OUT"
    tool $T.ClusterTool cluster-id --bootstrap-server "$B" >"$OUT"; has "Cluster ID: [A-Za-z0-9_-]{22}" "$OUT"
    tool $T.ClusterTool list-endpoints --bootstrap-server "$B" >"$OUT"; has "^1 .*unfenced +broker" "$OUT"
    say "reassign-partitions, metadata-quorum, cluster"

    tool $T.GroupsCommand --bootstrap-server "$B" --list >"$OUT"; has "^$V .*Consumer|^$V .*Classic" "$OUT"
    tool $T.StreamsResetter --bootstrap-server "$B" --application-id "$V" --input-topics "$V" --to-earliest --force >"$OUT" 2>&1
    has "Partition: 2 Offset: 0" "$OUT"
    tool $T.ClientMetricsCommand --bootstrap-server "$B" --list >"$OUT"
    if tool $T.ClientMetricsCommand --bootstrap-server "$B" --alter --name m --interval 1000 >"$OUT" 2>&1; then die "metrics of clients"; fi
    tool $T.streams.StreamsGroupCommand --bootstrap-server "$B" --list >"$OUT"
    tool $T.consumer.group.ShareGroupCommand --bootstrap-server "$B" --list >"$OUT"
    # It says what is wrong and ends with 0.
    tool $T.consumer.group.ShareGroupCommand --bootstrap-server "$B" --describe --group "$V" >"$OUT" 2>&1 || true
    has "UnsupportedVersionException" "$OUT"
    # It says so at once, and takes long to end, with Apache Kafka too.
    alone $T.consumer.ConsoleShareConsumer --bootstrap-server "$B" --topic "$V" --group "$V-share" >"$WORK/share.out" 2>&1 & share=$!
    until_ 120 eval 'grep -q "ShareGroupHeartbeat.*does not support\|does not support SHARE" "$WORK/share.out"'
    { pkill -KILL -P $share; wait $share || true; } 2>/dev/null
    say "groups, streams-application-reset; client-metrics, streams-groups and share groups are told that there are none"
    ;;
esac

SECONDS_MAX=240 tool Clients "$B" >"$OUT" 2>&1
say "the client itself: administration, transactions, cooperative and static members, fetches of many quiet partitions"

topics --delete --topic "$X" >"$OUT"
topics --list >"$OUT"; if grep -qx "$X" "$OUT"; then die "a deleted topic is listed"; fi
[ -z "${VERBOSE:-}" ] || cat "$WORK/tools.err"; say ok
