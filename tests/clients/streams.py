#!/usr/bin/env python3
"""Kafka Streams with exactly_once_v2 while the server is killed: streams.py [kafka]. Exits non-zero on any failure.

Starts its own server and `java/Streams.java` against it, which kills one of its two instances; in the midst of what it
sends, with both at work, the server is killed and comes back. With `kafka` the server is Apache Kafka, which shows what
the test itself is worth.
"""
import os
import signal
import sys

from servers import CACHE, JAVA, KAFKA_JAVA, Process, Server, main, until


def run(folder):
    signal.alarm(800)
    server = Server(sys.argv[1] if len(sys.argv) > 1 else "millpond", folder).start()
    classes = f"{CACHE}/java/{KAFKA_JAVA}:{CACHE}/kafka/{KAFKA_JAVA}/lib/*"
    command = [*JAVA, "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classes, "Streams", server.bootstrap]
    streams = Process("streams", command, folder)
    until(lambda: f"most is sent: {streams.text()}", lambda: streams.alive() and "streams: most is sent" in streams.text(), 300)
    server.end(signal.SIGKILL)
    server.start()
    print("streams: killed the server", flush=True)
    status = streams.child.wait(600)
    print(streams.text(), end="")
    assert status == 0 and "streams: ok" in streams.text(), f"it ended with {status}"
    server.end()
    alarming = [line for line in server.process.text().splitlines() if "ERROR" in line or "panicked" in line]
    assert server.kind == "kafka" or not alarming, alarming


main(run)
