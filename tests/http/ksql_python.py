#!/usr/bin/env python3
"""PyPI's ksql against a server: ksql_python.py URL. Exits non-zero on any failure."""
import collections
import collections.abc
import json
import signal
import sys
import time
import types
import uuid

# The client and its HTTP library are older than Python 3.10 and 3.13: what moved or went since then, where they look for it.
for name in ("Iterable", "Mapping", "MutableMapping", "MutableSet"):
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))
sys.modules.setdefault("telnetlib", types.ModuleType("telnetlib"))

from ksql import KSQLAPI  # noqa: E402
from ksql.errors import KSQLError  # noqa: E402
from ksql.utils import get_all_streams  # noqa: E402

signal.alarm(300)
URL = sys.argv[1]
RUN = "PY" + uuid.uuid4().hex[:8].upper()
EARLIEST = {"ksql.streams.auto.offset.reset": "earliest"}
client = KSQLAPI(URL)


def say(text):
    print("ksql (Python):", text, flush=True)


assert client.get_ksql_version().count(".") == 2
assert any(p["name"].endswith("auto.offset.reset") for p in client.get_properties())
say("version, properties")

stream = RUN + "_S"
topic = RUN.lower()
client.ksql("CREATE STREAM {} (ID STRING KEY, NAME STRING, AGE INT) "
            "WITH (KAFKA_TOPIC='{}', VALUE_FORMAT='JSON', PARTITIONS=2);".format(stream, topic))
client.create_stream_as(table_name=RUN + "_OLD", select_columns=["id", "name", "age"], src_table=stream,
                        conditions="age > 30", kafka_topic=topic + "-old", value_format="JSON")
assert set(get_all_streams(client, prefix=RUN)) == {stream, RUN + "_OLD"}
info = client.ksql("DESCRIBE {} EXTENDED;".format(stream))[0]["sourceDescription"]
assert [f["name"] for f in info["fields"]] == ["ID", "NAME", "AGE"], info
assert info["topic"] == topic and info["readQueries"], info
say("create, create as, list, describe extended")

rows = [{"ID": "a", "NAME": "ann", "AGE": 42}, {"ID": "b", "NAME": "bob", "AGE": 17}, {"ID": "c", "NAME": "cid", "AGE": 33}]
acks = client.inserts_stream(stream, rows)
assert [a["status"] for a in acks] == ["ok"] * 3, acks
say("inserts-stream")

# /query: raw chunks, then rows as objects.
# `client.query` itself ends with a RuntimeError since Python 3.7 where no objects are asked for; what it calls does not.
chunks = "".join(client.sa.query("SELECT NAME, AGE FROM {}_OLD EMIT CHANGES LIMIT 2;".format(RUN), stream_properties=EARLIEST))
items = json.loads(chunks)
assert sorted(i["row"]["columns"] for i in items[1:-1]) == [["ann", 42], ["cid", 33]], items
assert items[-1] == {"finalMessage": "Limit Reached"}, items
objects = list(client.query("SELECT NAME, AGE FROM {} EMIT CHANGES LIMIT 3;".format(stream), stream_properties=EARLIEST,
                            return_objects=True))
assert sorted(o["AGE"] for o in objects) == [17, 33, 42], objects
say("query: push with LIMIT, rows and objects")

# /query-stream: each chunk is one line.
lines = [json.loads(c) for c in client.query("SELECT NAME FROM {} EMIT CHANGES LIMIT 3;".format(stream),
                                             stream_properties={"auto.offset.reset": "earliest"}, use_http2=True)]
assert lines[0]["columnNames"] == ["NAME"] and sorted(lines[1:]) == [["ann"], ["bob"], ["cid"]], lines
say("query-stream")

client.ksql("CREATE TABLE {}_T AS SELECT ID, COUNT(*) AS N FROM {} GROUP BY ID EMIT CHANGES;".format(RUN, stream), EARLIEST)
until = time.time() + 90
while True:
    rows = sorted((r["ID"], r["N"]) for r in client.query("SELECT ID, N FROM {}_T;".format(RUN), return_objects=True))
    if rows == [("a", 1), ("b", 1), ("c", 1)]:
        break
    assert time.time() < until, rows
    time.sleep(0.05)
say("pull query")

try:
    client.ksql("SELCT 1;")
    raise SystemExit("a bad statement went well")
except KSQLError as e:
    assert "line 1:" in str(e), e
assert client.close_query("nothing") is False
push = client.sa.query("SELECT * FROM {} EMIT CHANGES;".format(stream))
query_id = json.loads(next(push).strip().lstrip("[").rstrip(","))["header"]["queryId"]
assert client.close_query(query_id) is True
assert "Query Completed" in "".join(push)
say("errors, close-query")

for query in client.ksql("SHOW QUERIES;")[0]["queries"]:
    if RUN in query["id"]:
        client.ksql("TERMINATE {};".format(query["id"]))
client.ksql("DROP TABLE {}_T DELETE TOPIC;".format(RUN))
client.ksql("DROP STREAM {0}_OLD DELETE TOPIC; DROP STREAM {0}_S DELETE TOPIC;".format(RUN))
assert get_all_streams(client, prefix=RUN) == []
say("ok")
