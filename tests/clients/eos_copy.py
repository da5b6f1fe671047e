#!/usr/bin/env python3
"""Copies a topic into another by transactions while server and copier are killed: eos_copy.py MILLPOND [KILLS] [classic|consumer]

Starts its own server in a directory of its own. Afterwards the copy, read committed, must have each record once and in
order. Always ends: a copier that makes no progress for STALL seconds is killed with its stack and the client's log shown,
and counts as a failure."""
import faulthandler
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS, RECORDS, STALL, CALL = 4, 40_000, 45, 15
A, B, GROUP = "eos-a", "eos-b", "eos-copy"


def copy(bootstrap, protocol):
    """The copier: ends with 0 when all is copied, with 3 when its producer has to begin anew."""
    faulthandler.register(signal.SIGUSR1)
    settings = {"bootstrap.servers": bootstrap, "group.id": GROUP, "enable.auto.commit": False,
                "auto.offset.reset": "earliest", "isolation.level": "read_committed", "debug": "cgrp,topic"}
    settings.update({"group.protocol": "consumer"} if protocol == "consumer" else {"session.timeout.ms": 6000})
    consumer = Consumer(settings)
    consumer.subscribe([A])
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "eos-copier", "debug": "eos,broker,protocol",
                         "transaction.timeout.ms": 20000, "linger.ms": 2})

    def call(name, function, *args):
        """Again for as long as the client says so."""
        while True:
            began = time.time()
            try:
                return function(*args, CALL)
            except KafkaException as e:
                error = e.args[0]
                print(f"{name} after {time.time() - began:.1f} s: {error}", flush=True)
                if error.retriable() and not error.txn_requires_abort() and not error.fatal():
                    continue
                raise

    def rewind():
        parts = consumer.assignment()
        for p in call("committed", lambda t: consumer.committed(parts, t)):
            consumer.seek(TopicPartition(A, p.partition, max(p.offset, 0)))

    call("init", producer.init_transactions)
    random.seed()
    while True:
        messages = [m for m in consumer.consume(random.randint(20, 400), 0.5) if not m.error()]
        if not messages:
            done = call("committed", lambda t: consumer.committed([TopicPartition(A, i) for i in range(PARTITIONS)], t))
            if sum(max(p.offset, 0) for p in done) == RECORDS:
                consumer.close()
                return 0
            continue
        producer.begin_transaction()
        try:
            for m in messages:
                producer.produce(B, m.value(), partition=m.partition())
            ends = {}
            for m in messages:
                ends[m.partition()] = m.offset() + 1
            offsets = [TopicPartition(A, p, o) for p, o in ends.items()]
            call("send_offsets", producer.send_offsets_to_transaction, offsets, consumer.consumer_group_metadata())
            if random.random() < 0.1:
                call("abort", producer.abort_transaction)
                rewind()
                continue
            call("commit", producer.commit_transaction)
            print("copied", len(messages), flush=True)
        except KafkaException as e:
            if not e.args[0].txn_requires_abort():
                return 3
            call("abort", producer.abort_transaction)
            rewind()


class Server:
    def __init__(self, binary, work):
        self.binary, self.work, self.process = binary, work, None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % s.getsockname()[1]
        with open(f"{work}/config.toml", "w") as f:
            f.write("[broker]\ngroup_consumer_heartbeat_interval_ms = 300\ngroup_consumer_session_timeout_ms = 6000\n")

    def start(self):
        with open(f"{self.work}/server.log", "ab") as log:
            command = [self.binary, "serve", "--data", f"{self.work}/data", "--kafka", self.address,
                       "--http", "127.0.0.1:0", "--config", f"{self.work}/config.toml"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        host, port = self.address.split(":")
        for _ in range(300):
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the server does not listen")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def check(address):
    """Values of the copy by partition, as a reader of what is committed sees them."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "eos-check", "isolation.level": "read_committed",
                         "enable.partition.eof": True, "enable.auto.commit": False})
    consumer.assign([TopicPartition(B, i, 0) for i in range(PARTITIONS)])
    values, ended, until = {i: [] for i in range(PARTITIONS)}, set(), time.time() + 60
    while len(ended) < PARTITIONS and time.time() < until:
        for m in consumer.consume(1000, 1):
            if m.error():
                ended.add(m.partition())
            else:
                values[m.partition()].append(int(m.value()))
    consumer.close()
    problems = [] if len(ended) == PARTITIONS else ["the copy cannot be read to its end"]
    for p, got in values.items():
        want = list(range(p, RECORDS, PARTITIONS))
        if got != want:
            lost, twice = len(set(want) - set(got)), len(got) - len(set(got))
            problems.append(f"partition {p}: {len(got)} of {len(want)} records, {lost} lost, {twice} too many")
    return problems


def tail(path, lines):
    with open(path, errors="replace") as f:
        return "".join(f.readlines()[-lines:])


def main():
    binary, kills = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    protocol = sys.argv[3] if len(sys.argv) > 3 else "classic"
    work = tempfile.mkdtemp(prefix="eos-copy-")
    server = Server(binary, work)
    copier, problems, copiers = None, [], 0
    seed = int(os.environ.get("SEED", time.time()))
    random.seed(seed)
    try:
        server.start()
        admin = AdminClient({"bootstrap.servers": server.address, "log_level": 0})
        [f.result(20) for f in admin.create_topics([NewTopic(A, PARTITIONS), NewTopic(B, PARTITIONS)]).values()]
        producer = Producer({"bootstrap.servers": server.address, "enable.idempotence": True, "log_level": 0})
        for i in range(RECORDS):
            producer.produce(A, str(i), partition=i % PARTITIONS)
            producer.poll(0)
        assert producer.flush(60) == 0
        began, size, moved, done = time.time(), 0, time.time(), 0
        while time.time() < began + 30 + 12 * kills:
            if copier is None or copier.poll() is not None:
                if copier is not None and copier.returncode == 0:
                    break
                copiers += 1
                log = f"{work}/copier-{copiers}"
                with open(log, "wb") as out, open(log + ".client", "wb") as err:
                    command = [sys.executable, __file__, "--copy", server.address, protocol]
                    copier = subprocess.Popen(command, stdout=out, stderr=err)
                size, moved = 0, time.time()
            time.sleep(random.uniform(0.2, 1.2))
            if os.path.getsize(log) != size:
                size, moved = os.path.getsize(log), time.time()
            if time.time() - moved > STALL:
                copier.send_signal(signal.SIGUSR1)
                time.sleep(1)
                problems.append(f"copier {copiers} made no progress for {STALL} s:\n{tail(log, 5)}{tail(log + '.client', 60)}")
                break
            if done < kills:
                done += 1
                if random.random() < 0.3:
                    copier.send_signal(signal.SIGKILL)
                if random.random() < 0.8:
                    server.kill()
                    time.sleep(random.choice([0, 0.1, 1.5]))
                    server.start()
        else:
            problems.append("not copied in time")
        if not problems:
            problems = check(server.address)
    finally:
        for process in [copier, server.process]:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
    if problems:
        print(f"FAILED (seed {seed}, logs in {work}):", *problems, sep="\n")
        sys.exit(1)
    print(f"eos_copy: ok, {RECORDS} records by {copiers} copiers, {kills} kills, {protocol}, {time.time() - began:.0f} s")
    shutil.rmtree(work)


if len(sys.argv) > 1 and sys.argv[1] == "--copy":
    sys.exit(copy(sys.argv[2], sys.argv[3]))
main()
