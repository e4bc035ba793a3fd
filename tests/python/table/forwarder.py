"""Carries connections from one loopback port to another: where this process is stopped, a client meets a server that is frozen."""

import asyncio
import contextlib
import sys


async def carry(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(port, target):
    async def accept(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    print("forwarding", flush=True)
    await server.serve_forever()


asyncio.run(main(*map(int, sys.argv[1:])))
