#!/usr/bin/env bash
# The demo: nginx serves a small site on loopback, a bounded load asks for its pages under many names, kcat sends each
# line of its access log to Millpond, and `millpond demo` shows the table. With --check it ends by itself and compares
# the table with the log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
check=
[ "${1:-}" = --check ] && check=1

work=$(mktemp -d)
chmod 755 "$work" # nginx started by root serves as nobody
pids=()
cleanup() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  [ -f "$work/nginx.pid" ] && kill "$(cat "$work/nginx.pid")" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

{ read -r web; read -r kafka; read -r http; } < <(tests/clients/ports.py 3)
if [ -n "$check" ]; then kafka=127.0.0.1:$kafka http=127.0.0.1:$http; else kafka=127.0.0.1:9092 http=127.0.0.1:8088; fi

mkdir -p "$work/site/docs" "$work/site/shop"
for page in index.html docs/index.html docs/start.html shop/index.html shop/cart.html; do
  echo "<h1>$page</h1>" >"$work/site/$page"
done
cat >"$work/nginx.conf" <<CONF
pid $work/nginx.pid;
error_log $work/error.log;
worker_processes 1;
events { worker_connections 256; }
http {
  access_log $work/access.log combined;
  client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
  uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
  server { listen 127.0.0.1:$web; root $work/site; }
}
CONF
touch "$work/access.log"
/usr/sbin/nginx -c "$work/nginx.conf" -p "$work" 2>/dev/null

agents=(
  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
  "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
  "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
  "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1"
  "python-requests/2.32" "curl/8.8.0" "some thing else"
)
paths=(/ /docs/ /docs/start.html /shop/ /shop/cart.html "/shop/?q=pond" /gone.html)
# A bounded load: SECONDS of requests, several on each connection.
load() {
  local end=$((SECONDS + $1)) n=0 agent urls
  while [ $SECONDS -lt $end ]; do
    agent=${agents[$((RANDOM % ${#agents[@]}))]}
    urls=()
    for n in 1 2 3 4 5 6 7 8; do urls+=(-o /dev/null "http://127.0.0.1:$web${paths[$((RANDOM % ${#paths[@]}))]}"); done
    curl -s -A "$agent" "${urls[@]}" || true
  done
}
# What $work/send reads is produced by a stock client; each line is one record.
send() { tail -n +1 -F "$work/access.log" 2>/dev/null | kcat -P -b "$kafka" -t access-log -X linger.ms=50 -X compression.codec=lz4; }

wait_for_topic() {
  for _ in $(seq 200); do
    kcat -L -b "$kafka" 2>/dev/null | grep -q '"access-log" with 2 partitions' && return 0
    sleep 0.1
  done
  echo "the topic did not appear" >&2
  return 1
}

feed() {
  wait_for_topic
  send &
  load "$1"
}

if [ -z "$check" ]; then
  feed 3600 &
  pids+=($!)
  echo "nginx serves http://127.0.0.1:$web; its access log goes to topic access-log through kcat"
  "$MILLPOND" demo --kafka "$kafka" --http "$http"
  exit
fi

# At a terminal, where it draws the table again and again.
cat >"$work/terminal.py" <<'PY'
import os, pty, signal, sys

child, master = pty.fork()
if child == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
try:
    while data := os.read(master, 1 << 16):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
except OSError:
    pass  # how a terminal on Linux ends
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
PY
python3 "$work/terminal.py" "$MILLPOND" demo --kafka "$kafka" --http "$http" --seconds 14 >"$work/demo.out" 2>&1 &
demo=$!
pids+=($demo)
wait_for_topic
load 10 &
loading=$!
pids+=($loading)
# What the log has become since, each line once.
sent=0
send_new() {
  local lines
  lines=$(wc -l <"$work/access.log")
  [ "$lines" -gt "$sent" ] || return 0
  sed -n "$((sent + 1)),${lines}p" "$work/access.log" | kcat -P -b "$kafka" -t access-log -X compression.codec=lz4
  sent=$lines
}
while kill -0 "$loading" 2>/dev/null; do
  sleep 1
  send_new
done
wait "$loading" || true
send_new
lines=$(wc -l <"$work/access.log")
query='{"ksql":"SELECT client, SUM(requests) AS n, SUM(bytes) AS b, SUM(errors) AS e FROM requests_per_client GROUP BY client;"}'
for _ in $(seq 150); do
  got=$(curl -s "http://$http/query-stream" -H 'Accept: application/vnd.ksqlapi.delimited.v1' -d "$query" | tail -n +2)
  [ "$(echo "$got" | python3 -c 'import json,sys; print(sum(json.loads(l)[1] for l in sys.stdin if l.startswith("[")))')" = "$lines" ] && break
  sleep 0.2
done
echo "$got" >"$work/table.json"
for _ in $(seq 100); do grep -q "stays up" "$work/demo.out" && break || sleep 0.2; done
python3 - "$work/demo.out" <<'PY'
import re, sys

shown = open(sys.argv[1], newline="").read().replace("\r", "")
drawings = re.split(r"\x1b\[\d+A\x1b\[J\x1b\[1A", shown)
print(drawings[0].split("┌")[0] + "┌" + drawings[-1].split("┌", 1)[-1])
# What each of them counts: window, client, requests, bytes, errors.
counts = [sum(int(n) for n in re.findall(r"^│ [\d:]+ +┆ \S+ +┆ (\d+) ", d, re.M)) for d in drawings]
if len(set(counts)) < 3 or counts != sorted(counts):
    sys.exit(f"the demo did not draw the table while it grew: {counts}")
print(f"the demo drew the table {len(drawings)} times while it grew: {counts}")
PY
python3 - "$work/access.log" "$work/table.json" <<'PY'
import collections, json, re, sys

log, table = sys.argv[1:]
want = collections.defaultdict(lambda: [0, 0, 0])
# Sorted here by the load's own seven names, not by the guest's rules.
kinds = {"Mozilla/5.0 (X11": "browser", "Mozilla/5.0 (iPhone": "phone", "Mozilla/5.0 (compatible; Googlebot": "bot",
         "Mozilla/5.0 (iPad": "tablet", "python-requests": "tool", "curl": "tool", "some thing": "other"}
for line in open(log):
    status, size, agent = re.search(r'" (\d{3}) (\d+) ".*?" "([^"]*)"$', line.rstrip("\n")).groups()
    kind = next(k for start, k in kinds.items() if agent.startswith(start))
    row = want[kind]
    row[0] += 1
    row[1] += int(size)
    row[2] += int(status) >= 400
have = {}
for line in open(table):
    if line.startswith("["):
        kind, requests, size, errors = json.loads(line)
        have[kind] = [requests, size, errors]
print("client     requests      bytes   errors")
for kind in sorted(set(want) | set(have)):
    print(f"{kind:10} {have.get(kind, ['-'] * 3)[0]:>8} {have.get(kind, ['-'] * 3)[1]:>10} {have.get(kind, ['-'] * 3)[2]:>8}")
if have != dict(want):
    sys.exit(f"the table is not what the log says: expected {dict(want)}")
print(f"the table agrees with the {sum(r[0] for r in want.values())} lines of nginx's log")
PY
