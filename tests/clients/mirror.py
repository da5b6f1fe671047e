#!/usr/bin/env python3
"""MirrorMaker 2 between Apache Kafka and Millpond, both ways: mirror.py [kafka]. Exits non-zero on any failure.

Topics with their settings and partitions, records, and groups' offsets must be on the other side. With `kafka` both
sides are Apache Kafka, which shows what the test itself is worth.
"""
import os
import signal
import sys
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType,
)

from servers import Server, java, main, properties, until

COUNT = 600


def say(text):
    print("mirror:", text, flush=True)


class Side:
    def __init__(self, name, kind, folder):
        self.name, self.server = name, Server(kind, folder, name).start()
        self.admin = AdminClient({"bootstrap.servers": self.server.bootstrap, "log_level": 0})
        self.topic, self.start = "from-" + name, int(time.time() * 1000) - 3_600_000

    def create(self):
        self.admin.create_topics([NewTopic(self.topic, 3, 1, config={"retention.ms": "86400000", "cleanup.policy": "compact"})])[self.topic].result(20)

    def produce(self, first, count):
        producer = Producer({"bootstrap.servers": self.server.bootstrap, "compression.type": "zstd", "log_level": 0})
        for i in range(first, first + count):
            producer.produce(self.topic, key=f"k{i}", value=f"{self.name} {i}", headers=[("n", str(i).encode()), ("n", b"2")],
                             timestamp=self.start + i)
        assert producer.flush(30) == 0

    def partitions(self, topic):
        metadata = self.admin.list_topics(timeout=20).topics.get(topic)
        return len(metadata.partitions) if metadata else 0

    def read(self, topic, count, group="check", commit=False):
        consumer = Consumer({"bootstrap.servers": self.server.bootstrap, "group.id": group, "enable.auto.commit": False, "log_level": 0})
        consumer.assign([TopicPartition(topic, p, 0) for p in range(self.partitions(topic))])
        got, end = [], time.time() + 60
        while len(got) < count and time.time() < end:
            message = consumer.poll(0.5)
            if message is not None:
                assert not message.error(), message.error()
                got.append(message)
                if commit:
                    consumer.commit(message, asynchronous=False)
        consumer.close()
        return sorted((m.partition(), m.offset(), m.key(), m.value(), m.timestamp(), tuple(m.headers() or [])) for m in got)

    def config(self, topic, key):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return self.admin.describe_configs([resource])[resource].result(20)[key].value

    def committed(self, group):
        result = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(20)
        return {(p.topic, p.partition): p.offset for p in result.topic_partitions if p.offset >= 0}


def run(folder):
    signal.alarm(380)
    kind = sys.argv[1] if len(sys.argv) > 1 else "millpond"
    kafka, pond = Side("kafka", "kafka", folder), Side("pond", kind, folder)
    for side in kafka, pond:
        side.create()
        side.produce(0, COUNT)
    config = properties(
        os.path.join(folder, "mirror.properties"), clusters="kafka, pond", **{
            "kafka.bootstrap.servers": kafka.server.bootstrap, "pond.bootstrap.servers": pond.server.bootstrap,
            "kafka->pond.enabled": "true", "pond->kafka.enabled": "true", "topics": "from-.*", "groups": "readers-.*",
            "kafka->pond.exactly.once.source.support": "disabled",
        },
        replication_factor=1, checkpoints_topic_replication_factor=1, heartbeats_topic_replication_factor=1,
        offset__syncs_topic_replication_factor=1, offset_storage_replication_factor=1, status_storage_replication_factor=1,
        config_storage_replication_factor=1, offset_storage_partitions=2, status_storage_partitions=1,
        sync_group_offsets_enabled="true", sync_group_offsets_interval_seconds=1,
        emit_checkpoints_interval_seconds=1, emit_heartbeats_interval_seconds=1, refresh_topics_interval_seconds=2,
        refresh_groups_interval_seconds=2, sync_topic_configs_interval_seconds=2, offset_lag_max=0, tasks_max=2,
        offset_flush_interval_ms=1000, scheduled_rebalance_max_delay_ms=0, config_properties_exclude="follower\\\\.replication\\\\.throttled\\\\.replicas",
    )
    started = time.time()
    mirror = java("mirror", folder, "org.apache.kafka.connect.mirror.MirrorMaker", config, memory="512m")
    pairs = [(kafka, pond), (pond, kafka)]
    for here, there in pairs:
        copy = f"{here.name}.{here.topic}"
        until(f"{copy} is there", lambda: mirror.alive() and there.partitions(copy) == 3)
        assert there.config(copy, "retention.ms") == "86400000" and there.config(copy, "cleanup.policy") == "compact", copy
        want, got = here.read(here.topic, COUNT), there.read(copy, COUNT)
        assert len(want) == COUNT and got == want, f"{copy}: {len(got)} of {len(want)}"
        say(f"{here.server.kind} to {there.server.kind}: partitions, settings, {COUNT} records as they were ({time.time() - started:.0f} s)")
    for here, there in pairs:
        here.produce(COUNT, COUNT)
        here.admin.create_partitions([NewPartitions(here.topic, 5)])[here.topic].result(20)
        resource = ConfigResource(ResourceType.TOPIC, here.topic, incremental_configs=[
            ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)])
        here.admin.incremental_alter_configs([resource])[resource].result(20)
        # A group has read half of it.
        consumer = Consumer({"bootstrap.servers": here.server.bootstrap, "group.id": "readers-" + here.name, "log_level": 0,
                             "enable.auto.commit": False})
        ends = [TopicPartition(here.topic, p, consumer.get_watermark_offsets(TopicPartition(here.topic, p), 20)[1]) for p in range(3)]
        consumer.commit(offsets=ends, asynchronous=False)
        consumer.close()
    for here, there in pairs:
        copy, group = f"{here.name}.{here.topic}", "readers-" + here.name
        until(f"{copy} has five partitions", lambda: there.partitions(copy) == 5)
        until(f"{copy} has other settings", lambda: there.config(copy, "retention.ms") == "7200000")
        want = {(f"{here.name}.{t}", p): o for (t, p), o in here.committed(group).items()}
        until(lambda: f"{group}: {there.committed(group)} is {want}", lambda: there.committed(group) == want)
        got = there.read(copy, 2 * COUNT)
        assert got == here.read(here.topic, 2 * COUNT), copy
        assert there.partitions("heartbeats") == 1 and there.partitions(f"{here.name}.checkpoints.internal") == 1
        say(f"{here.server.kind} to {there.server.kind}: more records, partitions, changed settings, offsets of a group")
    mirror.end()
    for side in kafka, pond:
        side.server.end()
    say("ok")


if __name__ == "__main__":
    main(run)
