#!/usr/bin/env python3
"""A group whose members come and go while records flow: churn.py BOOTSTRAP [classic|cooperative|consumer]. Nothing may be lost, no
partition may be read by two members at once, and committed offsets never go back. Takes about half a minute."""
import random
import signal
import sys
import threading
import time
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

signal.alarm(300)
BOOTSTRAP, SECONDS, PARTITIONS, MEMBERS = sys.argv[1], 20, 8, 5
PROTOCOL = sys.argv[2] if len(sys.argv) > 2 else "classic"
RUN = "churn-" + uuid.uuid4().hex[:8]
random.seed(1)
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
[f.result(20) for f in admin.create_topics([NewTopic(RUN, PARTITIONS)]).values()]
over, lock = threading.Event(), threading.Lock()
owner, seen, problems, produced, moves = {}, set(), [], [0], [0]


def produce():
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True, "linger.ms": 5})
    until = time.time() + SECONDS
    while time.time() < until:
        producer.produce(RUN, str(produced[0]), partition=produced[0] % PARTITIONS)
        produced[0] += 1
        producer.poll(0)
        time.sleep(0.0005)
    assert producer.flush(30) == 0


def member(name, lifetime):
    def take(_, partitions):
        with lock:
            for p in partitions:
                if owner.get(p.partition) is not None:
                    problems.append(f"{name} is given {p.partition}, which {owner[p.partition]} still has")
                owner[p.partition] = name

    def give(_, partitions):
        with lock:
            for p in partitions:
                owner[p.partition] = None
                moves[0] += 1

    # Eager assignment gives up everything before the next generation begins; cooperative what goes to others, and they
    # get it in the generation after.
    strategy = "cooperative-sticky" if PROTOCOL == "cooperative" else random.choice(["range,roundrobin", "roundrobin,range"])
    classic = {"session.timeout.ms": 45000, "heartbeat.interval.ms": 300, "partition.assignment.strategy": strategy}
    by_server = {"group.protocol": "consumer", "group.remote.assignor": random.choice(["uniform", "range"])}
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": RUN, "auto.offset.reset": "earliest",
                         "auto.commit.interval.ms": 200, **(by_server if PROTOCOL == "consumer" else classic)})
    topic = random.choice([RUN, "^" + RUN]) if PROTOCOL == "consumer" else RUN
    consumer.subscribe([topic], on_assign=take, on_revoke=give, on_lost=give)
    until = time.time() + lifetime
    while time.time() < until and not over.is_set():
        message = consumer.poll(0.1)
        if message is not None and not message.error():
            with lock:
                seen.add(int(message.value()))
    consumer.close()


def watch():
    observer, last = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": RUN}), {}
    while not over.is_set():
        for p in observer.committed([TopicPartition(RUN, i) for i in range(PARTITIONS)], 20):
            if p.offset < last.get(p.partition, -1001):
                problems.append(f"partition {p.partition}: committed {last[p.partition]}, then {p.offset}")
            last[p.partition] = p.offset
        time.sleep(0.1)
    observer.close()


def slot(index):
    generation = 0
    while not over.is_set():
        generation += 1
        member(f"{index}.{generation}", random.uniform(2, 6) if time.time() < end - 4 else 60)


end = time.time() + SECONDS
threads = [threading.Thread(target=f, args=a, daemon=True)
           for f, a in [(produce, ()), (watch, ()), *[(slot, (i,)) for i in range(MEMBERS)]]]
[t.start() for t in threads]
threads[0].join()
until = time.time() + 120
while len(seen) < produced[0] and time.time() < until:
    time.sleep(0.2)
over.set()
[t.join(60) for t in threads[1:]]
assert not problems, "\n".join(problems[:10])
assert seen == set(range(produced[0])), f"{produced[0] - len(seen)} of {produced[0]} records were never read"
assert moves[0] > PARTITIONS, "no partition moved"
print(f"churn: ok, {produced[0]} records, {moves[0]} times a partition was given up, {PROTOCOL} protocol")
