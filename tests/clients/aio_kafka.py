#!/usr/bin/env python3
"""aiokafka, which faust stands on, against a server: aio_kafka.py BOOTSTRAP. Exits non-zero on any failure."""
import asyncio
import signal
import sys
import time
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import OffsetOutOfRangeError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

signal.alarm(360)
BOOTSTRAP = sys.argv[1]
RUN = "aio-" + uuid.uuid4().hex[:8]
# What murmur2 makes of these keys in Java's client, of eight partitions.
KEYED = {b"a": 4, b"key-1": 0, b"millpond": 5, "schlüssel".encode(): 0}


def say(text):
    print("aiokafka:", text, flush=True)


async def until(condition, what, seconds=90):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


async def create(admin, name, partitions=1, **settings):
    answer = await admin.create_topics([NewTopic(RUN + "-" + name, partitions, 1, topic_configs=settings)])
    assert answer.topic_errors[0][1] == 0, answer
    return RUN + "-" + name


def producer(**settings):
    return AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **settings)


def consumer(*topics, **settings):
    return AIOKafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, **{
        "auto_offset_reset": "earliest", "fetch_max_wait_ms": 100, "heartbeat_interval_ms": 100, "session_timeout_ms": 45000,
        **settings})


async def read(topic, count, partitions=1, **settings):
    """So many records, and what comes within a moment after them."""
    out, reader = [], consumer(**settings)
    reader.assign([TopicPartition(topic, p) for p in range(partitions)])
    async with reader:
        end = time.time() + 60
        while len(out) < count:
            assert time.time() < end, f"{len(out)} of {count} records of {topic}"
            out += [r for part in (await reader.getmany(timeout_ms=1000)).values() for r in part]
        out += [r for part in (await reader.getmany(timeout_ms=300)).values() for r in part]
    return out


async def codecs(admin):
    topic, names = await create(admin, "codecs"), [None, "gzip", "snappy", "lz4", "zstd"]
    for name in names:
        async with producer(compression_type=name, acks="all", enable_idempotence=name != "gzip", linger_ms=5) as one:
            sent = [await one.send(topic, b"%d " % i * 50, b"k%d" % i, headers=[("h", b"x"), ("h", None)], timestamp_ms=1_000_000 + i)
                    for i in range(200)]
            told = [await future for future in sent]
            assert [t.offset for t in told] == list(range(told[0].offset, told[0].offset + 200))
    async with producer(acks=0) as one:
        await one.send_and_wait(topic, None, b"last")
    got = await read(topic, 1001)
    assert [r.value for r in got] == [b"%d " % i * 50 for _ in names for i in range(200)] + [None]
    assert all(r.headers == (("h", b"x"), ("h", None)) and r.timestamp == 1_000_000 + i % 200 for i, r in enumerate(got[:1000]))
    topic = await create(admin, "keyed", 8)
    async with producer() as one:
        for key, partition in KEYED.items():
            assert (await one.send_and_wait(topic, b"v", key)).partition == partition, key
        batch = one.create_batch()
        for i in range(10):
            batch.append(key=None, value=b"%d" % i, timestamp=None)
        assert (await (await one.send_batch(batch, topic, partition=6))).partition == 6
    say("codecs, headers, idempotence, acks, keys, batches by hand")


async def offsets(admin):
    topic = await create(admin, "times", 2)
    parts = [TopicPartition(topic, p) for p in range(2)]
    async with producer() as one:
        for i in range(100):
            await one.send(topic, b"%d" % i, partition=0, timestamp_ms=1_700_000_000_000 + i * 1000)
    async with consumer(group_id=RUN + "-times", enable_auto_commit=False) as one:
        one.assign(parts)
        found = await one.offsets_for_times({parts[0]: 1_700_000_041_500, parts[1]: 1})
        assert found[parts[0]].offset == 42 and found[parts[0]].timestamp == 1_700_000_042_000 and found[parts[1]] is None, found
        assert await one.end_offsets(parts) == {parts[0]: 100, parts[1]: 0}
        assert await admin.delete_records({parts[0]: RecordsToDelete(30)}) == {parts[0]: 30}
        assert await one.beginning_offsets(parts) == {parts[0]: 30, parts[1]: 0}
        one.seek(parts[0], 55)
        record = await one.getone(parts[0])
        assert record.offset == 55 and record.value == b"55"
        assert one.highwater(parts[0]) == 100 and one.last_stable_offset(parts[0]) == 100
        await one.commit({parts[0]: OffsetAndMetadata(56, "a note")})
        assert await one.committed(parts[0]) == 56 and await one.committed(parts[1]) is None
        assert await admin.list_consumer_group_offsets(RUN + "-times") == {parts[0]: OffsetAndMetadata(56, "a note")}
        await one.seek_to_end(*parts)
        assert await one.position(parts[0]) == 100
    async with consumer(auto_offset_reset="none") as one:
        one.assign(parts[:1])
        one.seek(parts[0], 5)
        try:
            await one.getone()
            assert False, "what is deleted was read"
        except OffsetOutOfRangeError:
            pass
    say("offsets by time, deleted records, committed offsets")


class Seen(ConsumerRebalanceListener):
    def __init__(self):
        self.assigned = self.revoked = 0

    async def on_partitions_revoked(self, revoked):
        self.revoked += len(revoked)

    async def on_partitions_assigned(self, assigned):
        self.assigned += 1


async def groups(admin):
    for assignor in [None, RangePartitionAssignor, StickyPartitionAssignor]:
        name = assignor.name if assignor else "roundrobin"
        topic = await create(admin, name, 4)
        group, settings = RUN + "-" + name, {"partition_assignment_strategy": [assignor]} if assignor else {}
        seen, tasks = [], []

        async def run(member):
            async for record in member:
                seen.append((record.partition, record.offset))

        async def join(listener=None, **more):
            member = consumer(group_id=group, auto_commit_interval_ms=100, metadata_max_age_ms=300, **settings, **more)
            member.subscribe(pattern=f"^{topic}$", listener=listener)
            await member.start()
            tasks.append(asyncio.create_task(run(member)))
            return member

        async def produce(one, total, partitions):
            for i in range(total):
                await one.send(topic, b"%d" % i, partition=i % partitions)
            await one.flush()

        listener = Seen()
        first = await join(listener)
        async with producer(metadata_max_age_ms=300) as one:
            await produce(one, 400, 4)
            await until(lambda: len(seen) == 400, "all is read")
            second = await join()
            await until(lambda: len(first.assignment()) == 2 == len(second.assignment()), "two members share")
            assert not first.assignment() & second.assignment()
            await until(lambda: listener.revoked >= 4 and listener.assigned >= 2, "the listener is told")
            told = (await admin.describe_consumer_groups([group]))[0].groups[0]
            assert told[1:5] == (group, "Stable", "consumer", name) and len(told[5]) == 2, told
            await produce(one, 40, 4)
            await until(lambda: len(set(seen)) == 440, "what came later is read")
            await second.stop()
            await until(lambda: len(first.assignment()) == 4, "the first has all again")
            await admin.create_partitions({topic: NewPartitions(6)})
            await until(lambda: len(first.assignment()) == 6, "the first has the new ones")
            # A static member that comes back within its session keeps what it had, and nobody else is asked.
            third = await join(group_instance_id="three")
            await until(lambda: len(first.assignment()) == 3 == len(third.assignment()), "the third has its part")
            await asyncio.sleep(0.5)
            held, rounds = third.assignment(), listener.assigned
            await third.stop()
            third = await join(group_instance_id="three")
            await until(lambda: third.assignment() == held, "the third has the same again")
            await asyncio.sleep(0.5)
            assert listener.assigned == rounds and len(first.assignment()) == 3, (rounds, listener.assigned, first.assignment(), third.assignment(), held)
            while len(await one.partitions_for(topic)) < 6:
                await asyncio.sleep(0.05)
            await produce(one, 60, 6)
            await until(lambda: len(set(seen)) == 500, "all partitions are read")
        await first.stop()
        await third.stop()
        for task in tasks:
            task.cancel()
        committed = await admin.list_consumer_group_offsets(group)
        assert {p.partition: o.offset for p, o in committed.items()} == {p: 120 if p < 4 else 10 for p in range(6)}, committed
        assert (group, "consumer") in await admin.list_consumer_groups()
    say("groups by three assignors, a pattern, partitions added, static members")


async def transactions(admin):
    topic = await create(admin, "txn", 2)
    one = producer(transactional_id=RUN)
    await one.start()
    at = TopicPartition(topic, 0)
    async with one.transaction():
        for i in range(20):
            await one.send(topic, b"kept%d" % i, partition=i % 2)
        await one.send_offsets_to_transaction({at: OffsetAndMetadata(7, "here")}, RUN + "-txn-group")
    await one.begin_transaction()
    for i in range(20):
        await one.send(topic, b"dropped%d" % i, partition=i % 2)
    await one.send_offsets_to_transaction({at: 8}, RUN + "-txn-group")
    await one.flush()
    reader = consumer(isolation_level="read_committed")
    reader.assign([at])
    async with reader:
        while len(await reader.getmany(timeout_ms=300)):
            pass
        assert (reader.last_stable_offset(at), reader.highwater(at)) == (11, 21)
    await one.abort_transaction()
    await one.begin_transaction()
    await one.send_and_wait(topic, b"of the old one", partition=0)
    async with producer(transactional_id=RUN) as two:
        try:
            await one.send_and_wait(topic, b"fenced", partition=0)
            await one.commit_transaction()
            assert False, "two producers of one id"
        except ProducerFenced:
            pass
        async with two.transaction():
            await two.send_and_wait(topic, b"kept-last", partition=1)
    await one.stop()
    committed = await read(topic, 21, 2, isolation_level="read_committed")
    assert sorted(r.value for r in committed) == sorted([b"kept%d" % i for i in range(20)] + [b"kept-last"])
    assert len(await read(topic, 42, 2)) == 42
    noted = await admin.list_consumer_group_offsets(RUN + "-txn-group")
    assert noted == {at: OffsetAndMetadata(7, "here")}, noted
    say("transactions: kept, dropped, offsets, an open one, fencing")


async def administration(admin):
    topic = await create(admin, "admin", 3, **{"retention.ms": "360000"})
    assert topic in await admin.list_topics()
    told = (await admin.describe_topics([topic]))[0]
    assert told["error_code"] == 0 and len(told["partitions"]) == 3, told
    resource = lambda configs=None: ConfigResource(ConfigResourceType.TOPIC, topic, configs)
    await admin.alter_configs([resource({"cleanup.policy": "compact", "retention.ms": "7200000"})])
    answer = (await admin.describe_configs([resource({"retention.ms": None, "cleanup.policy": None})]))[0]
    settings = {c[0]: c[1] for c in answer.resources[0][4]}
    assert settings == {"retention.ms": "7200000", "cleanup.policy": "compact"}, settings
    everything = (await admin.describe_configs([resource(), ConfigResource(ConfigResourceType.BROKER, "1", None)], include_synonyms=True))
    assert len(everything) == 2 and all(len(a.resources[0][4]) > 20 for a in everything), everything
    cluster = await admin.describe_cluster()
    assert len(cluster["brokers"]) == 1 and cluster["cluster_id"], cluster
    again = await admin.create_topics([NewTopic(topic, 1, 1)])
    assert again.topic_errors[0][1] == 36, again
    assert (await admin.delete_topics([topic])).topic_error_codes[0][1] == 0
    assert topic not in await admin.list_topics()
    say("administration")


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    for check in [codecs, offsets, transactions, groups, administration]:
        await check(admin)
    await admin.close()
    say("ok")


asyncio.run(main())
