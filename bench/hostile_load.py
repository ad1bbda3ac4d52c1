"""Hostile load against 127.0.0.1, until it is stopped: `python -m bench.hostile_load bodies|sockets PORT`, the key on stdin."""

import asyncio
import contextlib
import itertools
import sys

_BODIES, _SOCKETS = 8, 600
_LARGEST = 256 * 1024
_PAUSE = 1.0  # seconds until a connection that ended is opened again
_START = '{"name": "x", "scopes": ['


def _filled(item: str, size: int = _LARGEST) -> bytes:
    items = [item] * ((size - len(_START) - 2) // (len(item) + 1))
    return f"{_START}{','.join(items)}]}}".encode()


_COSTLY = (
    _filled('""'),
    _filled('""', 59_000),
    _filled("9" * 99),
    _filled("0." + "9" * 90),
    _filled("{}"),
    b'{"name": "' + b"\\n" * (_LARGEST // 2 - 50) + b'"}',
    b"[" * (_LARGEST - 10),
    ("{" + ",".join(f'"{number:0200}": 1' for number in range(1000)) + "}").encode(),
)


def _head(key: str, length: int) -> bytes:
    return (
        "POST /v1/api-keys HTTP/1.1\r\nHost: deputy\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


async def _bodies(port: int, key: str, turn: int) -> None:
    """One costly body after the other, each as soon as the last was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number in itertools.count(turn):
            body = _COSTLY[number % len(_COSTLY)]
            writer.write(_head(key, len(body)) + body)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
    finally:
        writer.close()


async def _sockets(port: int, key: str, _turn: int) -> None:
    """A header without its body, until the other side gives up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_head(key, 100))
        await reader.read()
    finally:
        writer.close()


async def _again_and_again(attack: str, port: int, key: str) -> None:
    one, count = (_bodies, _BODIES) if attack == "bodies" else (_sockets, _SOCKETS)

    async def keep_on(turn: int) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                await one(port, key, turn)
            await asyncio.sleep(_PAUSE)

    await asyncio.gather(*(keep_on(turn) for turn in range(count)))


if __name__ == "__main__":
    asyncio.run(_again_and_again(sys.argv[1], int(sys.argv[2]), sys.stdin.readline().strip()))
