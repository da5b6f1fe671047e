#!/usr/bin/env python3
"""Millpond beside Apache Kafka: the same load, by the same clients, on the same machine, in the same run.

    compare.py [--short] [--only=ROW,...] [--servers=kafka,millpond,millpond-none] [--runs=N] [--minutes=N] [--markdown]

Servers: Apache Kafka 4.1 (one KRaft node, the settings and the 1 GiB heap that it comes with; it never forces data to disk),
Millpond as it comes (every group commit is forced to disk before it is acknowledged), and Millpond with durability = "none", which
promises what Kafka promises. Each is warmed up before its first row, so that the Java virtual machine has compiled what the rows use.
The servers take turns: each run of a row is made on one after the other, on a fresh topic, while the others have nothing to do, as what
the machine does best (pages that its host has or has not taken back) changes by the minute.

Clients: librdkafka's rdkafka_performance ("c") and Java's kafka-producer-perf-test and kafka-consumer-perf-test ("java").

Columns: throughput as the client saw it (MB/s, 10^6 bytes), CPU seconds of the server per GB, the most resident memory of the server in the row.
Latency rows: from the producer's call to the consumer's, in ms (p50, p99, p99.9).
The row from disk: the operating system's caches are dropped first. That needs root; who is not is told, and the row says that it was warm.
The row of more than fits into memory: each server is started anew in a memory cgroup (v1 or v2) of 1.5 GiB, which its heap and
the operating system's cache of its files share, gets 3 GB there (--short: 2.5) and is then read from the start; the clients are outside.
The row fails if the limit was never met. Where no such cgroup can be made, that is told, and the row says so and is of dropped caches.

--short     a fifth of the records, and without millpond-none: rows of half a second, which tell of the clients' start as much as of the
            servers; a quarter of an hour on two cores; without it the ten rows of producing take seven minutes
--only      some rows; --list names them
--runs      each row so many times, the run with the median throughput (of latency: the median p99) counts
--minutes   begins no row later than so long after the start; rows that were left out are shown as such
--markdown  a heading, what was done, after each row which aims Millpond reaches, and how many are reached of all, as docs/benchmarks.md has it

A row that fails is shown as failed, and the others go on; the exit status then is 1.
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



def option(name):
    found = [a.split("=", 1)[1] for a in sys.argv[1:] if a.startswith(f"--{name}=")]
    return found[-1] if found else None


short = "--short" in sys.argv
markdown = "--markdown" in sys.argv
only = option("only") and option("only").split(",")
servers = (option("servers") or ("kafka,millpond" if short else "kafka,millpond,millpond-none")).split(",")
runs = int(option("runs") or 1)
end_at = time.monotonic() + 60 * float(option("minutes")) if option("minutes") else None
known = ("--short", "--markdown", "--list")
for argument in sys.argv[1:]:
    if argument not in known and argument.split("=")[0] not in ("--only", "--servers", "--runs", "--minutes"):
        sys.exit(f"\"{argument}\" is not an option\n{__doc__}")


class Failed(Exception):
    """A row could not be measured."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """One server in a folder of its own, with what it uses read from /proc."""

    def __init__(self, kind, cgroup=None):
        self.kind = kind
        self.cgroup = cgroup
        self.topics = []
        self.work = tempfile.mkdtemp(prefix="compare-")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        log = open(self.work + "/log", "w")
        if kind == "kafka":
            command = self.kafka(log)
        else:
            command = [MILLPOND, "serve", "--data", self.work + "/data", "--kafka", self.address, "--http", "127.0.0.1:0"]
            settings = {"millpond-none": 'durability = "none"'}
            if kind in settings:
                with open(self.work + "/config.toml", "w") as f:
                    f.write(settings[kind] + "\n")
                command += ["--config", self.work + "/config.toml"]
        if cgroup is not None:
            # Before its first page is counted, and with all threads that it will have.
            command = ["sh", "-ec", 'echo $$ > "$0"; exec "$@"', cgroup.path + "/cgroup.procs", *command]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.peak = 0
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None:
                    raise Failed(f"{kind} did not start:\n" + open(self.work + "/log").read()[-2000:])
                time.sleep(0.1)
        else:
            self.process.kill()
            raise Failed(f"{kind} did not listen within a minute")
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
        """Seconds of its own, and of children that have ended, in both modes."""
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return sum(int(ticks) for ticks in fields[11:15]) / TICKS

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
        if self.cgroup is not None:
            self.cgroup.remove()


class Cgroup:
    """A memory cgroup for one server. `unavailable` says why there can be none."""

    unavailable = None
    made = 0

    def __init__(self, limit):
        self.path = None
        try:
            mount, self.v2 = self.hierarchy()
            Cgroup.made += 1
            path = f"{mount}/compare-{os.getpid()}-{Cgroup.made}"
            os.mkdir(path)
            self.path = path
            # What is pushed out must not go on living in a swap.
            names = ("memory.max", "memory.swap.max") if self.v2 else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            self.write(names[0], limit)
            if os.path.exists(f"{path}/{names[1]}"):
                self.write(names[1], 0 if self.v2 else limit)
        except OSError as e:
            self.remove()
            Cgroup.unavailable = str(e)
            raise

    @staticmethod
    def hierarchy():
        """Where cgroups with a limit on memory are made, and whether they are of version 2."""
        mounts = [line.split() for line in open("/proc/mounts")]
        for _, mount, kind, options, *_ in mounts:
            if kind == "cgroup" and "memory" in options.split(","):
                return mount, False
            if kind == "cgroup2" and "memory" in open(mount + "/cgroup.controllers").read().split():
                if "memory" not in open(mount + "/cgroup.subtree_control").read().split():
                    with open(mount + "/cgroup.subtree_control", "w") as f:
                        f.write("+memory")
                return mount, True
        raise OSError("no hierarchy of cgroups with memory is mounted")

    def write(self, name, value):
        with open(f"{self.path}/{name}", "w") as f:
            f.write(str(value))

    def met(self):
        """Whether the limit was met, so that something had to go."""
        if self.v2:
            return int(re.search(r"^max (\d+)", open(self.path + "/memory.events").read(), re.M)[1]) > 0
        # Not by its count of failures, which stays zero in some kernels where only the cache has to give way.
        return int(open(self.path + "/memory.max_usage_in_bytes").read()) > LIMIT - (1 << 20)

    def remove(self):
        for _ in range(50):
            try:
                if self.path is not None:
                    os.rmdir(self.path)
                return
            except OSError:
                # Its last process may still be on the way out.
                time.sleep(0.1)
        print(f"(\"{self.path}\" could not be removed)", file=sys.stderr)


def run(command, seconds=180):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{' '.join(command)}\nhad not ended after {seconds} s") from e
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def java(args):
    return run(["java", "-Xmx512M", "-Xshare:auto", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", LIB, *args])


def topic(server, name, partitions):
    run([MILLPOND, "topic", "create", name, "--partitions", str(partitions), "--bootstrap", server.address])
    server.topics.append(name)


def delete_topics(server):
    """Gives the space back; Kafka does so a minute later."""
    if server.topics:
        run([MILLPOND, "topic", "delete", *server.topics, "--yes", "--bootstrap", server.address])
    server.topics = []


def megabytes(text):
    found = re.findall(r"([\d.]+) MB/s", text)
    if not found:
        raise Failed("no throughput in:\n" + text[-2000:])
    return float(found[-1])


def c_produce(server, name, count, size, *options):
    out = run([RDKAFKA, "-P", "-t", name, "-b", server.address, "-s", str(size), "-c", str(count), "-i", "60000",
               "-X", "linger.ms=5", "-X", "batch.size=1000000", "-X", "queue.buffering.max.messages=1000000", *options])
    return megabytes(out)


def java_produce(server, name, count, size, *properties):
    out = java(["org.apache.kafka.tools.ProducerPerformance", "--topic", name, "--num-records", str(count), "--record-size", str(size),
                "--throughput", "-1", "--producer-props", f"bootstrap.servers={server.address}", *properties])
    # Java's tools count 2^20 bytes to the MB.
    found = re.findall(r"\(([\d.]+) MB/sec\)", out)
    if not found:
        raise Failed("no throughput in:\n" + out[-2000:])
    return float(found[-1]) * 1.048576


def c_consume(server, name, count, partitions):
    chosen = [x for p in range(partitions) for x in ("-p", str(p))]
    return megabytes(run([RDKAFKA, "-C", "-t", name, "-b", server.address, *chosen, "-o", "beginning", "-c", str(count), "-i", "60000"]))


def java_consume(server, name, count):
    out = java(["org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", server.address, "--topic", name,
                "--messages", str(count), "--timeout", "60000"])
    lines = [line for line in out.splitlines() if line.count(",") >= 9]
    if not lines:
        raise Failed("no throughput in:\n" + out[-2000:])
    fields = [f.strip() for f in lines[-1].split(",")]
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
    try:
        producer = run([RDKAFKA, "-P", "-l", "-t", name, "-b", server.address, "-p", "0", "-s", "1000", "-c", str(count), "-r", str(rate),
                        "-a", "1", "-i", "60000", "-X", "linger.ms=1", "-X", "queue.buffering.max.messages=1000000"])
        consumer.wait(30)
    except subprocess.TimeoutExpired:
        pass
    finally:
        consumer.terminate()
        consumer.wait()
    # In the order in which they came. The first second finds the clients' connections cold.
    values = [int(v) for v in open(file).read().split()]
    if len(values) < count * 0.9:
        raise Failed(f"{len(values)} of {count} records were measured\n{producer[-500:]}")
    values = sorted(values[rate:])
    at = lambda q: values[min(len(values) - 1, int(len(values) * q))] / 1000
    return at(0.5), at(0.99), at(0.999), megabytes(producer)


def drop_caches():
    """Whether everything has to come from disk now."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3\n")
        return True
    except OSError:
        print("(not root: the operating system's cache stays warm)", file=sys.stderr)
        return False


N = 300_000 if short else 1_500_000
COLD_N = 3 * N if short else 2 * N
LIMIT = 3 << 29
LIMITED_N = 2_450_000 if short else 2_950_000
ROWS = {}
# Rows whose server lives in a cgroup.
LIMITED = set()
attempt = 0


def fresh(name):
    """Of a topic that this run of the row has for itself."""
    return f"{name}-{attempt}"


def row(name, title):
    def keep(f):
        ROWS[name] = (title, f)
        return f
    return keep


def produce_row(name, title, count, size, partitions, options=(), properties=()):
    @row("c-" + name, f"produce, {title}, librdkafka")
    def by_c(server):
        t = fresh("c-" + name)
        topic(server, t, partitions)
        return lambda: (c_produce(server, t, count, size, *options), count * size / 1e9)

    @row("java-" + name, f"produce, {title}, Java")
    def by_java(server):
        t = fresh("java-" + name)
        topic(server, t, partitions)
        return lambda: (java_produce(server, t, count, size, *properties), count * size / 1e9)


produce_row("acks1", "1 KB, acks=1", N, 1024, 1, ["-a", "1"], ["acks=1"])
produce_row("all", "1 KB, acks=all", N, 1024, 1, ["-a", "-1"], ["acks=all"])
produce_row("64", "1 KB, acks=all, 64 partitions", N, 1024, 64, ["-a", "-1"], ["acks=all"])
produce_row("small", "100 B, acks=all", N * 4, 100, 1, ["-a", "-1"], ["acks=all"])
produce_row("lz4", "1 KB, acks=all, lz4", N, 1024, 1, ["-a", "-1", "-z", "lz4"], ["acks=all", "compression.type=lz4"])


def consume_row(name, title, count, partitions, cold, consume):
    @row(name, title)
    def f(server):
        t = fresh(name)
        topic(server, t, partitions)
        c_produce(server, t, count, 1024, "-a", "-1")
        os.sync()
        if cold and not drop_caches():
            remarks[name] = "warm: not root"
        return lambda: (consume(server, t, count, partitions), count * 1024 / 1e9)


# By row: what its title must say besides.
remarks = {}
by_java = lambda server, name, count, _partitions: java_consume(server, name, count)
consume_row("c-start", "consume from the start, 1 KB, from disk, librdkafka", COLD_N, 1, True, c_consume)
consume_row("java-disk", "consume from the start, 1 KB, from disk, Java", COLD_N, 1, True, by_java)
consume_row("java-start", "consume from the start, 1 KB, just written, Java", N, 1, False, by_java)
consume_row("java-start64", "consume from the start, 1 KB, 64 partitions, just written, Java", N, 64, False, by_java)
consume_row("c-start64", "consume from the start, 1 KB, 64 partitions, just written, librdkafka", N, 64, False, c_consume)


@row("c-head", "consume at the head while it is produced, 1 KB, librdkafka")
def c_head(server):
    t = fresh("head")
    topic(server, t, 1)

    def work():
        consumer = subprocess.Popen([RDKAFKA, "-C", "-t", t, "-b", server.address, "-p", "0", "-o", "end", "-c", str(N), "-i", "60000"],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            time.sleep(1)
            c_produce(server, t, N, 1024, "-a", "-1")
            out, _ = consumer.communicate(timeout=60)
        except subprocess.TimeoutExpired as e:
            raise Failed("the consumer had not read everything a minute after the producer's end") from e
        finally:
            consumer.kill()
            consumer.wait()
        return megabytes(out), 2 * N * 1024 / 1e9
    return work


def latency_row(name, title, rate):
    @row(name, title)
    def f(server):
        t = fresh(name)
        topic(server, t, 1)
        return lambda: (latency(server, t, rate, 6 if short else 16), None)


latency_row("latency20", "produce to consume at 20 MB/s", 20_000)
latency_row("latency100", "produce to consume at 100 MB/s", 100_000)


@row("c-limit", f"consume from the start, 1 KB, {LIMITED_N * 1024 / 1e9:.1f} GB within {LIMIT / 2**30} GiB of memory, librdkafka")
def c_limit(server):
    t = fresh("limit")
    topic(server, t, 1)
    c_produce(server, t, LIMITED_N, 1024, "-a", "-1")
    os.sync()
    if server.cgroup is None:
        remarks["c-limit"] = "no memory cgroup: " + ("caches dropped" if drop_caches() else "warm, not root")
    elif not server.cgroup.met():
        raise Failed(f"{LIMITED_N * 1024 / 1e9:.1f} GB were written, and the limit of {LIMIT} bytes was not met")
    return lambda: (c_consume(server, t, LIMITED_N, 1), LIMITED_N * 1024 / 1e9)


LIMITED.add("c-limit")


class Measured:
    """What one run of a row came to."""

    def __init__(self, result, gigabytes, used, peak):
        self.latency = gigabytes is None
        if self.latency:
            self.p50, self.p99, self.p999, self.rate = result
            self.rank, self.cpu = self.p99, used
        else:
            self.rate = self.rank = result
            self.cpu = used / gigabytes
        self.peak = peak

    def __str__(self):
        if self.latency:
            return f"{self.p50:.1f} / {self.p99:.1f} / {self.p999:.1f} ms at {self.rate:.0f} MB/s, {self.cpu:.1f} CPU s, {self.peak:.0f} MB"
        return f"{self.rate:.0f} MB/s, {self.cpu:.2f} CPU s/GB, {self.peak:.0f} MB"

    def aims(self, kafka):
        """What it reaches of the aims beside Kafka's."""
        first = ("p99", self.p99 <= kafka.p99) if self.latency else ("speed", self.rate >= kafka.rate)
        aims = [first, ("half the CPU", self.cpu <= kafka.cpu / 2), ("a tenth of the memory", self.peak <= kafka.peak / 10)]
        return [name for name, reached in aims if reached]


def warm_up(server):
    """Java compiles what it has run often enough; both servers get the same."""
    topic(server, "warm-up", 8)
    for _ in range(2):
        c_produce(server, "warm-up", N, 1024, "-a", "-1")
        c_produce(server, "warm-up", N, 100, "-a", "-1", "-z", "lz4")
    c_consume(server, "warm-up", 4 * N, 8)


def measure(server, name):
    work = ROWS[name][1](server)
    # What the row before left to be written is not this row's.
    os.sync()
    time.sleep(1)
    server.peak = 0
    before = server.cpu()
    result, gigabytes = work()
    return Measured(result, gigabytes, server.cpu() - before, server.peak)


def cgroup_of(name):
    """The cgroup that a row's server is to live in. Where it cannot be made, that is told once."""
    if name not in LIMITED or Cgroup.unavailable:
        return None
    try:
        return Cgroup(LIMIT)
    except OSError as e:
        print(f"WARNING: no memory cgroup can be made ({e}): nothing is limited, \"{name}\" is measured after dropping the operating system's "
              "caches", file=sys.stderr, flush=True)
        return None


def started(kind, cgroup):
    try:
        return Server(kind, cgroup)
    except Failed:
        if cgroup is not None:
            cgroup.remove()
        raise


def server_for(running, kind, name):
    """The server of a kind that a row is measured on, warmed up."""
    key = kind, name in LIMITED and not Cgroup.unavailable
    if key not in running:
        running[key] = started(kind, cgroup_of(name))
        warm_up(running[key])
        delete_topics(running[key])
    return running[key]


def measure_all(wanted):
    """By server and row: what was measured, or why not."""
    global attempt
    running, results = {}, {}

    def end(of):
        for key in [key for key in running if of(*key)]:
            running.pop(key).end()

    try:
        for name in wanted:
            measured = {kind: [] for kind in servers}
            for attempt in range(runs):
                for kind in servers:
                    if end_at is not None and time.monotonic() > end_at:
                        results.setdefault((kind, name), "left out: the time was over")
                    if (kind, name) in results:
                        continue
                    try:
                        server = server_for(running, kind, name)
                        measured[kind].append(measure(server, name))
                        delete_topics(server)
                        print(f"{kind:14} {name:12} {measured[kind][-1]}", file=sys.stderr, flush=True)
                    except Failed as e:
                        print(f"{kind:14} {name:12} failed: {e}", file=sys.stderr, flush=True)
                        results[kind, name] = "failed"
                        # It may be the server, and must not be that of the next row.
                        end(lambda of, _limited: of == kind)
            for kind in servers:
                if measured[kind] and results.get((kind, name)) != "failed":
                    results[kind, name] = sorted(measured[kind], key=lambda m: m.rank)[len(measured[kind]) // 2]
            end(lambda _of, limited: limited)
    finally:
        end(lambda _of, _limited: True)
    return results


def conclusion(results, wanted):
    """How many aims are reached, by server."""
    for kind in (kind for kind in servers if kind != "kafka"):
        pairs = [(results[kind, name], results["kafka", name]) for name in wanted]
        pairs = [(ours, theirs) for ours, theirs in pairs if isinstance(ours, Measured) and isinstance(theirs, Measured)]
        reached = [aim for ours, theirs in pairs for aim in ours.aims(theirs)]
        speed = sum(not ours.latency for ours, _ in pairs)
        of = {"speed": speed, "p99": len(pairs) - speed, "half the CPU": len(pairs), "a tenth of the memory": len(pairs)}
        yield f"`{kind}`: " + ", ".join(f"{aim} {reached.count(aim)} of {total}" for aim, total in of.items())


def title(name):
    return ROWS[name][0] + (f" ({remarks[name]})" if name in remarks else "")


def main():
    if "--list" in sys.argv:
        for name, (text, _) in ROWS.items():
            print(f"{name:14} {text}")
        return
    unknown = [name for name in only or [] if name not in ROWS]
    if unknown:
        sys.exit(f"there is no row {', '.join(unknown)}; --list names them")
    wanted = [name for name in ROWS if only is None or name in only]
    begin = time.monotonic()
    results = measure_all(wanted)
    beside = [kind for kind in servers if kind != "kafka"] if markdown and "kafka" in servers else []
    if markdown:
        minutes = (time.monotonic() - begin) / 60
        print(f"{time.strftime('%Y-%m-%d')}, `compare.py {' '.join(sys.argv[1:])}`: {N:,} records of 1 KB a row ({4 * N:,} of 100 B, {COLD_N:,} from "
              f"disk, {LIMITED_N:,} within a limit), {runs} run(s) of each, {os.cpu_count()} processors, {minutes:.0f} minutes. Latency is from the producer's call to the "
              "consumer's: p50, p99, p99.9.\n")
    print("| what | " + " | ".join([*servers, *(f"aims reached by `{kind}`" for kind in beside)]) + " |")
    print("|---|" + "---|" * (len(servers) + len(beside)))
    for name in wanted:
        cells = [str(results[kind, name]) for kind in servers]
        for kind in beside:
            ours, theirs = results[kind, name], results["kafka", name]
            comparable = isinstance(ours, Measured) and isinstance(theirs, Measured)
            cells.append(", ".join(ours.aims(theirs)) or "none" if comparable else "")
        print(f"| {title(name)} | " + " | ".join(cells) + " |")
    if beside:
        print("\nAims reached: " + "; ".join(conclusion(results, wanted)) + ".")
    if any(result == "failed" for result in results.values()):
        sys.exit(1)


main()
