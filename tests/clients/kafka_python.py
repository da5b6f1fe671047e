#!/usr/bin/env python3
"""kafka-python against a server: kafka_python.py BOOTSTRAP. Exits non-zero on any failure."""
import signal
import sys
import threading
import time
import uuid

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.admin import (
    AbortTransactionSpec, AlterConfigOp, ConfigFilterType, ConfigResource, ConfigSourceType, MemberToRemove, NewPartitions,
    NewTopic, OffsetSpec, ScramMechanism, TransactionState, UpdateFeatureType, UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
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


def refused(error, call, *args, **more):
    try:
        call(*args, **more)
    except error:
        return
    raise AssertionError(f"not refused: {args}")


def topics_and_settings():
    topic = create(RUN + "-admin", 2)
    resource = lambda **configs: ConfigResource("TOPIC", topic, {k.replace("_", "."): v for k, v in configs.items()} or None)
    settings = lambda how, r=None: admin.describe_configs([r or resource()], include_synonyms=True, config_filter=how)["topic"][topic]
    assert settings(ConfigFilterType.MODIFIED) == {}
    every = settings(ConfigFilterType.ALL)
    assert every["retention.ms"]["value"] == "604800000" and len(every) > 25, every
    assert admin.alter_configs([resource(retention_ms="100000", cleanup_policy=(AlterConfigOp.APPEND, "compact"))]) \
        == {"topic": {topic: "OK"}}
    changed = settings(ConfigFilterType.MODIFIED)
    assert {k: v["value"] for k, v in changed.items()} == {"retention.ms": "100000", "cleanup.policy": "delete,compact"}, changed
    # The older way, which sets all that there is.
    admin.alter_configs([resource(retention_ms="200000")], incremental=False)
    assert settings(ConfigFilterType.MODIFIED)["retention.ms"]["value"] == "200000"
    admin.reset_configs([resource(retention_ms=None, cleanup_policy=None)])
    assert settings(ConfigFilterType.MODIFIED) == {}
    broker = admin.describe_configs([ConfigResource("BROKER", "1")], config_filter=ConfigFilterType.ALL)["broker"]["1"]
    listeners = broker["listeners"]
    assert listeners["read_only"] and listeners["config_source"] == ConfigSourceType.STATIC_BROKER_CONFIG.name, listeners
    assert topic in admin.list_config_resources()["topic"]

    admin.create_partitions({topic: NewPartitions(total_count=3)})
    refused(errors.InvalidPartitionsError, admin.create_partitions, {topic: NewPartitions(total_count=2)})
    refused(errors.TopicAlreadyExistsError, create, topic)
    described = admin.describe_topics([topic])[0]
    assert [p["leader_id"] for p in described["partitions"]] == [1, 1, 1], described
    paged = admin.describe_topic_partitions([topic], response_partition_limit=2)
    assert [p["partition_index"] for t in paged["topics"] for p in t["partitions"]] == [0, 1], paged
    assert paged["next_cursor"]["partition_index"] == 2, paged

    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for i in range(20):
        producer.send(topic, b"%d" % i, partition=i % 2, timestamp_ms=1_700_000_000_000 + i * 1000)
    producer.flush(20)
    first = TopicPartition(topic, 0)
    at = lambda spec: admin.list_partition_offsets({first: spec})[first].offset
    assert (at(OffsetSpec.EARLIEST), at(OffsetSpec.LATEST), at(OffsetSpec.MAX_TIMESTAMP)) == (0, 10, 9)
    assert at(1_700_000_003_000) == 2
    assert admin.delete_records({first: 4})[first]["low_watermark"] == 4
    assert at(OffsetSpec.EARLIEST) == 4
    states = admin.describe_producers([first])[first].active_producers
    assert [s.last_sequence for s in states] == [9], states

    # Of one broker there is nothing to elect or to move: by each partition ELECTION_NOT_NEEDED, which the client takes.
    elected = admin.elect_leaders(0, {topic: [0, 1]})
    codes = {p.error_code for t in elected.replica_election_results for p in t.partition_result}
    assert elected.error_code == 0 and codes == {errors.ElectionNotNeededError.errno}, elected
    assert admin.alter_partition_reassignments({first: [1]}) == {first: None}
    assert admin.list_partition_reassignments() == {}
    logs = [t for b in admin.describe_log_dirs() for d in b["log_dirs"] for t in d["topics"] if t["name"] == topic]
    assert len(logs[0]["partitions"]) == 3 and logs[0]["partitions"][0]["partition_size"] > 0, logs
    admin.delete_topics([topic])
    assert topic not in admin.list_topics()
    refused(errors.UnknownTopicOrPartitionError, admin.delete_topics, [topic])
    say("topics, settings, records, elections, reassignments, log dirs")


def groups_and_offsets():
    topic, name = create(RUN + "-offsets", 2), RUN + "-offsets"
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    [producer.send(topic, b"x", partition=i % 2).get(20) for i in range(20)]
    consumer = KafkaConsumer(topic, bootstrap_servers=BOOTSTRAP, group_id=name, group_instance_id="one",
                             auto_offset_reset="earliest", enable_auto_commit=False, session_timeout_ms=45000)
    count = 0
    while count < 20:
        count += sum(len(records) for records in consumer.poll(timeout_ms=1000).values())
    consumer.commit()
    parts = [TopicPartition(topic, p) for p in range(2)]
    described = admin.describe_groups([name], include_authorized_operations=True)[name]
    member, = described["members"]
    assert described["group_state"] == "Stable" and member["group_instance_id"] == "one", described
    assert name in [g["group_id"] for g in admin.list_groups(states_filter=["Stable"])]
    early = admin.reset_group_offsets(name, {parts[0]: OffsetSpec.EARLIEST})
    assert early[parts[0]]["error"] is errors.UnknownMemberIdError, early
    assert admin.delete_group_offsets(name, parts) == {p: errors.GroupSubscribedToTopicError for p in parts}
    assert admin.remove_group_members(name, [MemberToRemove(group_instance_id="two")]) == {"two": errors.UnknownMemberIdError}
    consumer.close()
    # A static member is still there after it closed.
    assert admin.remove_group_members(name, [MemberToRemove(group_instance_id="one")]) == {"one": errors.NoError}
    assert name in [g["group_id"] for g in admin.list_groups(states_filter=["Empty"])]
    offsets = lambda: {p: o.offset for p, o in admin.list_group_offsets({name: parts})[name].items()}
    assert offsets() == {p: 10 for p in parts}, offsets()
    assert admin.reset_group_offsets(name, {parts[0]: OffsetSpec.EARLIEST})[parts[0]]["offset"] == 0
    assert admin.alter_group_offsets(name, {parts[1]: OffsetAndMetadata(4, "set", -1)}) == {parts[1]: errors.NoError}
    assert offsets() == {parts[0]: 0, parts[1]: 4}, offsets()
    assert admin.delete_group_offsets(name, parts[:1]) == {parts[0]: errors.NoError}
    assert offsets()[parts[0]] == -1, offsets()
    assert admin.delete_groups([name]) == {name: "OK"}
    assert name not in [g["group_id"] for g in admin.list_groups()]
    say("groups and offsets of administrators")


def cluster_and_transactions():
    topic, name = create(RUN + "-open"), RUN + "-open"
    cluster = admin.describe_cluster()
    assert cluster["cluster_id"] and [b["broker_id"] for b in cluster["brokers"]] == [1], cluster
    features = admin.describe_features()
    level = features["transaction.version"]["finalized"][1]
    change = {"transaction.version": (UpdateFeatureType.SAFE_DOWNGRADE, level - 1)}
    assert admin.update_features(change, validate_only=True) == {"transaction.version": "OK"}
    assert admin.describe_features() == features
    quorum = admin.describe_metadata_quorum()["topics"][0]["partitions"][0]
    assert [v["replica_id"] for v in quorum["current_voters"]] == [1], quorum
    assert [key.name for key in admin.api_versions()][:2] == ["Produce", "Fetch"]

    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=name)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"open").get(20)
    part = TopicPartition(topic, 0)
    listed = admin.list_transactions(state_filters=["Ongoing"], duration_filter_ms=0)[1]
    listed = [t for t in listed if t.transactional_id == name]
    assert [t.state for t in listed] == [TransactionState.ONGOING], listed
    assert [t.transactional_id for t in admin.list_transactions(transactional_id_pattern=name)[1]] == [name]
    described = admin.describe_transactions([name])[name]
    assert described.topic_partitions == {part} and described.producer_id == listed[0].producer_id, described
    refused(errors.TransactionalIdNotFoundError, admin.describe_transactions, [name + "-none"])
    state, = admin.describe_producers([part])[part].active_producers
    assert state.current_transaction_start_offset == 0, state
    assert admin.find_hanging_transactions() == []
    admin.abort_transaction(AbortTransactionSpec(part, state.producer_id, state.producer_epoch))
    state, = admin.describe_producers([part])[part].active_producers
    assert state.current_transaction_start_offset == -1, state
    producer.abort_transaction()
    producer.close()

    made = UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_256, "a password of its own", iterations=4096)
    assert admin.alter_user_scram_credentials([made]) == {name: None}
    described = admin.describe_user_scram_credentials([name])[name]
    assert described["credential_infos"] == [{"mechanism": ScramMechanism.SCRAM_SHA_256, "iterations": 4096}], described
    assert admin.alter_user_scram_credentials([UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_256)]) == {name: None}
    assert admin.describe_user_scram_credentials([name])[name]["error"]
    say("cluster, features, quorum, transactions of administrators, users")


for check in [codecs, idempotence, transactions, group, topics_and_settings, groups_and_offsets, cluster_and_transactions]:
    check()
say("ok")
