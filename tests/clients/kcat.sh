#!/usr/bin/env bash
# kcat against a server: kcat.sh BOOTSTRAP. Exits non-zero when anything is not as it should be.
set -euo pipefail
B="${1:?usage: kcat.sh BOOTSTRAP}"
RUN="kcat$$"
WORK="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$WORK"' EXIT
say() { echo "kcat: $*"; }
die() { echo "kcat: FAILED: $*" >&2; exit 1; }
k() { timeout 60 kcat -b "$B" "$@"; }
# Runs the rest of the arguments until it succeeds, for at most a minute.
eventually() { for _ in $(seq 300); do if "$@"; then return 0; fi; sleep 0.2; done; return 1; }

seq 1 5000 | sed 's/.*/value & of a line that repeats and so compresses/' >"$WORK/lines"
for codec in none gzip snappy lz4 zstd; do
    topic="$RUN-$codec"
    k -P -t "$topic" -z "$codec" -X debug=msg <"$WORK/lines" 2>"$WORK/debug"
    if grep -q "does not support compression" "$WORK/debug"; then die "$codec is not believed in"; fi
    k -C -t "$topic" -o beginning -e -q >"$WORK/got"
    cmp -s "$WORK/lines" "$WORK/got" || die "$codec: what was consumed is not what was produced"
    # From the middle of a batch on.
    k -C -t "$topic" -o 1234 -c 1 -e -q | grep -qx "value 1235 of a line that repeats and so compresses" || die "$codec: offset 1234"
done
say "codecs: none gzip snappy lz4 zstd"

topic="$RUN-keys"
printf 'k1\x01one\nk2\x01two\nk3\x01\n' | k -P -t "$topic" -K $'\x01' -Z -H "h=1" -H "h=2"
k -C -t "$topic" -o beginning -e -q -f '%k=%s(%S)%h;' >"$WORK/got"
[ "$(cat "$WORK/got")" = "k1=one(3)h=1,h=2;k2=two(3)h=1,h=2;k3=(-1)h=1,h=2;" ] || die "keys, headers, nulls: $(cat "$WORK/got")"
say "keys, repeated headers, null values"

topic="$RUN-idempotent"
k -P -t "$topic" -X enable.idempotence=true -X acks=all <"$WORK/lines"
k -C -t "$topic" -o beginning -e -q | cmp -s "$WORK/lines" - || die "idempotent producing"
say "idempotent producing"

topic="$RUN-transaction"
# One transaction, which ends with the input.
k -P -t "$topic" -X transactional.id="$topic" <"$WORK/lines" 2>"$WORK/debug" || die "a transaction: $(tail -n 3 "$WORK/debug")"
k -C -t "$topic" -o beginning -e -q -X isolation.level=read_committed | cmp -s "$WORK/lines" - || die "what was committed"
# Its marker takes an offset.
[ "$(k -Q -t "$topic:0:-1")" = "$topic [0] offset 5001" ] || die "the marker: $(k -Q -t "$topic:0:-1")"
say "transactions"

topic="$RUN-acks0"
k -P -t "$topic" -X acks=0 <"$WORK/lines"
count() { [ "$(k -Q -t "$1:0:-1")" = "$1 [0] offset $2" ]; }
eventually count "$topic" 5000 || die "acks=0: $(k -Q -t "$topic:0:-1")"
say "acks=0"

k -L -J | python3 -c 'import json,sys; m = json.load(sys.stdin); t = {t["topic"] for t in m["topics"]}
assert m["brokers"] and "'"$RUN"'-gzip" in t, m' || die "metadata"
[ "$(k -Q -t "$RUN-gzip:0:-2")" = "$RUN-gzip [0] offset 0" ] || die "first offset"
[ "$(k -Q -t "$RUN-gzip:0:9999999999999")" = "$RUN-gzip [0] offset -1" ] || die "offset by a time to come"
[ "$(k -Q -t "$RUN-gzip:0:1600000000000")" = "$RUN-gzip [0] offset 0" ] || die "offset by a time gone by"
say "metadata, offsets"

# A consumer that waits gets what comes without asking again and again.
topic="$RUN-tail"
echo first | k -P -t "$topic"
k -C -t "$topic" -o end -c 1 -X debug=fetch >"$WORK/tail" 2>"$WORK/tail.debug" & tail=$!
# It has asked for what comes after the first.
eventually grep -q "Fetch topic $topic \[0\] at offset 1 " "$WORK/tail.debug" || die "the waiting consumer does not fetch: $(tail -n 5 "$WORK/tail.debug")"
echo second | k -P -t "$topic"
wait $tail || die "the waiting consumer"
grep -qx second "$WORK/tail" || die "the waiting consumer got $(cat "$WORK/tail")"
say "waiting for data"

# A group reads everything once, and its second run goes on where the first stopped.
topic="$RUN-gzip"
k -G "$RUN-group" -X auto.offset.reset=earliest -q -e "$topic" >"$WORK/got" 2>/dev/null
cmp -s "$WORK/lines" "$WORK/got" || die "the group consumed $(wc -l <"$WORK/got") lines"
echo one more | k -P -t "$topic"
k -G "$RUN-group" -X auto.offset.reset=earliest -q -e "$topic" >"$WORK/got" 2>/dev/null
[ "$(cat "$WORK/got")" = "one more" ] || die "the group went on with $(head -1 "$WORK/got")"
say "groups"
say ok
