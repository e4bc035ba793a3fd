"""Clients that mean harm, or know no better: whatever they do, `checker serve` goes on answering, and its memory stays bounded."""

import asyncio
import contextlib
import http.client
import io
import random
import signal
import ssl
import time

import pytest

import certificates
import crowd

READY = """
[subsets]
readiness = ['it']
[checks.it]
type = 'command'
command = ['true']
"""


def allowing(connections):
    return f"[server]\nconnections = {connections}\n{READY}"


def test_a_thousand_who_say_a_byte_now_and_then(serve):
    crowd.allow_descriptors(2_000)
    server = serve(allowing(400))
    end = time.monotonic() + 4
    closed = 0

    async def slow():
        nonlocal closed
        while time.monotonic() < end:
            _, writer = await crowd.connect(server)
            with contextlib.suppress(OSError):
                writer.write(b"GET /readyz HTTP/1.1\r\nX: ")
                while time.monotonic() < end:
                    await asyncio.sleep(random.uniform(0.2, 0.6))
                    writer.write(b"x")
                    await writer.drain()
            closed += time.monotonic() < end
            await crowd.leave(writer)

    async def all_of_them():
        await asyncio.gather(*(slow() for _ in range(1_000)))

    with crowd.Healthz(server, "a thousand slow ones"):
        asyncio.run(all_of_them())
    # 400 places: those that ask nothing make room.
    assert closed > 500
    assert crowd.memory(server) < 128


def test_five_hundred_who_begin_to_encrypt_and_go_no_further(serve, tmp_path):
    authority = certificates.Authority(tmp_path)
    certificate, key = authority.sign("server", "IP:127.0.0.1")
    server = serve(f"[server]\nconnections = 200\ntls = {{ cert = '{certificate}', key = '{key}' }}\n{READY}")
    hello = client_hello()

    async def all_of_them():
        connections = []
        for turn in range(500):
            connections.append(await crowd.connect(server))
            connections[-1][1].write(hello[: turn % len(hello)])
        await asyncio.sleep(1)
        closed = sum(reader.at_eof() for reader, _ in connections)
        for _, writer in connections:
            writer.transport.abort()
        return closed

    context = ssl.create_default_context(cafile=authority.path)
    with crowd.Healthz(server, "five hundred handshakes", ssl=context):
        closed = asyncio.run(all_of_them())
    assert closed >= 300
    assert crowd.memory(server) < 128


def client_hello():
    """What a client says first."""
    said = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="it").do_handshake()
    return said.read()


def test_who_gives_up_leaves_the_place_to_the_next(serve, tmp_path):
    # 30 of the 40 places are for who waits for a check.
    server = serve(f"""
        [server]
        connections = 40
        [subsets]
        readiness = ['it']
        [checks.it]
        type = 'command'
        command = ['sh', '-c', 'while ! test -e {tmp_path}/good; do sleep 0.1; done']
        timeout = '20s'
    """)

    async def give_up():
        """Whether there was a place to wait."""
        reader, writer = await crowd.connect(server)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: it\r\n\r\n")
        try:
            answer = await asyncio.wait_for(reader.readline(), 0.3)
        except TimeoutError:
            answer = None
        await crowd.leave(writer)
        return answer is None

    async def all_of_them():
        for _ in range(3):
            assert all(await asyncio.gather(*(give_up() for _ in range(25))))
            # It is noticed as soon as the server looks.
            await asyncio.sleep(0.3)
        waiting = asyncio.create_task(crowd.ask(server, "/readyz"))
        await asyncio.sleep(0.3)
        (tmp_path / "good").touch()
        status, *_ = await waiting
        return status

    assert asyncio.run(all_of_them()) == 200


def test_who_never_comes_to_the_point_does_not_hold_up_the_end(serve):
    server = serve(f"[server]\ntimeout = '2s'\ndrain = '0ms'\n{READY}")

    async def while_it_ends():
        slow = [(await crowd.connect(server))[1] for _ in range(50)]
        for turn, writer in enumerate(slow):
            writer.write([b"", b"GET /readyz HTTP/1.1\r\nX: ", b"GET /healthz HTTP/1.1\r\n\r\nGET"][turn % 3])
        await crowd.ask(server, "/healthz")
        server.signal(signal.SIGTERM)
        end = time.monotonic() + 20
        while server.process.poll() is None and time.monotonic() < end:
            for writer in slow:
                if not writer.is_closing():
                    writer.write(b"x")
            await asyncio.sleep(0.1)
        return server.process.poll()

    assert asyncio.run(while_it_ends()) == 0


def test_ten_thousand_who_say_nothing_or_nothing_more(serve):
    number = min(10_000, crowd.allow_descriptors(10_000))
    print(f"{number} connections")
    server = serve(allowing(12_000))

    async def idle(turn, gate):
        async with gate:
            reader, writer = await crowd.connect(server)
            if turn % 4 == 0:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: it\r\n\r\n")
                assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
            return reader, writer

    async def all_of_them():
        gate = asyncio.Semaphore(200)
        connections = await asyncio.gather(*(idle(turn, gate) for turn in range(number)))
        held = crowd.memory(server)
        print(f"{held:.0f} MiB with {number} idle connections")
        assert held < 300
        status, *_ = await crowd.ask(server, "/readyz")
        assert status == 200
        closed = sum(reader.at_eof() for reader, _ in connections)
        # As many as the server may have open are; where that is fewer, those that were idle for longest went.
        assert closed == 0 or "possible=" in server.output, closed
        for _, writer in connections:
            writer.transport.abort()

    with crowd.Healthz(server, f"{number} idle ones"):
        asyncio.run(all_of_them())


def test_those_who_ask_and_never_read(serve):
    server = serve(READY)
    question = b"GET /openapi.json HTTP/1.1\r\nHost: it\r\n\r\n" * 1_000

    async def deaf():
        _, writer = await crowd.connect(server)
        writer.transport.pause_reading()
        sent = 0
        with contextlib.suppress(TimeoutError, OSError):
            while sent < 100_000_000:
                writer.write(question)
                await asyncio.wait_for(writer.drain(), 2)
                sent += len(question)
        return writer, sent

    async def all_of_them():
        deaf_ones = await asyncio.gather(*(deaf() for _ in range(30)))
        print(f"at most {max(sent for _, sent in deaf_ones)} bytes were taken from one; {crowd.memory(server):.0f} MiB")
        assert all(sent < 100_000_000 for _, sent in deaf_ones)
        assert crowd.memory(server) < 128
        for writer, _ in deaf_ones:
            writer.transport.abort()

    with crowd.Healthz(server, "thirty deaf ones"):
        asyncio.run(all_of_them())


ENDLESS = {
    "chunked": (b"GET /healthz HTTP/1.1\r\nHost: it\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 0x10000 + b"\r\n"),
    "chunked extensions": (b"GET /healthz HTTP/1.1\r\nHost: it\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 0x10000),
    "trailers": (b"GET /healthz HTTP/1.1\r\nHost: it\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 10_000),
    "content length": (b"POST /readyz HTTP/1.1\r\nHost: it\r\nContent-Length: 1000000000000\r\n\r\n", b"x" * 0x10000),
    "to be continued": (
        b"GET /readyz HTTP/1.1\r\nHost: it\r\nExpect: 100-continue\r\nContent-Length: 1000000000000\r\n\r\n",
        b"x" * 0x10000,
    ),
    "address": (b"GET /", b"x" * 0x10000),
    "header": (b"GET /healthz HTTP/1.1\r\nX: ", b"x" * 0x10000),
    "headers": (b"GET /healthz HTTP/1.1\r\n", b"X: y\r\n" * 10_000),
    "blank lines": (b"", b"\r\n" * 10_000),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_cut_off(serve, name):
    server = serve(READY)
    head, more = ENDLESS[name]

    async def endless():
        reader, writer = await crowd.connect(server)
        sent = 0
        with contextlib.suppress(OSError):
            writer.write(head)
            while sent < 100_000_000:
                writer.write(more)
                await asyncio.wait_for(writer.drain(), 20)
                sent += len(more)
        answer = b""
        with contextlib.suppress(OSError):
            answer = await asyncio.wait_for(reader.read(), 20)
        await crowd.leave(writer)
        return sent, answer.partition(b"\r\n")[0]

    async def all_of_them():
        return await asyncio.gather(*(endless() for _ in range(10)))

    with crowd.Healthz(server, f"an endless {name}"):
        told = asyncio.run(all_of_them())
    print(f"the most that was taken of one: {max(sent for sent, _ in told)} bytes; answers: {({answer for _, answer in told})}")
    assert all(sent < 100_000_000 for sent, _ in told)
    assert crowd.memory(server) < 128


# --- what is no question, or one that hides another ------------------------------------------------------------------

HIDDEN = b"GET /version HTTP/1.1\r\nHost: hidden\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
LAST = b"GET /nothing HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n"


def question(*lines, first=b"GET /healthz HTTP/1.1"):
    return b"\r\n".join([first, *lines, b"", b""])


# What is sent, and what may be answered, answer by answer. Where an answer is the last one, the connection is closed behind it.
ODD = {
    "a body": (question(b"Content-Length: %d" % len(HIDDEN)) + HIDDEN + LAST, [[200, 404], [200]]),
    "a body in chunks": (question(b"Transfer-Encoding: chunked") + CHUNK + LAST, [[200, 404], [200]]),
    "two lengths": (question(b"Content-Length: 0", b"Content-Length: %d" % len(HIDDEN)) + HIDDEN, [[400]]),
    "two lengths in one": (question(b"Content-Length: 0, %d" % len(HIDDEN)) + HIDDEN, [[400]]),
    "a negative length": (question(b"Content-Length: -1") + HIDDEN, [[400]]),
    "a length with a sign": (question(b"Content-Length: +0") + HIDDEN, [[400]]),
    "a length and chunks": (question(b"Content-Length: 3", b"Transfer-Encoding: chunked") + CHUNK + LAST, [[400], [200], [200, 404]]),
    "chunks and a length": (question(b"Transfer-Encoding: chunked", b"Content-Length: 3") + CHUNK + LAST, [[400], [200], [200, 404]]),
    "an unknown coding": (question(b"Transfer-Encoding: xchunked") + HIDDEN, [[400], [200]]),
    "a coding after chunks": (question(b"Transfer-Encoding: chunked, identity") + HIDDEN, [[400], [200]]),
    "chunks in HTTP/1.0": (question(b"Transfer-Encoding: chunked", first=b"GET /healthz HTTP/1.0") + CHUNK, [[400], [200]]),
    "a wrong chunk": (question(b"Transfer-Encoding: chunked") + b"zz\r\n" + HIDDEN, [[400], [200]]),
    "a space before the colon": (question(b"Content-Length : %d" % len(HIDDEN)) + HIDDEN, [[400]]),
    "a folded line": (question(b"X: a", b" b", b"Connection: close"), [[400], [200]]),
    "a NUL": (question(b"X: \0", b"Connection: close"), [[400]]),
    "a lone carriage return": (question(b"X: a\rContent-Length: 9", b"Connection: close"), [[400]]),
    "no host": (question(b"Connection: close"), [[200], [400]]),
    "two hosts": (question(b"Host: a", b"Host: b", b"Connection: close"), [[200], [400]]),
    "any bytes in a value": (question(b"X-Probe-Token: \xff\xfe\x80", b"Connection: close"), [[200]]),
    "any bytes in Accept": (question(b"Accept: \xff\xfe", b"Connection: close"), [[200]]),
    "any bytes in the path": (question(b"Connection: close", first=b"GET /\xff\xfe HTTP/1.1"), [[400], [404]]),
    "half a character in the query": (question(b"Connection: close", first=b"GET /readyz?format=%ff%f HTTP/1.1"), [[406]]),
    "a long path": (question(b"Connection: close", first=b"GET /" + b"x" * 15_000 + b" HTTP/1.1"), [[404]]),
    "a long query": (question(b"Connection: close", first=b"GET /readyz?" + b"x" * 15_000 + b" HTTP/1.1"), [[200]]),
    "too long a path": (question(b"Connection: close", first=b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1"), [[414], [431]]),
    "an absolute path": (question(b"Connection: close", first=b"GET http://it/healthz HTTP/1.1"), [[200]]),
    "a path above": (question(b"Connection: close", first=b"GET /healthcheck/../healthz HTTP/1.1"), [[404]]),
    "an encoded path": (question(b"Connection: close", first=b"GET /health%7a HTTP/1.1"), [[404]]),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", [[400]]),
    "HTTP/1.0": (question(first=b"GET /healthz HTTP/1.0"), [[200]]),
    "HTTP/1.0, kept": (question(b"Connection: keep-alive", first=b"GET /healthz HTTP/1.0") + LAST, [[200, 404]]),
    "HTTP/1.2": (question(first=b"GET /healthz HTTP/1.2"), [[400], [505]]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", [[], [400], [505]]),
    "HTTP/2 by an upgrade": (
        question(b"Connection: Upgrade, HTTP2-Settings, close", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
        [[200]],
    ),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 512, [[400]]),
    "CONNECT": (question(b"Connection: close", first=b"CONNECT it:1 HTTP/1.1"), [[404], [405]]),
    "OPTIONS *": (question(b"Connection: close", first=b"OPTIONS * HTTP/1.1"), [[404], [405]]),
    "TRACE": (question(b"Connection: close", first=b"TRACE /healthz HTTP/1.1"), [[405]]),
    "no method": (question(b"Connection: close", first=b" /healthz HTTP/1.1"), [[400]]),
    "an own method": (question(b"Connection: close", first=b"PROBE /healthz HTTP/1.1"), [[405]]),
    "lines without carriage return": (b"GET /healthz HTTP/1.1\nConnection: close\n\n", [[200], [400]]),
    "an empty line first": (b"\r\n" + question(b"Connection: close"), [[200], [400]]),
    "many at once": (question() * 200 + LAST, [[200] * 200 + [404]]),
}


async def send(server, data):
    """All that is answered until the server closes the connection."""
    reader, writer = await crowd.connect(server)
    answers = bytearray()
    with contextlib.suppress(OSError):
        writer.write(data)
        while part := await asyncio.wait_for(reader.read(1 << 16), 20):
            answers += part
    await crowd.leave(writer)
    return bytes(answers)


class Bytes(io.BytesIO):
    """What `http.client` reads answers from, one after another."""

    def makefile(self, _mode):
        return self

    def close(self):
        pass


def statuses(answers):
    """The statuses of whole answers."""
    told, source = [], Bytes(answers)
    while source.tell() < len(answers):
        answer = http.client.HTTPResponse(source, method="GET")
        answer.begin()
        answer.read()
        told.append(answer.status)
    return told


def test_what_is_no_proper_question_is_refused_and_hides_no_other(serve):
    server = serve(READY)

    async def all_of_them():
        wrong = {}
        for name, (data, allowed) in ODD.items():
            told = statuses(await send(server, data))
            # While the client still writes, its system may drop the answer.
            if told not in allowed and (told or len(data) < 100_000):
                wrong[name] = told
            assert (await crowd.ask(server, "/healthz"))[0] == 200, name
        return wrong

    assert asyncio.run(all_of_them()) == {}


def test_garbage_is_answered_with_a_refusal_or_nothing(serve):
    server = serve(READY)
    chance = random.Random(20)
    whole = b"GET /healthz?format=text HTTP/1.1\r\nHost: it\r\nAccept: text/plain;q=0.5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def garbage(turn):
        if turn % 3 == 0:
            return chance.randbytes(chance.randrange(1, 2_000)) + b"\r\n\r\n"
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 8)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        return bytes(broken) + b"\r\n\r\n"

    async def one(data, gate):
        async with gate:
            return data, await send_and_end(server, data)

    async def all_of_it():
        gate = asyncio.Semaphore(50)
        return await asyncio.gather(*(one(garbage(turn), gate) for turn in range(600)))

    with crowd.Healthz(server, "garbage"):
        answered = asyncio.run(all_of_it())
    known = {200, 400, 404, 405, 406, 414, 431, 505}
    for data, answers in answered:
        assert set(statuses(answers)) <= known, (data, answers)
    assert server.process.poll() is None and "panicked" not in server.output


async def send_and_end(server, data):
    """The same for what may be the beginning of a question: it says that there is no more to come."""
    reader, writer = await crowd.connect(server)
    answers = b""
    with contextlib.suppress(OSError):
        writer.write(data)
        writer.write_eof()
        answers = await asyncio.wait_for(reader.read(), 20)
    await crowd.leave(writer)
    return answers
