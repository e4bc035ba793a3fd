"""Crowds that ask `checker serve`, byte for byte, and what they do to it: whether it still answers, and its memory."""

import asyncio
import contextlib
import resource
import threading
import time
from pathlib import Path

# What a test that opens many connections leaves to this process for all else.
OTHER_DESCRIPTORS = 1_000


def allow_descriptors(wanted):
    """Lets this process open so many connections; gives how many it may open, which is less where the system allows less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A test that has failed may hold its connections still.
    allowed = max(soft, min(wanted + OTHER_DESCRIPTORS, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed - OTHER_DESCRIPTORS


def memory(program):
    """What the program has in memory, in MiB."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


async def connect(server, retries=100, **how):
    """A connection. The system refuses one where too many come at once."""
    for _ in range(retries):
        with contextlib.suppress(OSError):
            return await asyncio.open_connection("127.0.0.1", server.port, **how)
        await asyncio.sleep(0.05)
    raise AssertionError(f"no connection in {retries} attempts")


async def leave(writer):
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def ask(server, path, **how):
    """One whole answer on a connection of its own: its status, its head and its text."""
    reader, writer = await connect(server, **how)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    await leave(writer)
    head, _, text = answer.decode().partition("\r\n\r\n")
    assert head, f"no answer to {path}"
    return int(head.split()[1]), head.lower(), text


class Healthz:
    """Somebody who asks `/healthz` again and again, on a new connection each time, for as long as the `with` lasts: every question
    must be answered well, and soon."""

    # Most answers come within milliseconds; a machine with too much else to do takes seconds.
    SOON = 10.0

    def __init__(self, server, what, **how):
        self.server, self.what, self.how = server, what, how
        self.told = []
        self._stop = threading.Event()
        self._client = threading.Thread(target=lambda: asyncio.run(self._ask()))

    def __enter__(self):
        self._before = memory(self.server)
        self._client.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        self._client.join(60)
        if kind is not None:
            return
        longest = max(took for _, took in self.told)
        print(
            f"{self.what}: /healthz asked {len(self.told)} times, the longest answer took {longest * 1000:.0f} ms;"
            f" {self._before:.0f} MiB before, {memory(self.server):.0f} after"
        )
        assert all(status == 200 for status, _ in self.told), self.told
        assert longest < self.SOON, sorted(took for _, took in self.told)[-5:]

    async def _ask(self):
        while True:
            begun = time.monotonic()
            try:
                status, *_ = await asyncio.wait_for(ask(self.server, "/healthz", **self.how), 20)
            except (OSError, TimeoutError, AssertionError) as error:
                status = repr(error)
            self.told.append((status, time.monotonic() - begun))
            if self._stop.is_set():
                return
            await asyncio.sleep(0.05)
