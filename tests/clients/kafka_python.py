#!/usr/bin/env python3
"""kafka-python against a server: kafka_python.py BOOTSTRAP. Exits non-zero on any failure."""
import signal
import sys
import threading
import time
import uuid

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

signal.alarm(360)
BOOTSTRAP = sys.argv[1]
RUN = "kpy-" + uuid.uuid4().hex[:8]
admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def say(text):
    print("kafka-python:", text, flush=True)


def wait_for(condition, what, seconds=90):
    until = time.time() + seconds
    while not condition():
        assert time.time() < until, "not within {} s: {}".format(seconds, what)
        time.sleep(0.1)


def create(name, partitions=1):
    from kafka.admin import NewTopic
    admin.create_topics([NewTopic(name=name, num_partitions=partitions, replication_factor=1)])
    return name


def consume(topic, count):
    consumer = KafkaConsumer(topic, bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", group_id=None,
                             consumer_timeout_ms=60000)
    out = []
    for record in consumer:
        out.append(record)
        if len(out) == count:
            break
    consumer.close()
    return out


def codecs():
    topic = create(RUN + "-codecs")
    names = [None, "gzip", "snappy", "lz4", "zstd"]
    for name in names:
        producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type=name, acks="all", linger_ms=5)
        futures = [producer.send(topic, key=b"k%d" % i, value=(b"%d " % i) * 50, headers=[("h", b"x"), ("h", b"y")])
                   for i in range(200)]
        offsets = [f.get(20).offset for f in futures]
        assert offsets == list(range(offsets[0], offsets[0] + 200)), offsets
        producer.close()
    got = consume(topic, 1000)
    assert [r.value for r in got] == [(b"%d " % i) * 50 for _ in names for i in range(200)]
    assert all(list(r.headers) == [("h", b"x"), ("h", b"y")] for r in got)
    say("codecs, headers")


def idempotence():
    topic = create(RUN + "-idempotent")
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=True)
    for i in range(3000):
        producer.send(topic, b"%d" % i)
    producer.flush(30)
    producer.close()
    assert [int(r.value) for r in consume(topic, 3000)] == list(range(3000))
    say("idempotent producing")


def group():
    topic, name = create(RUN + "-group", 4), RUN + "-group"
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for i in range(400):
        producer.send(topic, b"%d" % i, partition=i % 4)
    producer.flush(20)
    stop, seen, owned, lock = threading.Event(), set(), [set(), set()], threading.Lock()

    def run(index):
        consumer = KafkaConsumer(topic, bootstrap_servers=BOOTSTRAP, group_id=name, auto_offset_reset="earliest",
                                 session_timeout_ms=45000, heartbeat_interval_ms=500, auto_commit_interval_ms=200)
        while not stop.is_set():
            for records in consumer.poll(timeout_ms=100).values():
                with lock:
                    seen.update((r.partition, r.offset) for r in records)
            owned[index] = {p.partition for p in consumer.assignment()}
        consumer.close()

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(2)]
    threads[0].start()
    wait_for(lambda: owned[0] == {0, 1, 2, 3}, "the first member reads all")
    threads[1].start()
    wait_for(lambda: len(owned[0]) == 2 and len(owned[1]) == 2 and not owned[0] & owned[1], "two members share")
    for i in range(40):
        producer.send(topic, b"later", partition=i % 4)
    producer.flush(20)
    wait_for(lambda: len(seen) == 440, "all is read")
    stop.set()
    [t.join(30) for t in threads]
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=name, enable_auto_commit=False)
    parts = [TopicPartition(topic, p) for p in range(4)]
    assert [consumer.committed(p) for p in parts] == [110] * 4, [consumer.committed(p) for p in parts]
    assert consumer.end_offsets(parts) == {p: 110 for p in parts}
    consumer.assign(parts[:1])
    consumer.commit({parts[0]: OffsetAndMetadata(5, "a note", -1)})
    noted = consumer.committed(parts[0], metadata=True)
    assert (noted.offset, noted.metadata) == (5, "a note"), noted
    assert consumer.beginning_offsets(parts[:1]) == {parts[0]: 0}
    consumer.close()
    say("group with two members, offsets with a note")


def transactions():
    topic = create(RUN + "-txn", 2)
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=RUN)
    producer.init_transactions()
    for name, end in [("kept", producer.commit_transaction), ("dropped", producer.abort_transaction)]:
        producer.begin_transaction()
        for i in range(20):
            producer.send(topic, f"{name}{i}".encode(), partition=i % 2)
        if name == "kept":
            at = {TopicPartition(topic, 0): OffsetAndMetadata(7, "here", -1)}
            producer.send_offsets_to_transaction(at, RUN + "-txn-group")
        producer.flush()
        end()
    producer.close()

    def read(isolation, count):
        """So many values, and what comes within a moment after them."""
        consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", group_id=None,
                                 isolation_level=isolation)
        consumer.assign([TopicPartition(topic, p) for p in range(2)])
        values = []
        more = lambda ms: [values.append(m.value.decode()) for part in consumer.poll(timeout_ms=ms).values() for m in part]
        wait_for(lambda: more(200) is not None and len(values) >= count, f"{count} values, {isolation}")
        for _ in range(10):
            more(200)
        consumer.close()
        return sorted(values)

    assert read("read_committed", 20) == sorted(f"kept{i}" for i in range(20))
    assert len(read("read_uncommitted", 40)) == 40
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=RUN + "-txn-group")
    assert consumer.committed(TopicPartition(topic, 0)) == 7
    consumer.close()
    say("transactions")


for check in [codecs, idempotence, transactions, group]:
    check()
say("ok")
