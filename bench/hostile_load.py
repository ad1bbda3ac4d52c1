"""Hostile load against 127.0.0.1, until it is stopped.

`python -m bench.hostile_load ATTACK PORT`, with the key on stdin. The attacks are `bodies`,
`sockets`, `revokes` and `repeat`. `repeat` repeats each further line of stdin over a connection of
its own. A line is a method and a path, optionally followed by a tab and a JSON body.
"""

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Awaitable, Callable

_BODIES, _SOCKETS, _REVOKERS = 8, 600, 24
_LARGEST = 256 * 1024
_PAUSE = 1.0  # seconds before a connection that ended is opened again
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


_NOBODYS = "00000000-0000-7000-8000-000000000000"  # the body is read before anything is looked up
_TAKE_BODIES = "/v1/api-keys", f"/v1/tenants/{_NOBODYS}/connections/{_NOBODYS}/credentials"
_PIECE = 256  # bytes in a chunk; smaller ones are refused


def head_of(key: str, length: int, request: str = "POST /v1/api-keys") -> bytes:
    return _head_of(key, f"Content-Length: {length}", request)


def _head_of(key: str, framing: str, request: str) -> bytes:
    return (
        f"{request} HTTP/1.1\r\nHost: deputy\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\n{framing}\r\n\r\n"
    ).encode()


def _forms_of(key: str) -> list[bytes]:
    """Return requests with each of the bodies, to each of the routes, whole and in chunks."""
    forms = []
    for path in _TAKE_BODIES:
        for body in _COSTLY:
            forms.append(head_of(key, len(body), f"POST {path}") + body)
            pieces = (body[start : start + _PIECE] for start in range(0, len(body), _PIECE))
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            head = _head_of(key, "Transfer-Encoding: chunked", f"POST {path}")
            forms.append(head + chunks + b"0\r\n\r\n")
    return forms


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the status and the body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((line for line in lines if line.startswith(b"content-length")), b":0")
    return int(lines[0].split(b" ")[1]), await reader.readexactly(int(length.partition(b":")[2]))


async def _bodies(port: int, key: str, turn: int) -> None:
    """Send one costly body after the other, each as soon as the last was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        forms = _forms_of(key)
        for number in itertools.count(turn * len(forms) // _BODIES):
            writer.write(forms[number % len(forms)])
            await writer.drain()
            await answer_of(reader)
    finally:
        writer.close()


async def _revokes(port: int, key: str, _turn: int) -> None:
    """Create a key and revoke it, without a pause.

    A failed revocation is repeated. Otherwise the tenant would reach its limit of keys.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"name": "hostile", "scopes": ["keys:write"]}'
    try:
        while True:
            writer.write(head_of(key, len(body)) + body)
            _, answer = await answer_of(reader)
            key_id = json.loads(answer).get("id")
            while key_id:
                writer.write(head_of(key, 0, f"DELETE /v1/api-keys/{key_id}"))
                status, _ = await answer_of(reader)
                if status == 204:
                    break
    finally:
        writer.close()


async def _sockets(port: int, key: str, _turn: int) -> None:
    """Send a header without its body, until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head_of(key, 100))
        await reader.read()
    finally:
        writer.close()


async def _repeat(port: int, key: str, turn: int) -> None:
    """Repeat one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            request, _, body = _REPEATED[turn].partition("\t")
            writer.write(head_of(key, len(body), request) + body.encode())
            await answer_of(reader)
    finally:
        writer.close()


_REPEATED: list[str] = []
_ATTACKS: dict[str, tuple[Callable[[int, str, int], Awaitable[None]], int]] = {
    "bodies": (_bodies, _BODIES),
    "sockets": (_sockets, _SOCKETS),
    "revokes": (_revokes, _REVOKERS),
    "repeat": (_repeat, 0),
}


async def _again_and_again(attack: str, port: int, key: str) -> None:
    send, count = _ATTACKS[attack]

    async def keep_on(turn: int) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                await send(port, key, turn)
            await asyncio.sleep(_PAUSE)

    await asyncio.gather(*(keep_on(turn) for turn in range(count or len(_REPEATED))))


if __name__ == "__main__":
    key, *_REPEATED = sys.stdin.read().splitlines()
    asyncio.run(_again_and_again(sys.argv[1], int(sys.argv[2]), key))
