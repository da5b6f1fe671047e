#!/usr/bin/env python3
"""A distributed worker of Kafka Connect: connect.py [kafka]. Exits non-zero on any failure.

A file goes to a topic, exactly once, and from there to another file; the worker is killed, and the server is. With
`kafka` the server is Apache Kafka, which shows what the test itself is worth.
"""
import collections
import os
import signal
import sys

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from ports import free_port
from servers import Server, java, main, properties, rest, until

TOPIC, LINES = "connect-lines", 900


def say(text):
    print("connect:", text, flush=True)


def run(folder):
    signal.alarm(380)
    server = Server(sys.argv[1] if len(sys.argv) > 1 else "millpond", folder).start()
    source, sink = os.path.join(folder, "source.txt"), os.path.join(folder, "sink.txt")
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    config = properties(
        os.path.join(folder, "worker.properties"), bootstrap_servers=server.bootstrap, group_id="connect-cluster",
        key_converter="org.apache.kafka.connect.storage.StringConverter",
        value_converter="org.apache.kafka.connect.storage.StringConverter",
        config_storage_topic="connect-configs", config_storage_replication_factor=1,
        offset_storage_topic="connect-offsets", offset_storage_replication_factor=1, offset_storage_partitions=3,
        status_storage_topic="connect-status", status_storage_replication_factor=1, status_storage_partitions=2,
        offset_flush_interval_ms=500, exactly_once_source_support="enabled", listeners=base, session_timeout_ms=6000,
        heartbeat_interval_ms=500, scheduled_rebalance_max_delay_ms=0, plugin_discovery="only_scan", plugin_path=folder + "/plugins",
    )
    os.mkdir(folder + "/plugins")
    worker = None

    def start():
        nonlocal worker
        worker = java("worker", folder, "org.apache.kafka.connect.cli.ConnectDistributed", config)
        until("the worker answers", lambda: worker.alive() and rest(base, "GET", "/connectors") is not None)

    def runs(name):
        status = rest(base, "GET", f"/connectors/{name}/status")
        assert not status or "FAILED" not in str(status), status
        return status and status["tasks"] and status["tasks"][0]["state"] == "RUNNING"

    written = 0

    def write(count):
        nonlocal written
        with open(source, "a") as out:
            for _ in range(count):
                out.write(f"line {written}\n")
                written += 1

    def sunk():
        with open(sink) as lines:
            return collections.Counter(lines.read().splitlines())

    def arrives():
        until(lambda: f"{written} lines, {len(sunk())} of them", lambda: os.path.exists(sink) and len(sunk()) == written)

    def committed():
        consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "check", "isolation.level": "read_committed",
                             "enable.partition.eof": True, "enable.auto.commit": False})
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        got = []
        while True:
            message = consumer.poll(60)
            assert message is not None, "neither a record nor the end"
            if message.error():
                break
            got.append(message.value().decode())
        consumer.close()
        return got

    admin = AdminClient({"bootstrap.servers": server.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(20)
    start()
    write(LINES // 9)
    reading = {"connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector", "tasks.max": "1", "file": source,
               "topic": TOPIC, "exactly.once.support": "required", "transaction.boundary": "poll"}
    writing = {"connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "tasks.max": "1", "file": sink,
               "topics": TOPIC, "consumer.override.isolation.level": "read_committed"}
    for name, what in ("reading", reading), ("writing", writing):
        until(f"{name} is made", lambda: rest(base, "PUT", f"/connectors/{name}/config", what))
        until(f"{name} runs", lambda: runs(name))
    arrives()
    say("file to topic to file")

    for name, partitions in ("connect-configs", 1), ("connect-offsets", 3), ("connect-status", 2):
        resource = ConfigResource(ResourceType.TOPIC, name)
        entry = admin.describe_configs([resource])[resource].result(20)["cleanup.policy"]
        assert entry.value == "compact", entry
        assert len(admin.list_topics(name).topics[name].partitions) == partitions, name
    say("internal topics are compacted ones")

    for part in range(6):
        write(LINES // 9)
        if part == 1:
            worker.end(signal.SIGKILL)
            write(LINES // 9)
            start()
            say("the worker was killed")
        if part == 3:
            server.end(signal.SIGKILL)
            write(LINES // 9)
            server.start()
            say("the server was killed")
        if part == 5:
            worker.end()
            start()
            say("the worker was restarted")
    arrives()
    got = committed()
    assert got == [f"line {i}" for i in range(written)], f"{len(got)} records of {written} lines: {got[:3]} ... {got[-3:]}"
    say(f"{written} lines, each exactly once and in order, by transactions")

    # Offsets are changed while a connector is stopped.
    def stop(name):
        until(f"{name} is told to stop", lambda: rest(base, "PUT", f"/connectors/{name}/stop") is not None)
        until(f"{name} stops", lambda: (rest(base, "GET", f"/connectors/{name}/status") or {}).get("connector", {}).get("state") == "STOPPED")

    stop("writing")
    until("its tasks are gone", lambda: (rest(base, "GET", "/connectors/writing/status") or {}).get("tasks") == [])
    offsets = until("offsets of the sink", lambda: rest(base, "GET", "/connectors/writing/offsets"))["offsets"]
    assert offsets[0]["offset"]["kafka_offset"] >= written, offsets
    os.remove(sink)
    until("offsets are deleted", lambda: rest(base, "DELETE", "/connectors/writing/offsets"))
    until("it goes on", lambda: rest(base, "PUT", "/connectors/writing/resume") is not None)
    arrives()
    stop("reading")
    offsets = until("offsets of the source", lambda: rest(base, "GET", "/connectors/reading/offsets"))["offsets"]
    assert offsets[0]["offset"]["position"] == os.path.getsize(source), offsets
    position = {"partition": offsets[0]["partition"], "offset": {"position": 0}}
    until("offsets are changed", lambda: rest(base, "PATCH", "/connectors/reading/offsets", {"offsets": [position]}))
    until("it goes on", lambda: rest(base, "PUT", "/connectors/reading/resume") is not None)
    until("all is read again", lambda: len(committed()) == 2 * written)
    say("offsets of connectors: shown, deleted, changed")

    for name in "reading", "writing":
        until(f"{name} is deleted", lambda: rest(base, "DELETE", f"/connectors/{name}") is not None)
    worker.end()
    server.end()
    say("ok")


if __name__ == "__main__":
    main(run)
