#!/usr/bin/env python3
"""Millpond beside Apache Kafka: the same load, by the same clients, on the same machine, in the same run.

    compare.py [--short] [--only=ROW,...] [--servers=kafka,millpond,millpond-none]

Servers: Apache Kafka 4.1 (one KRaft node, the settings and the 1 GiB heap that it comes with; it never forces data to disk),
Millpond as it comes (every group commit is forced to disk before it is acknowledged), and Millpond with durability = "none", which
promises what Kafka promises. One server runs at a time. For each row, each server gets a fresh topic.

Clients: librdkafka's rdkafka_performance ("c") and Java's kafka-producer-perf-test and kafka-consumer-perf-test ("java").

Columns: throughput as the client saw it (MB/s, 10^6 bytes), CPU seconds of the server per GB, the most resident memory of the server in the row.
Latency rows: from the producer's call to the consumer's, in ms (p50, p99, p99.9).
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

CACHE = os.environ.get("MILLPOND_CACHE", os.path.expanduser("~/.cache/millpond"))
TARGET = os.environ.get("CARGO_TARGET_DIR", CACHE + "/target")
MILLPOND = os.environ.get("MILLPOND", TARGET + "/debug/millpond")
RDKAFKA = CACHE + "/rdkafka/4.10.0+2.12.1/rdkafka_performance"
LIB = CACHE + "/kafka/4.1.2/lib/*"
TICKS = os.sysconf("SC_CLK_TCK")

short = "--short" in sys.argv
only = [a.split("=", 1)[1].split(",") for a in sys.argv if a.startswith("--only=")]
only = only[0] if only else None
servers = [a.split("=", 1)[1].split(",") for a in sys.argv if a.startswith("--servers=")]
servers = servers[0] if servers else ["kafka", "millpond", "millpond-none"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """One server in a folder of its own, with what it uses read from /proc."""

    def __init__(self, kind):
        self.kind = kind
        self.work = tempfile.mkdtemp(prefix="compare-")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        log = open(self.work + "/log", "w")
        if kind == "kafka":
            command = self.kafka(log)
        else:
            command = [MILLPOND, "serve", "--data", self.work + "/data", "--kafka", self.address, "--http", "127.0.0.1:0"]
            if kind == "millpond-none":
                with open(self.work + "/config.toml", "w") as f:
                    f.write('durability = "none"\n')
                command += ["--config", self.work + "/config.toml"]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.peak = 0
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"{kind} did not start:\n" + open(self.work + "/log").read())
                time.sleep(0.1)
        else:
            sys.exit(f"{kind} did not listen within a minute")
        self.stop = threading.Event()
        self.sampler = threading.Thread(target=self.sample, daemon=True)
        self.sampler.start()

    def kafka(self, log):
        controller = free_port()
        with open(self.work + "/server.properties", "w") as f:
            f.write(
                "process.roles=broker,controller\nnode.id=1\n"
                f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
                f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}\n"
                "controller.listener.names=CONTROLLER\n"
                f"log.dirs={self.work}/data\n"
                "offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n"
                "transaction.state.log.min.isr=1\n"
            )
        java(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", self.work + "/server.properties"])
        return [
            "java", "-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", LIB, "kafka.Kafka", self.work + "/server.properties",
        ]

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident(self):
        status = open(f"/proc/{self.process.pid}/status").read()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def sample(self):
        while not self.stop.wait(0.1):
            try:
                self.peak = max(self.peak, self.resident())
            except (OSError, TypeError):
                return

    def end(self):
        self.stop.set()
        self.sampler.join()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.work, ignore_errors=True)


def run(command, seconds=300):
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def java(args):
    return run(["java", "-Xmx512M", "-Xshare:auto", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", LIB, *args])


def topic(server, name, partitions):
    java(["org.apache.kafka.tools.TopicCommand", "--bootstrap-server", server.address, "--create", "--topic", name,
          "--partitions", str(partitions), "--replication-factor", "1"])


def megabytes(text):
    found = re.findall(r"([\d.]+) MB/s", text)
    if not found:
        sys.exit("no throughput in:\n" + text[-2000:])
    return float(found[-1])


def c_produce(server, name, count, size, *options):
    out = run([RDKAFKA, "-P", "-t", name, "-b", server.address, "-s", str(size), "-c", str(count), "-i", "60000",
               "-X", "linger.ms=5", "-X", "batch.size=1000000", "-X", "queue.buffering.max.messages=1000000", *options])
    return megabytes(out)


def java_produce(server, name, count, size, *properties):
    out = java(["org.apache.kafka.tools.ProducerPerformance", "--topic", name, "--num-records", str(count), "--record-size", str(size),
                "--throughput", "-1", "--producer-props", f"bootstrap.servers={server.address}", *properties])
    # Java's tools count 2^20 bytes to the MB.
    return float(re.findall(r"\(([\d.]+) MB/sec\)", out)[-1]) * 1.048576


def c_consume(server, name, count, partitions):
    chosen = [x for p in range(partitions) for x in ("-p", str(p))]
    return megabytes(run([RDKAFKA, "-C", "-t", name, "-b", server.address, *chosen, "-o", "beginning", "-c", str(count), "-i", "60000"]))


def java_consume(server, name, count):
    out = java(["org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", server.address, "--topic", name,
                "--messages", str(count), "--timeout", "60000"])
    fields = [f.strip() for f in next(line for line in reversed(out.splitlines()) if line.count(",") >= 9).split(",")]
    # data.consumed.in.MB over fetch.time.ms: without the time that joining the group takes.
    return float(fields[2]) * 1.048576 / (float(fields[7]) / 1000)


def latency(server, name, rate, seconds):
    """Milliseconds from produce to consume of 1,000-byte records at a fixed rate per second: p50, p99, p99.9."""
    file = server.work + "/latency"
    count = rate * seconds
    consumer = subprocess.Popen(
        [RDKAFKA, "-C", "-t", name, "-b", server.address, "-p", "0", "-o", "end", "-c", str(count), "-l", "-A", file,
         "-i", "60000", "-X", "fetch.wait.max.ms=100"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(2)
    producer = run([RDKAFKA, "-P", "-l", "-t", name, "-b", server.address, "-p", "0", "-s", "1000", "-c", str(count), "-r", str(rate),
                    "-a", "1", "-i", "60000", "-X", "linger.ms=1", "-X", "queue.buffering.max.messages=1000000"])
    try:
        consumer.wait(30)
    except subprocess.TimeoutExpired:
        consumer.terminate()
        consumer.wait()
    values = sorted(int(v) for v in open(file).read().split())
    # The first second finds the client's connections and the server's code cold.
    if len(values) < count * 0.9:
        sys.exit(f"{len(values)} of {count} records were measured\n{producer[-500:]}")
    at = lambda q: values[min(len(values) - 1, int(len(values) * q))] / 1000
    return at(0.5), at(0.99), at(0.999), megabytes(producer)


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3\n")
    except OSError:
        print("(not root: the operating system's cache stays warm)", file=sys.stderr)


N = 300_000 if short else 1_500_000
ROWS = {}


def row(name, title):
    def keep(f):
        ROWS[name] = (title, f)
        return f
    return keep


def produce_row(name, title, count, size, partitions, options=(), properties=()):
    @row("c-" + name, f"produce, {title}, librdkafka")
    def by_c(server):
        topic(server, "c-" + name, partitions)
        return lambda: (c_produce(server, "c-" + name, count, size, *options), count * size / 1e9)

    @row("java-" + name, f"produce, {title}, Java")
    def by_java(server):
        topic(server, "java-" + name, partitions)
        return lambda: (java_produce(server, "java-" + name, count, size, *properties), count * size / 1e9)


produce_row("acks1", "1 KB, acks=1", N, 1024, 1, ["-a", "1"], ["acks=1"])
produce_row("all", "1 KB, acks=all", N, 1024, 1, ["-a", "-1"], ["acks=all"])
produce_row("64", "1 KB, acks=all, 64 partitions", N, 1024, 64, ["-a", "-1"], ["acks=all"])
produce_row("small", "100 B, acks=all", N * 2, 100, 1, ["-a", "-1"], ["acks=all"])
produce_row("lz4", "1 KB, acks=all, lz4", N, 1024, 1, ["-a", "-1", "-z", "lz4"], ["acks=all", "compression.type=lz4"])


@row("c-start", "consume from the start, 1 KB, cold, librdkafka")
def c_start(server):
    topic(server, "start", 1)
    c_produce(server, "start", N, 1024, "-a", "-1")
    drop_caches()
    return lambda: (c_consume(server, "start", N, 1), N * 1024 / 1e9)


@row("java-start", "consume from the start, 1 KB, Java")
def java_start(server):
    topic(server, "jstart", 1)
    c_produce(server, "jstart", N, 1024, "-a", "-1")
    return lambda: (java_consume(server, "jstart", N), N * 1024 / 1e9)


@row("c-start64", "consume from the start, 1 KB, 64 partitions, librdkafka")
def c_start64(server):
    topic(server, "start64", 64)
    c_produce(server, "start64", N, 1024, "-a", "-1")
    return lambda: (c_consume(server, "start64", N, 64), N * 1024 / 1e9)


@row("c-head", "consume at the head while it is produced, 1 KB, librdkafka")
def c_head(server):
    topic(server, "head", 1)

    def work():
        consumer = subprocess.Popen([RDKAFKA, "-C", "-t", "head", "-b", server.address, "-p", "0", "-o", "end", "-c", str(N), "-i", "60000"],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(1)
        c_produce(server, "head", N, 1024, "-a", "-1")
        out, _ = consumer.communicate(timeout=60)
        return megabytes(out), 2 * N * 1024 / 1e9
    return work


def latency_row(name, title, rate):
    @row(name, title)
    def f(server):
        topic(server, name, 1)
        return lambda: (latency(server, name, rate, 5 if short else 15), None)


latency_row("latency20", "produce to consume at 20 MB/s", 20_000)
latency_row("latency100", "produce to consume at 100 MB/s", 100_000)


def main():
    results = {}
    wanted = [name for name in ROWS if only is None or name in only]
    for kind in servers:
        server = Server(kind)
        try:
            for name in wanted:
                work = ROWS[name][1](server)
                time.sleep(1)
                server.peak = 0
                before = server.cpu()
                result, gigabytes = work()
                used = server.cpu() - before
                if gigabytes is None:
                    p50, p99, p999, rate = result
                    text = f"{p50:.1f} / {p99:.1f} / {p999:.1f} ms at {rate:.0f} MB/s, {used:.1f} CPU s, {server.peak:.0f} MB"
                else:
                    text = f"{result:.0f} MB/s, {used / gigabytes:.2f} CPU s/GB, {server.peak:.0f} MB"
                print(f"{kind:14} {name:12} {text}", file=sys.stderr)
                results[kind, name] = text
        finally:
            server.end()
    print("| what | " + " | ".join(servers) + " |")
    print("|---|" + "---|" * len(servers))
    for name in wanted:
        print(f"| {ROWS[name][0]} | " + " | ".join(results[kind, name] for kind in servers) + " |")


main()
