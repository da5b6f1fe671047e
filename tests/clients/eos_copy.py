#!/usr/bin/env python3
"""Copies a topic into another by transactions while the server is killed: eos_copy.py MILLPOND [KILLS] [classic|consumer]

Starts its own server in a directory of its own and kills it KILLS times. Meanwhile an idempotent producer fills the source,
the members of a group copy it, each under a transactional id of its own, come and go and are killed too, and a reader of
what is committed stays up. It must see each record once and in order, and of each transaction all or nothing; the source
must have each record once and in order; what the group commits never goes back. Whatever was acknowledged with an offset
or read at one, by anybody at any time and whether committed or not, is there in the end: an offset has one value for ever.
Always ends: when no copier makes progress for STALL seconds they are killed with their stacks and the clients' logs shown,
and that is a failure."""
import collections
import faulthandler
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ports import free_port

PARTITIONS, COPIERS, STALL, CALL = 4, 3, 90, 15
# More than are copied in a moment, so that there is always something under way when the server is killed.
RECORDS_PER_SECOND = 1500
A, B, GROUP = "eos-a", "eos-b", "eos-copy"


def copy(bootstrap, protocol, number, total_file, acked_file, seed):
    """A copier: ends with 0 when all is copied, with 3 when its producer has to begin anew, with 4 to leave the group.

    What is acknowledged to it goes to a file: partition, offset, value."""
    faulthandler.register(signal.SIGUSR1)
    acked = open(acked_file, "w", buffering=1)

    def delivered(error, message):
        if error is None and message.offset() >= 0:
            acked.write(f"{message.partition()} {message.offset()} {message.value().decode()}\n")

    settings = {"bootstrap.servers": bootstrap, "group.id": GROUP, "enable.auto.commit": False,
                "auto.offset.reset": "earliest", "isolation.level": "read_committed", "debug": "cgrp,topic"}
    settings.update({"group.protocol": "consumer"} if protocol == "consumer" else
                    {"session.timeout.ms": 3000, "heartbeat.interval.ms": 300})
    consumer = Consumer(settings)
    consumer.subscribe([A])
    # With a metadata.recovery.strategy a producer that saw no broker up for a moment throws away what it knows of it, but for
    # the group's coordinator, for which send_offsets_to_transaction then waits for ever: confluentinc/librdkafka#5511.
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"eos-copier-{number}",
                         "metadata.recovery.strategy": "none", "debug": "eos,broker,protocol", "transaction.timeout.ms": 20000, "linger.ms": 2})

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
        if not parts:
            return
        for p in call("committed", lambda t: consumer.committed(parts, t)):
            try:
                consumer.seek(TopicPartition(A, p.partition, max(p.offset, 0)))
            except KafkaException as e:
                # A partition that was taken away meanwhile begins anew at what is committed.
                print("seek", e, flush=True)

    call("init", producer.init_transactions)
    random.seed(seed)
    leaves, transactions = time.time() + random.uniform(5, 30), 0
    while True:
        messages = [m for m in consumer.consume(random.randint(20, 400), 0.5) if not m.error()]
        if not messages:
            total = int(open(total_file).read() or -1) if os.path.exists(total_file) else -1
            done = call("committed", lambda t: consumer.committed([TopicPartition(A, i) for i in range(PARTITIONS)], t))
            if sum(max(p.offset, 0) for p in done) == total:
                consumer.close()
                return 0
            continue
        if time.time() > leaves:
            consumer.close()
            return 4
        transactions += 1
        name = f"{os.getpid()}-{transactions}"
        counts = collections.Counter(m.partition() for m in messages)
        producer.begin_transaction()
        try:
            for m in messages:
                here, all_of_it = counts[m.partition()], len(messages)
                producer.produce(B, m.value(), partition=m.partition(), on_delivery=delivered,
                                 headers={"transaction": name, "here": str(here), "all": str(all_of_it)})
            ends = {}
            for m in messages:
                ends[m.partition()] = m.offset() + 1
            offsets = [TopicPartition(A, p, o) for p, o in ends.items()]
            call("send_offsets", producer.send_offsets_to_transaction, offsets, consumer.consumer_group_metadata())
            if random.random() < 0.1:
                call("abort", producer.abort_transaction)
                print("aborted", name, flush=True)
                rewind()
                continue
            call("commit", producer.commit_transaction)
            print("copied", len(messages), flush=True)
        except KafkaException as e:
            if not e.args[0].txn_requires_abort():
                return 3
            call("abort", producer.abort_transaction)
            print("aborted", name, flush=True)
            rewind()


class Offsets:
    """Which value an offset has. What contradicts what was noted before is in `problems`."""

    def __init__(self, how):
        self.how, self.values, self.problems = how, {}, []

    def note(self, topic, partition, offset, value):
        before = self.values.setdefault((topic, partition, offset), value)
        if before != value:
            self.problems.append(f"{topic}, partition {partition}, offset {offset}: {self.how} {before}, then {value}")

    def against(self, log):
        """What of it the log does not have, or has otherwise."""
        wrong = [(*at, value, log.get(at)) for at, value in self.values.items() if log.get(at) != value]
        told = [f"{t}, partition {p}, offset {o}: {self.how} {value}, in the log {there}" for t, p, o, value, there in wrong[:5]]
        return self.problems + told + [f"{len(wrong)} {self.how} in all"] * bool(wrong)


class Sampler(threading.Thread):
    """Reads here and there, over all restarts, what is committed and what is not."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.stop, self.problems = address, threading.Event(), []
        self.seen = Offsets("read")

    def run(self):
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "eos-sampler", "log_level": 0,
                             "isolation.level": "read_uncommitted", "enable.auto.commit": False, "auto.offset.reset": "latest"})
        chance = random.Random(seed)
        while not self.stop.is_set():
            at = TopicPartition(chance.choice([A, B]), chance.randrange(PARTITIONS))
            try:
                low, high = consumer.get_watermark_offsets(at, 2)
            except KafkaException:
                continue  # the server is down
            # Half of the looks are at what is newest.
            at.offset = max(low, high - 200) if chance.random() < 0.5 else chance.randint(low, high)
            consumer.assign([at])
            for m in consumer.consume(300, 0.3):
                if not m.error():
                    self.seen.note(m.topic(), m.partition(), m.offset(), int(m.value()))
        consumer.close()


class Source(threading.Thread):
    """Fills the source until it is told to stop; then `total` is how many records there are."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.stop, self.total, self.problems = address, threading.Event(), 0, []
        self.acked = Offsets("acknowledged")

    def run(self):
        def delivered(error, message):
            if error is not None:
                self.problems.append(f"a record of the source was not taken: {error}")
            # Without an offset where an acknowledgement came too late to tell it.
            elif message.offset() >= 0:
                self.acked.note(A, message.partition(), message.offset(), int(message.value()))

        producer = Producer({"bootstrap.servers": self.address, "enable.idempotence": True, "linger.ms": 5, "log_level": 0,
                             "on_delivery": delivered})
        began = time.time()
        while not self.stop.is_set():
            due = (time.time() - began) * RECORDS_PER_SECOND
            while self.total < due:
                try:
                    producer.produce(A, str(self.total), partition=self.total % PARTITIONS)
                    self.total += 1
                except BufferError:
                    break
            producer.poll(0.02)
        if producer.flush(60):
            self.problems.append("the source's last records were not taken")


class Reader(threading.Thread):
    """Reads what is committed of the copy, over all restarts."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.stop, self.problems = address, threading.Event(), []
        self.next = list(range(PARTITIONS))  # the value that comes next
        self.transactions = collections.Counter()
        self.sizes = {}
        self.seen = Offsets("read as committed")

    def run(self):
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "eos-reader", "log_level": 0,
                             "isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "error"})
        consumer.assign([TopicPartition(B, i, 0) for i in range(PARTITIONS)])
        last, open_ones = [-1] * PARTITIONS, [(None, 0)] * PARTITIONS
        while not self.stop.is_set() and not self.problems:
            for m in consumer.consume(1000, 0.2):
                if m.error():
                    if m.error().code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                        self.problems.append(f"the reader lost its place: {m.error()}")
                    continue
                p, value = m.partition(), int(m.value())
                headers = {k: v.decode() for k, v in m.headers()}
                name, here = headers["transaction"], int(headers["here"])
                if m.offset() <= last[p]:
                    self.problems.append(f"partition {p}: offset {m.offset()} comes after {last[p]}")
                if value != self.next[p]:
                    self.problems.append(f"partition {p}, offset {m.offset()}: {value} instead of {self.next[p]}, {name}")
                before, left = open_ones[p]
                if before != name and left:
                    self.problems.append(f"partition {p}: {left} records of transaction {before} are missing")
                open_ones[p] = (name, (left if before == name else here) - 1)
                last[p], self.next[p] = m.offset(), value + PARTITIONS
                self.seen.note(B, p, m.offset(), value)
                self.transactions[name] += 1
                self.sizes[name] = int(headers["all"])
        consumer.close()

    def torn(self, aborted):
        """What is wrong once everything was read."""
        torn = [n for n, count in self.transactions.items() if count != self.sizes[n]]
        seen = [n for n in aborted if n in self.transactions]
        return [f"torn transactions: {torn[:5]}"] * bool(torn) + [f"aborted ones are seen: {seen[:5]}"] * bool(seen)


class Watch(threading.Thread):
    """What the group has committed never goes back."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.stop, self.problems, self.looks = address, threading.Event(), [], 0

    def run(self):
        consumer, last = Consumer({"bootstrap.servers": self.address, "group.id": GROUP, "log_level": 0}), {}
        while not self.stop.is_set():
            try:
                for p in consumer.committed([TopicPartition(A, i) for i in range(PARTITIONS)], 2):
                    if p.error is None and p.offset < last.get(p.partition, -1001):
                        self.problems.append(f"partition {p.partition}: committed {last[p.partition]}, then {p.offset}")
                    if p.error is None:
                        last[p.partition] = p.offset
                self.looks += 1
            except KafkaException:
                pass  # the server is down
            time.sleep(0.1)
        consumer.close()


class Server:
    def __init__(self, binary, work):
        self.binary, self.work, self.process = binary, work, None
        self.address = f"127.0.0.1:{free_port()}"
        with open(f"{work}/config.toml", "w") as f:
            f.write("[broker]\ngroup_consumer_heartbeat_interval_ms = 300\ngroup_consumer_session_timeout_ms = 3000\n")

    def start(self):
        with open(f"{self.work}/server.log", "ab") as log:
            command = [self.binary, "serve", "--data", f"{self.work}/data", "--kafka", self.address,
                       "--http", "127.0.0.1:0", "--config", f"{self.work}/config.toml"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        host, port = self.address.split(":")
        until = time.time() + 90
        while time.time() < until and self.process.poll() is None:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"the server does not listen:\n{tail(f'{self.work}/server.log', 20)}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def read(address, isolation):
    """Both topics from their start to their end: the values by offset, and what could not be read."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "eos-check", "isolation.level": isolation,
                         "enable.partition.eof": True, "enable.auto.commit": False})
    log, problems = {}, []
    for topic in (A, B):
        consumer.assign([TopicPartition(topic, i, 0) for i in range(PARTITIONS)])
        ended, until = set(), time.time() + 60
        while len(ended) < PARTITIONS and time.time() < until:
            for m in consumer.consume(1000, 1):
                if m.error():
                    ended.add(m.partition())
                else:
                    log[topic, m.partition(), m.offset()] = int(m.value())
        if len(ended) < PARTITIONS:
            problems.append(f"{topic} cannot be read to its end")
    consumer.close()
    return log, problems


def check(address, source, copied, reader, sampler):
    """The log in the end, by readers that begin at its start: each record once and in order, and what was told of it true."""
    committed, problems = read(address, "read_committed")
    whole, unread = read(address, "read_uncommitted")
    values = collections.defaultdict(list)
    for (topic, partition, _), value in sorted(committed.items()):
        values[topic, partition].append(value)
    for topic in (A, B):
        for p in range(PARTITIONS):
            got, want = values[topic, p], list(range(p, source.total, PARTITIONS))
            if got != want:
                lost, twice = len(set(want) - set(got)), len(got) - len(set(got))
                problems.append(f"{topic}, partition {p}: {len(got)} of {len(want)} records, {lost} lost, {twice} too many")
    problems += unread + source.acked.against(committed) + reader.seen.against(committed)
    problems += copied.against(whole) + sampler.seen.against(whole)
    if not committed.items() <= whole.items():
        problems.append("what is committed is not what is there")
    if len(source.acked.values) < source.total * 0.8 or len(copied.values) < source.total * 0.8 or len(sampler.seen.values) < 300:
        problems.append(f"too few offsets are known: {len(source.acked.values)} and {len(copied.values)} acknowledged of "
                        f"{source.total}, {len(sampler.seen.values)} read")
    return problems


def tail(path, lines):
    with open(path, errors="replace") as f:
        return "".join(f.readlines()[-lines:])


class Copiers:
    """The group's members, each of which is begun anew when it ends or is killed."""

    def __init__(self, address, protocol, work):
        self.address, self.protocol, self.work = address, protocol, work
        self.running, self.begun, self.killed, self.finished = {}, 0, 0, set()
        self.logs = []

    def keep_up(self):
        for number in range(COPIERS):
            process = self.running.get(number)
            if process is not None and process.poll() == 0:
                self.finished.add(number)
            elif process is None or process.poll() is not None:
                self.begun += 1
                log = f"{self.work}/copier-{self.begun}"
                self.logs.append(log)
                with open(log, "wb") as out, open(log + ".client", "wb") as err:
                    command = [sys.executable, __file__, "--copy", self.address, self.protocol, str(number), f"{self.work}/total",
                               log + ".acked", f"{seed} {self.begun}"]
                    self.running[number] = subprocess.Popen(command, stdout=out, stderr=err)

    def kill(self, number, how=signal.SIGKILL):
        process = self.running.get(number)
        if process is not None and process.poll() is None:
            process.send_signal(how)
            self.killed += 1

    def copied(self):
        """Grows with every transaction that was committed."""
        return sum(line.startswith("copied") for log in self.logs for line in open(log, errors="replace"))

    def acked(self):
        """Where what they produced lies, by what was acknowledged to them; the last line of one that was killed may be torn."""
        offsets = Offsets("acknowledged")
        for log in filter(lambda log: os.path.exists(log + ".acked"), self.logs):
            with open(log + ".acked") as lines:
                for line in lines.read().split("\n")[:-1]:
                    partition, offset, value = map(int, line.split())
                    offsets.note(B, partition, offset, value)
        return offsets

    def aborted(self):
        lines = [line.split() for log in self.logs for line in open(log, errors="replace")]
        return [words[1] for words in lines if len(words) == 2 and words[0] == "aborted"]


def main():
    binary, kills = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50
    protocol = sys.argv[3] if len(sys.argv) > 3 else "classic"
    work = tempfile.mkdtemp(prefix="eos-copy-")
    server = Server(binary, work)
    copiers, problems, threads, made, began = Copiers(server.address, protocol, work), [], [], 0, time.time()
    try:
        server.start()
        admin = AdminClient({"bootstrap.servers": server.address, "log_level": 0})
        [f.result(20) for f in admin.create_topics([NewTopic(A, PARTITIONS), NewTopic(B, PARTITIONS)]).values()]
        source, reader, watch = Source(server.address), Reader(server.address), Watch(server.address)
        sampler = Sampler(server.address)
        threads = [source, reader, watch, sampler]
        [t.start() for t in threads]
        copied, moved = 0, time.time()
        while time.time() < began + 60 + 10 * kills:
            copiers.keep_up()
            time.sleep(random.uniform(0.1, 0.8))
            problems = [p for t in threads for p in t.problems]
            if problems or len(copiers.finished) == COPIERS:
                break
            now = copiers.copied()
            if now != copied:
                copied, moved = now, time.time()
            if time.time() - moved > STALL and len(copiers.finished) == 0:
                [copiers.kill(n, signal.SIGUSR1) for n in range(COPIERS)]
                time.sleep(1)
                logs = "".join(f"{log}:\n{tail(log, 5)}{tail(log + '.client', 40)}" for log in copiers.logs[-COPIERS:])
                problems.append(f"no copier made progress for {STALL} s:\n{logs}")
                break
            if made < kills:
                if random.random() < 0.2:
                    copiers.kill(random.randrange(COPIERS))
                server.kill()
                made += 1
                time.sleep(random.choice([0, 0.1, 0.5]))
                server.start()
            elif not source.stop.is_set():
                source.stop.set()
                source.join(90)
                with open(f"{work}/total.new", "w") as out:
                    out.write(str(source.total))
                os.rename(f"{work}/total.new", f"{work}/total")
        else:
            problems.append("not copied in time")
        if not problems:
            until = time.time() + 90
            while sum(reader.transactions.values()) < source.total and not reader.problems and time.time() < until:
                time.sleep(0.1)
            [t.stop.set() for t in threads]
            [t.join(20) for t in threads]
            problems = [p for t in threads for p in t.problems] + reader.torn(copiers.aborted())
            if sum(reader.transactions.values()) != source.total:
                problems.append(f"the reader saw {sum(reader.transactions.values())} of {source.total} records")
            if made < kills or not copiers.aborted() or watch.looks < kills:
                problems.append(f"too little was tried: {made} kills, {len(copiers.aborted())} aborted, {watch.looks} looks")
            copied = copiers.acked()
            problems += check(server.address, source, copied, reader, sampler)
    finally:
        for process in [*copiers.running.values(), server.process]:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
    if problems:
        print(f"FAILED (MILLPOND_SEED={seed}, logs in {work}):", *problems[:20], sep="\n")
        sys.exit(1)
    print(f"eos_copy: ok, {source.total} records in {len(reader.transactions)} transactions by {copiers.begun} copiers, "
          f"{len(copiers.aborted())} aborted, {made} kills of the server, {copiers.killed} of copiers, {watch.looks} looks, {protocol}; "
          f"{len(source.acked.values)} and {len(copied.values)} acknowledged offsets held, {len(sampler.seen.values)} sampled, "
          f"{time.time() - began:.0f} s")
    shutil.rmtree(work)


if len(sys.argv) > 1 and sys.argv[1] == "--copy":
    sys.exit(copy(*sys.argv[2:]))
seed = int(os.environ.get("MILLPOND_SEED", time.time()))
random.seed(seed)
main()
