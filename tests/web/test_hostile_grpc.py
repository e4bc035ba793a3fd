"""Clients of the gRPC port that mean harm, frame by frame: `checker serve` goes on answering on both ports, and its memory stays
bounded."""

import asyncio
import contextlib
import random
import time
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import crowd
import harness

# HTTP/2 (RFC 9113): the kinds of frames, and the flags that are used here.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, UNKNOWN = 0, 1, 2, 3, 4, 6, 8, 9, 0xBB
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def text(value):
    """A string as HPACK writes it, of fewer than 127 bytes or of many."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    length, rest = b"\x7f", len(value) - 127
    while rest >= 128:
        length, rest = length + bytes([rest % 128 + 128]), rest // 128
    return length + bytes([rest]) + value


def field(name, value):
    return b"\0" + text(name) + text(value)


CHECK = b"".join(
    field(name, value)
    for name, value in [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", b"it"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
)
NOTHING = b"\0\0\0\0\0"
OPENED = PREFACE + frame(SETTINGS)
CLOSED_WINDOW = PREFACE + frame(SETTINGS, payload=b"\0\4\0\0\0\0")


def question(stream, more=b""):
    return frame(HEADERS, END_HEADERS, stream, CHECK + more) + frame(DATA, END_STREAM, stream, NOTHING)


def watch(stream):
    return question(stream).replace(b"/Check", b"/Watch")


def streams():
    """The numbers of a client's streams, from the first on."""
    return range(1, 1 << 31, 2)


def together(frames, number=500):
    """So many frames at a time, for ever."""
    frames = iter(frames)
    while part := b"".join(frame for _, frame in zip(range(number), frames)):
        yield part


def again(part):
    while True:
        yield part


def reset():
    for stream in streams():
        yield frame(HEADERS, END_HEADERS, stream, CHECK) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")


def continued():
    yield frame(HEADERS, 0, 1, CHECK)
    yield from together(again(frame(CONTINUATION, 0, 1, field(b"x", b"y" * 100))))


def told(part):
    yield frame(HEADERS, END_HEADERS, 1, CHECK)
    yield from together(again(frame(DATA, 0, 1, part)), 50)


def garbage():
    chance = random.Random(5)
    while True:
        yield chance.randbytes(10_000)


# How it begins, and what comes after that for as long as it is taken. Those that break no rule of HTTP/2 are taken for ever.
FLOODS = {
    "pings": (OPENED, lambda: together(again(frame(PING, payload=b"12345678")))),
    "settings": (OPENED, lambda: together(again(frame(SETTINGS)))),
    "priorities": (OPENED, lambda: together(again(frame(PRIORITY, 0, 1, b"\0\0\0\0\1")))),
    "unknown frames": (OPENED, lambda: together(again(frame(UNKNOWN, 0, 0, b"x" * 100)))),
    "window updates": (OPENED, lambda: together(again(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")))),
    "resets": (OPENED, lambda: together(reset())),
    "questions": (OPENED, lambda: together(map(question, streams()), 50)),
    "questions without a window": (CLOSED_WINDOW, lambda: together(map(question, streams()), 50)),
    "watches without a window": (CLOSED_WINDOW, lambda: together(map(watch, streams()), 50)),
    "continuations": (OPENED, continued),
    "large fields": (OPENED, lambda: (question(stream, field(b"x", b"y" * 14_000)) for stream in streams())),
    "a large message": (OPENED, lambda: told(b"\0\x7f\xff\xff\xff" + b"x" * 10_000)),
    "empty parts": (OPENED, lambda: told(b"")),
    "garbage": (OPENED, garbage),
    "garbage from the first byte on": (b"", garbage),
    "HTTP/1.1": (b"", lambda: again(b"GET / HTTP/1.1\r\nHost: it\r\n\r\n" * 100)),
}


@pytest.fixture
def server(serve):
    port = harness.free_port()
    served = serve(f"""
        [server]
        grpc = '127.0.0.1:{port}'
        connections = 400
        [subsets]
        readiness = ['it']
        [checks.it]
        type = 'command'
        command = ['true']
    """)
    served.grpc = SimpleNamespace(port=port)
    return served


def answers(server):
    """Whether gRPC's own client is answered well."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=20, wait_for_ready=True).status == 1


def test_floods(server):
    async def flood(name):
        begin, parts = FLOODS[name]
        _, writer = await crowd.connect(server.grpc)
        # It never reads what it is answered.
        writer.transport.pause_reading()
        end = time.monotonic() + 0.5
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(begin)
            for part in parts():
                writer.write(part)
                await asyncio.wait_for(writer.drain(), 1)
                if time.monotonic() > end:
                    break
        return writer

    async def several(name):
        writers = await asyncio.gather(*(flood(name) for _ in range(10)))
        held = crowd.memory(server)
        for writer in writers:
            writer.transport.abort()
        return held

    for name in FLOODS:
        with crowd.Healthz(server, name):
            held = asyncio.run(several(name))
        print(f"{name}: {held:.0f} MiB")
        assert held < 128, name
        assert answers(server), name


def test_a_thousand_who_ask_nothing_or_only_half(server):
    halves = [b"", PREFACE[:10], PREFACE, OPENED, OPENED + frame(HEADERS, END_HEADERS, 1, CHECK), OPENED + frame(HEADERS, 0, 1, CHECK)]

    async def is_closed(reader):
        with contextlib.suppress(OSError):
            try:
                await asyncio.wait_for(reader.read(), 0.5)
            except TimeoutError:
                return False
        return True

    async def all_of_them():
        connections = []
        for turn in range(1_000):
            connections.append(await crowd.connect(server.grpc))
            connections[-1][1].write(halves[turn % len(halves)])
        await asyncio.sleep(1)
        well = await asyncio.to_thread(answers, server)
        closed = await asyncio.gather(*(is_closed(reader) for reader, _ in connections))
        for _, writer in connections:
            writer.transport.abort()
        return sum(closed), well

    crowd.allow_descriptors(2_000)
    with crowd.Healthz(server, "a thousand silent ones"):
        closed, well = asyncio.run(all_of_them())
    assert well
    # 400 places: those that ask nothing make room.
    assert closed >= 600
    assert crowd.memory(server) < 128
