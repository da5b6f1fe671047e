#!/usr/bin/env python3
"""A proxy that keeps what clients send: capture.py TARGET FOLDER [PORT [NAME]]. It prints the address that it listens on.

Of each API and version one request is kept per client: the largest of those that are small. FOLDER/client holds the name of the client of the
moment, where NAME does not give it; on SIGTERM FOLDER/NAME.bin gets its requests, each with its length before it, as they came over the wire.
"""
import asyncio
import os
import signal
import struct
import sys

host, port = sys.argv[1].rsplit(":", 1)
folder = sys.argv[2]
kept = {}  # client -> (api, version) -> frame


def telling(frame):
    return (1, len(frame)) if len(frame) <= 800 else (0, -len(frame))


def client():
    if len(sys.argv) > 4:
        return sys.argv[4]
    with open(os.path.join(folder, "client")) as name:
        return name.read().strip()


async def requests(reader, writer):
    try:
        while True:
            length = await reader.readexactly(4)
            body = await reader.readexactly(struct.unpack(">i", length)[0])
            writer.write(length + body)
            await writer.drain()
            mine = kept.setdefault(client(), {})
            key = struct.unpack(">hh", body[:4])
            mine[key] = max(mine.get(key, length + body), length + body, key=telling)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def responses(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def connection(reader, writer):
    try:
        there, back = await asyncio.open_connection(host, int(port))
    except ConnectionError:
        writer.close()
        return
    await asyncio.gather(requests(reader, back), responses(there, writer))


async def main():
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    server = await asyncio.start_server(connection, "127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    print("%s:%d" % server.sockets[0].getsockname(), flush=True)
    await done.wait()
    for name, frames in kept.items():
        with open(os.path.join(folder, name + ".bin"), "wb") as out:
            out.write(b"".join(frames[key] for key in sorted(frames)))


asyncio.run(main())
