#!/usr/bin/env python3
"""confluent-kafka (librdkafka) against a server: confluent.py BOOTSTRAP. Exits non-zero on any failure."""
import os
import signal
import sys
import threading
import time
import uuid
import warnings

from confluent_kafka import (
    OFFSET_BEGINNING, Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, ElectionType, IsolationLevel, KafkaError,
    KafkaException, Producer, TopicCollection, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
    ScramCredentialInfo, ScramMechanism, UserScramCredentialDeletion, UserScramCredentialUpsertion,
)

signal.alarm(380)
BOOTSTRAP = sys.argv[1]
RUN = "confluent-" + uuid.uuid4().hex[:8]
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def say(text):
    print("confluent:", text, flush=True)


def done(futures, timeout=20):
    return {key: future.result(timeout) for key, future in futures.items()}


def code_of(future):
    try:
        future.result(20)
        return None
    except KafkaException as e:
        return e.args[0].code()


def create(name, partitions=1, **config):
    done(admin.create_topics([NewTopic(name, partitions, config={k.replace("_", "."): v for k, v in config.items()})]))
    return name


def produce(topic, records, **config):
    failed = []
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 5, **{k.replace("_", "."): v for k, v in config.items()}})
    for record in records:
        producer.produce(topic, on_delivery=lambda e, m: failed.append(e) if e else None, **record)
        producer.poll(0)
    assert producer.flush(30) == 0, "not all delivered"
    assert not failed, failed[0]


def consume(topic, count, partitions=1, **config):
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": RUN + "-none", "enable.auto.commit": False, **config})
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
    out, until = [], time.time() + 60
    while len(out) < count and time.time() < until:
        message = consumer.poll(0.5)
        if message is not None:
            assert not message.error(), message.error()
            out.append(message)
    consumer.close()
    return out


def codecs():
    topic = create(RUN + "-codecs")
    names = ["none", "gzip", "snappy", "lz4", "zstd"]
    for name in names:
        produce(topic, [{"key": f"{name}{i}", "value": f"value {i} " * 20, "headers": [("h", b"1"), ("h", b"2"), ("n", None)]}
                        for i in range(300)], compression_type=name)
    got = consume(topic, 300 * len(names))
    want = [(f"{n}{i}".encode(), (f"value {i} " * 20).encode()) for n in names for i in range(300)]
    assert [(m.key(), m.value()) for m in got] == want
    assert all(m.headers() == [("h", b"1"), ("h", b"2"), ("n", None)] for m in got)
    assert [m.offset() for m in got] == list(range(1500))
    say("codecs, headers")


def idempotence():
    topic = create(RUN + "-idempotent", 3)
    produce(topic, [{"key": str(i % 50), "value": str(i)} for i in range(20000)], enable_idempotence=True)
    got = consume(topic, 20000, 3)
    assert sorted(int(m.value()) for m in got) == list(range(20000))
    last = {}
    for m in got:
        assert last.get(m.key(), -1) < int(m.value()), "order within a key"
        last[m.key()] = int(m.value())
    say("idempotent producing")


def transactional(name, **config):
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "transactional.id": f"{RUN}-{name}", **config})
    producer.init_transactions(20)
    return producer


def read_to_end(isolation, topic, partitions=2):
    """All values up to where a consumer of this isolation sees the end."""
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": RUN + "-none", "enable.auto.commit": False,
                         "isolation.level": isolation, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
    out, ended, until = [], set(), time.time() + 60
    while len(ended) < partitions:
        assert time.time() < until, f"no end of {topic}"
        message = consumer.poll(0.5)
        if message is not None and message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            ended.add(message.partition())
        elif message is not None:
            out.append(message.value().decode())
    consumer.close()
    return sorted(out)


def fenced(producer):
    try:
        producer.commit_transaction(20)
    except KafkaException as e:
        return e.args[0].fatal() and e.args[0].code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
    return False


def transactions():
    topic = create(RUN + "-txn", 2)
    send = lambda producer, what: [producer.produce(topic, f"{what}{i}", partition=i % 2) for i in range(10)]
    kept = sorted(f"kept{i}" for i in range(10))
    producer = transactional("one")
    producer.begin_transaction()
    send(producer, "kept")
    producer.commit_transaction(20)
    producer.begin_transaction()
    send(producer, "dropped")
    producer.flush(20)
    assert read_to_end("read_committed", topic) == kept, "what is open is not read"
    assert len(read_to_end("read_uncommitted", topic)) == 20
    producer.abort_transaction(20)
    assert read_to_end("read_committed", topic) == kept
    producer.begin_transaction()
    send(producer, "zombie")
    producer.flush(20)
    successor = transactional("one")
    assert fenced(producer), "a producer whose id was taken"
    successor.begin_transaction()
    successor.produce(topic, "successor", partition=1)
    successor.commit_transaction(20)
    slow = transactional("slow", **{"transaction.timeout.ms": 3000})
    slow.begin_transaction()
    slow.produce(topic, "late", partition=0)
    slow.flush(20)
    # Nothing is open any more.
    end = lambda isolation: list(done(admin.list_offsets(
        {TopicPartition(topic, 0): OffsetSpec.latest()}, isolation_level=isolation)).values())[0].offset
    wait_for(lambda: end(IsolationLevel.READ_COMMITTED) == end(IsolationLevel.READ_UNCOMMITTED), "time aborts")
    assert read_to_end("read_committed", topic) == sorted(kept + ["successor"])
    assert fenced(slow), "a producer that took too long"
    say("transactions: commit, abort, fencing, timeout")


def exactly_once():
    source, sink, group = create(RUN + "-source", 2), create(RUN + "-sink", 2), RUN + "-copy"
    produce(source, [{"value": str(i), "partition": i % 2} for i in range(300)])
    producer, copied, attempt = transactional("copy"), 0, 0
    while copied < 300:
        # A new consumer each time: it begins where the last transaction that was committed ended.
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "auto.offset.reset": "earliest",
                             "enable.auto.commit": False, "isolation.level": "read_committed"})
        consumer.subscribe([source])
        for _ in range(3):
            batch = [m for m in consumer.consume(20, 2) if not m.error()]
            if not batch:
                break
            attempt += 1
            producer.begin_transaction()
            for message in batch:
                producer.produce(sink, message.value(), partition=message.partition())
            position = consumer.position(consumer.assignment())
            producer.send_offsets_to_transaction(position, consumer.consumer_group_metadata(), 20)
            if attempt % 3 == 0:
                # What is still with the client when it aborts never reaches the log, and there would be nothing to skip.
                producer.flush(20)
                producer.abort_transaction(20)
                break
            producer.commit_transaction(20)
            copied += len(batch)
        consumer.close()
        assert attempt < 200, copied
    assert read_to_end("read_committed", sink) == sorted(str(i) for i in range(300))
    assert len(read_to_end("read_uncommitted", sink)) > 300, "some were aborted"
    say("exactly-once copy with offsets in the transaction")


def limits():
    topic = create(RUN + "-small", 1, max_message_bytes="2000")
    errors = []
    producer = Producer({"bootstrap.servers": BOOTSTRAP})
    producer.produce(topic, os.urandom(5000), on_delivery=lambda e, m: errors.append(e))
    producer.flush(20)
    assert errors[0].code() == KafkaError.MSG_SIZE_TOO_LARGE, errors
    compacted = create(RUN + "-compact", 1, cleanup_policy="compact")
    errors.clear()
    producer.produce(compacted, b"no key", on_delivery=lambda e, m: errors.append(e))
    producer.flush(20)
    assert errors[0].code() == KafkaError.INVALID_RECORD, errors
    say("max.message.bytes, keyless records on a compacted topic")


def topics():
    name = create(RUN + "-admin", 2, retention_ms="12345")
    assert code_of(admin.create_topics([NewTopic(name, 1)])[name]) == KafkaError.TOPIC_ALREADY_EXISTS
    bad = lambda **kw: code_of(list(admin.create_topics([NewTopic(**kw)]).values())[0])
    assert bad(topic="a/b", num_partitions=1) == KafkaError.TOPIC_EXCEPTION
    assert bad(topic=RUN + "-x", num_partitions=1, config={"no.such": "1"}) == KafkaError.INVALID_CONFIG
    assert bad(topic=RUN + "-x", num_partitions=1, replication_factor=3) == KafkaError.INVALID_REPLICATION_FACTOR
    checked = admin.create_topics([NewTopic(RUN + "-unborn", 1)], validate_only=True)
    done(checked)
    done(admin.create_partitions([NewPartitions(name, 5)]))
    described = done(admin.describe_topics(TopicCollection([name])))[name]
    assert len(described.partitions) == 5 and str(described.topic_id), described
    assert RUN + "-unborn" not in admin.list_topics(timeout=10).topics
    resource = lambda: ConfigResource(ResourceType.TOPIC, name)
    config = list(done(admin.describe_configs([resource()])).values())[0]
    assert config["retention.ms"].value == "12345" and config["cleanup.policy"].value == "delete", config
    change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
        ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)])
    done(admin.incremental_alter_configs([change]))
    config = list(done(admin.describe_configs([resource()])).values())[0]
    assert config["cleanup.policy"].value == "delete,compact" and config["retention.ms"].value == "604800000"
    broker = list(done(admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")])).values())[0]
    assert broker["advertised.listeners"].is_read_only, broker["advertised.listeners"]
    produce(name, [{"key": "k", "value": str(i), "partition": 0} for i in range(10)])
    at = TopicPartition(name, 0)
    deleted = done(admin.delete_records([TopicPartition(name, 0, 4)]))
    assert list(deleted.values())[0].low_watermark == 4
    earliest = list(done(admin.list_offsets({at: OffsetSpec.earliest()})).values())[0].offset
    latest = list(done(admin.list_offsets({at: OffsetSpec.latest()})).values())[0].offset
    assert (earliest, latest) == (4, 10), (earliest, latest)
    cluster = admin.describe_cluster().result(20)
    assert cluster.cluster_id and cluster.controller is not None
    done(admin.delete_topics([name]))
    create(name, 1)
    assert consume(name, 0) == []
    watermarks = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": RUN}).get_watermark_offsets(at, 10)
    assert watermarks == (0, 0), watermarks
    say("topics, configs, partitions, deleted records, deleted and created again")


def administration():
    topic = create(RUN + "-more", 2)
    part = TopicPartition(topic, 0)
    config = lambda: list(done(admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])).values())[0]
    # The older way, which sets all that there is.
    for settings in {"retention.ms": "777"}, {"segment.ms": "999999"}:
        change = ConfigResource(ResourceType.TOPIC, topic)
        [change.set_config(key, value) for key, value in settings.items()]
        with warnings.catch_warnings(action="ignore"):
            done(admin.alter_configs([change]))
        assert {k: v.value for k, v in config().items() if k in settings} == settings
    assert config()["retention.ms"].value == "604800000"
    # Of one broker there is nothing to elect.
    elected = admin.elect_leaders(ElectionType.PREFERRED, [part]).result(20)
    assert [e.code() for e in elected.values()] == [KafkaError.ELECTION_NOT_NEEDED], elected
    made = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    done(admin.alter_user_scram_credentials([UserScramCredentialUpsertion(RUN, made, b"a password of its own")]))
    described = admin.describe_user_scram_credentials([RUN])[RUN].result(20)
    assert [(i.mechanism, i.iterations) for i in described.scram_credential_infos] == [(ScramMechanism.SCRAM_SHA_512, 4096)]
    assert RUN in admin.describe_user_scram_credentials().result(20)
    done(admin.alter_user_scram_credentials([UserScramCredentialDeletion(RUN, ScramMechanism.SCRAM_SHA_512)]))
    assert code_of(admin.describe_user_scram_credentials([RUN])[RUN]) == KafkaError.RESOURCE_NOT_FOUND

    # One that knows which epoch its offset is of asks where that ended.
    produce(topic, [{"value": str(i), "partition": 0} for i in range(10)])
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 4)])
    message = consumer.consume(1, 20)[0]
    assert message.offset() == 4 and message.leader_epoch() >= 0, message.leader_epoch()
    consumer.close()
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 7, leader_epoch=message.leader_epoch())])
    assert [m.offset() for m in consumer.consume(3, 20)] == [7, 8, 9]
    consumer.commit(offsets=[TopicPartition(topic, 0, 8, leader_epoch=message.leader_epoch())], asynchronous=False)
    committed = consumer.committed([part], 20)[0]
    assert (committed.offset, committed.leader_epoch) == (8, message.leader_epoch()), committed
    consumer.close()
    empty = admin.list_consumer_groups(states={ConsumerGroupState.EMPTY}).result(20).valid
    assert topic in {g.group_id for g in empty}, empty
    cluster = admin.describe_cluster(include_authorized_operations=True).result(20)
    assert len(cluster.authorized_operations) > 3, cluster.authorized_operations
    say("all of a topic's settings, elections, users, epochs of offsets")


def times():
    topic = create(RUN + "-times")
    produce(topic, [{"value": str(i), "timestamp": 1_700_000_000_000 + i * 1000} for i in range(100)])
    at = TopicPartition(topic, 0)
    offset = lambda spec: list(done(admin.list_offsets({at: spec})).values())[0].offset
    assert offset(OffsetSpec.for_timestamp(1_700_000_050_500)) == 51
    assert offset(OffsetSpec.for_timestamp(1_700_000_050_000)) == 50
    assert offset(OffsetSpec.for_timestamp(1_800_000_000_000)) == -1
    assert offset(OffsetSpec.max_timestamp()) == 99
    say("offsets by time")


def rebalance():
    topic, group = create(RUN + "-group", 4), RUN + "-group"
    for strategy in ["range", "cooperative-sticky"]:
        config = {"bootstrap.servers": BOOTSTRAP, "group.id": f"{group}-{strategy}", "auto.offset.reset": "earliest",
                  "session.timeout.ms": 45000, "heartbeat.interval.ms": 500, "partition.assignment.strategy": strategy}
        produce(topic, [{"value": f"{strategy}{i}", "partition": i % 4} for i in range(400)])
        consumers, seen, lock = [Consumer(config), Consumer(config)], {}, threading.Lock()
        stop, owned = threading.Event(), [set(), set()]

        def run(index):
            consumer = consumers[index]
            consumer.subscribe([topic])
            while not stop.is_set():
                message = consumer.poll(0.1)
                owned[index] = {p.partition for p in consumer.assignment()}
                if message is not None and not message.error():
                    with lock:
                        seen[(message.partition(), message.offset())] = message.value()
            consumer.close()

        threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(2)]
        threads[0].start()
        wait_for(lambda: owned[0] == {0, 1, 2, 3}, "the first member reads all")
        threads[1].start()
        wait_for(lambda: len(owned[0]) == 2 and len(owned[1]) == 2 and not owned[0] & owned[1], "two members share")
        produce(topic, [{"value": f"{strategy}later{i}", "partition": i % 4} for i in range(40)])
        wait_for(lambda: sum(v.startswith(strategy.encode()) for v in seen.values()) >= 440, "all is read")
        described = done(admin.describe_consumer_groups([f"{group}-{strategy}"]))[f"{group}-{strategy}"]
        assert described.state.name == "STABLE" and len(described.members) == 2, described
        parts = sorted(p.partition for m in described.members for p in m.assignment.topic_partitions)
        assert parts == [0, 1, 2, 3], parts
        stop.set()
        [t.join(60) for t in threads]
        # librdkafka 2.16 logs "leave" asynchronously; the group is empty soon.
        wait_for(lambda: done(admin.describe_consumer_groups([f"{group}-{strategy}"]))[f"{group}-{strategy}"].state.name
                 == "EMPTY", "the group is empty")
        committed = done(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(f"{group}-{strategy}")]))
        offsets = {p.partition: p.offset for p in list(committed.values())[0].topic_partitions}
        ends = {p: Consumer(config).get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in range(4)}
        assert offsets == ends, (offsets, ends)
        say(f"rebalance with two members, {strategy}")
    name = f"{group}-range"
    back = ConsumerGroupTopicPartitions(name, [TopicPartition(topic, 0, 7, metadata="here")])
    done(admin.alter_consumer_group_offsets([back]))
    committed = done(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name, [TopicPartition(topic, 0)])]))
    assert list(committed.values())[0].topic_partitions[0].offset == 7
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": name})
    at = consumer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], 10)
    assert at[0].offset == 7 and at[1].offset > 0, at
    unknown = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": RUN + "-unknown"})
    assert unknown.committed([TopicPartition(topic, 0)], 10)[0].offset == -1001
    listed = {g.group_id for g in admin.list_consumer_groups().result(20).valid}
    assert name in listed, listed
    done(admin.delete_consumer_groups([name]))
    assert name not in {g.group_id for g in admin.list_consumer_groups().result(20).valid}
    say("group offsets: altered, listed, deleted")


def static_member():
    topic, group = create(RUN + "-static", 2), RUN + "-static"
    # A member that comes back waits for nobody: least of all for the end of its own session, which is longer than is waited here.
    config = {"bootstrap.servers": BOOTSTRAP, "group.id": group, "group.instance.id": "one", "session.timeout.ms": 200000,
              "auto.offset.reset": "earliest"}
    first = Consumer(config)
    first.subscribe([topic])
    wait_for(lambda: first.poll(0.1) is None and len(first.assignment()) == 2, "the static member reads")
    first.close()
    second = Consumer(config)
    second.subscribe([topic])
    wait_for(lambda: second.poll(0.1) is None and len(second.assignment()) == 2, "it comes back")
    second.close()
    say("static member")


def wait_for(condition, what, seconds=90):
    until = time.time() + seconds
    while not condition():
        assert time.time() < until, "not within {} s: {}".format(seconds, what)
        time.sleep(0.1)


for check in [codecs, idempotence, transactions, exactly_once, limits, topics, administration, times, rebalance, static_member]:
    check()
say("ok")
