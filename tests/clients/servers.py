"""Servers and Java programs for the tests that start their own: a Millpond or an Apache Kafka that can be killed."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from confluent_kafka.admin import AdminClient

from ports import free_port

CACHE = os.environ.get("MILLPOND_CACHE", os.path.expanduser("~/.cache/millpond"))
MILLPOND = os.environ.get("MILLPOND", os.path.join(os.environ.get("CARGO_TARGET_DIR", CACHE + "/target"), "debug/millpond"))
KAFKA_JAVA = os.environ.get("KAFKA_JAVA", "4.1.2")
HERE = os.path.dirname(os.path.abspath(__file__))
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Dorg.slf4j.simpleLogger.logFile=System.out",
        "-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"]


def until(what, ready, seconds=120):
    end = time.time() + seconds
    while True:
        result = ready()
        if result:
            return result
        assert time.time() < end, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.1)


class Process:
    """A child with a log; everything that is started is stopped by `finish`."""

    all = []

    def __init__(self, name, command, folder):
        self.name, self.log = name, os.path.join(folder, name + ".log")
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        Process.all.append(self)

    def text(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def alive(self):
        assert self.child.poll() is None, f"{self.name} ended with {self.child.returncode}:\n{self.text()[-4000:]}"
        return True

    def end(self, how=signal.SIGTERM, seconds=60):
        if self.child.poll() is None:
            self.child.send_signal(how)
        status = self.child.wait(seconds)
        assert how == signal.SIGKILL or status in (0, 143), f"{self.name} ended with {status}:\n{self.text()[-4000:]}"


class Server:
    """A broker on a fixed port over a folder, to be stopped or killed and started again."""

    def __init__(self, kind, folder, name="server"):
        self.kind, self.folder, self.name, self.port = kind, folder, name, free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.config, self.listen = os.path.join(folder, name + ".toml"), self.bootstrap
        capture, told = os.environ.get("CAPTURE"), ""
        if capture and kind == "millpond":
            # Clients speak to a proxy that keeps what they send.
            self.listen, told = f"127.0.0.1:{free_port()}", f'kafka_advertised = "{self.bootstrap}"\n'
            Process("capture", [sys.executable, os.path.join(HERE, "capture.py"), self.listen, capture, str(self.port)], folder)
        with open(self.config, "w") as config:
            config.write(told + "[broker]\ngroup_initial_rebalance_delay_ms = 0\ngroup_min_session_timeout_ms = 100\n")

    def start(self):
        data = os.path.join(self.folder, self.name)
        if self.kind == "kafka":
            command = [os.path.join(HERE, "kraft.sh"), data, str(self.port)]
        else:
            command = [MILLPOND, "serve", "--data", data, "--kafka", self.listen, "--http", "127.0.0.1:0", "--config", self.config]
        self.process = Process(self.name, command, self.folder)

        def answers():
            self.process.alive()
            try:
                return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}).list_topics(timeout=2)
            except Exception:
                return None

        until(f"{self.name} answers", answers)
        return self

    def end(self, how=signal.SIGTERM):
        self.process.end(how)


def java(name, folder, main, *args, memory="256m", level="info", version=KAFKA_JAVA):
    jars = f"{CACHE}/java/{version}:{CACHE}/kafka/{version}/lib/*"
    command = [*JAVA, "-Xmx" + memory, "-Dorg.slf4j.simpleLogger.defaultLogLevel=" + level, "-cp", jars, main, *args]
    return Process(name, command, folder)


def rest(base, method, path, body=None):
    """A request to a worker of Kafka Connect; None while it rebalances or is not there."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return json.loads(text) if text else {}
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        assert error.code in (404, 409, 500, 503), f"{method} {path}: {error.code} {text}"
        return None
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def properties(path, **entries):
    with open(path, "w") as out:
        for key, value in entries.items():
            out.write(f"{key.replace('__', '-').replace('_', '.')}={value}\n")
    return path


def main(run):
    """Runs a test in a folder of its own; on failure shows what the processes last said."""
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(AssertionError("it takes too long")))
    folder = tempfile.mkdtemp()
    failed = True
    try:
        run(folder)
        failed = False
    finally:
        signal.alarm(0)
        for process in Process.all:
            if process.child.poll() is None:
                process.child.send_signal(signal.SIGTERM if process.name == "capture" else signal.SIGKILL)
                process.child.wait()
        for log in sorted({process.log for process in Process.all}):
            if failed:
                with open(log, errors="replace") as text:
                    lines = [line for line in text if " INFO " not in line and not line.startswith(("\t", "\n"))]
                print(f"--- {log}\n" + "".join(lines[-25:])[-3000:])
        if not os.environ.get("KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
