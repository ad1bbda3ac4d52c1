"""A load balancer between clients and instances, as simple as one can be: it hands connections
through.

A connection goes to the next instance in turn that takes it. What an instance closes is closed
towards its client.
"""

import asyncio
import contextlib
import itertools
import threading

from dev.ports import free_port


class Balancer:
    """Use it in a `with`."""

    def __init__(self, ports):
        self.port = free_port()
        self.instances = list(ports)
        self._turns = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def away(self):
        """It cuts every connection, until `back`."""
        self._away, self.instances = self.instances, []
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def back(self):
        self.instances = self._away

    async def _cut(self):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _listen(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)

    async def _end(self):
        self._server.close()
        await self._cut()

    async def _serve(self, reader, writer):
        try:
            theirs, ours = await self._connected()
            await asyncio.gather(_handed_on(reader, ours), _handed_on(theirs, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _connected(self):
        first = next(self._turns)
        for number in range(len(self.instances)):
            port = self.instances[(first + number) % len(self.instances)]
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", port)
        raise ConnectionRefusedError


async def _handed_on(reader, writer):
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
