"""A receiver of webhooks on this machine that answers at once."""

import asyncio
import json
import threading
import time
from typing import Any, Self, cast

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    """It keeps the time and the body of each request during a `with`."""

    def __init__(self) -> None:
        self.arrived: list[tuple[float, bytes]] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._listening = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def take(self, number: int, *, within: float) -> list[tuple[float, Any]]:
        """Return the times and events of the next requests. Raises TimeoutError."""
        deadline = time.perf_counter() + within
        while len(self.arrived) < number:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{len(self.arrived)} of {number} requests arrived")
            time.sleep(0.05)
        taken, self.arrived = self.arrived, []
        return [(seconds, json.loads(body)) for seconds, body in taken]

    def _run(self) -> None:
        listening = self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=512)
        server = self._loop.run_until_complete(listening)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        self._loop.close()


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._received = receiver, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length:")
        if length and len(body) == int(length.split(b"\r\n")[0]):
            self._received = b""
            self._receiver.arrived.append((time.perf_counter(), body))
            self._transport.write(_ANSWER)
