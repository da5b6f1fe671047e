#!/usr/bin/env python3
"""Free ports on loopback, one per line: ports.py [COUNT]

They are below those that the system hands out: nobody who asks for any port, and no connection, takes one before its server
binds it, or while its server is down.
"""
import random
import socket
import sys

FIRST = 10_000
given = set()


def handed_out_from():
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as told:
            return int(told.read().split()[0])
    except OSError:
        return 0


def free_port():
    end = handed_out_from()
    for _ in range(1000):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.SystemRandom().randrange(FIRST, end) if end > FIRST + 1000 else 0))
            except OSError:
                continue
            port = s.getsockname()[1]
        if port not in given:
            given.add(port)
            return port
    raise SystemExit("no port is free")


if __name__ == "__main__":
    print(*[free_port() for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1)], sep="\n")
