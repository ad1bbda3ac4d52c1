"""The only way to an address that somebody else chose: one bounded POST.

It connects to an address that was checked, and verifies the certificate for the name. There are no
redirects, retries, proxies or cookies. The whole attempt has one deadline: timeouts of single
reads would let a server that sends a byte a second hold a thread for ever.
"""

import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from http.client import HTTPConnection, HTTPException
from io import BufferedReader, RawIOBase
from threading import Timer
from typing import Any, NamedTuple

from app.outbound.addresses import Destination

ANSWER_BYTES = 64 * 1024
_RECEIVED_BYTES = 2 * ANSWER_BYTES  # the body, the header and all framing


class AttemptError(Exception):
    """An attempt got no answer. The text is one of the words for it in docs/webhooks.md."""


class HttpAnswer(NamedTuple):
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes  # the first 64 KiB


def post(
    destination: Destination, headers: Mapping[str, str], body: bytes, seconds: float
) -> HttpAnswer:
    """Send the request and return its answer, whatever its status.

    Raises AttemptError after `seconds`, and when no answer comes.
    """
    deadline = time.monotonic() + seconds
    connected = _connected(destination, deadline)
    # Header and body are sent apart; without this, the body would wait for the header's ACK
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A second descriptor for the timer: wrap_socket detaches the first one before the handshake.
    watched = connected.dup()
    timer = Timer(max(0.0, deadline - time.monotonic()), _shut_down, [watched])
    timer.daemon = True
    timer.start()
    try:
        answer = _exchange(connected, destination, headers, body)
    except (OSError, HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise AttemptError("timeout") from error
        raise AttemptError(_word(error)) from error
    finally:
        timer.cancel()
        timer.join()  # otherwise it could shut down a reused descriptor
        watched.close()
        connected.close()
    if time.monotonic() >= deadline:  # a header that the timer cut off looks complete
        raise AttemptError("timeout")
    return answer


def _connected(destination: Destination, deadline: float) -> socket.socket:
    """Connect to the first address that answers. Raises AttemptError."""
    error, left = AttemptError("connection"), len(destination.addresses)
    for address in destination.addresses:
        share = max(0.001, (deadline - time.monotonic()) / left)
        left -= 1
        try:
            connected = socket.create_connection((address, destination.port), share)
        except OSError as failure:
            error = AttemptError(_word(failure))
            continue
        connected.settimeout(max(0.001, deadline - time.monotonic()))
        return connected
    raise error


def _exchange(
    connected: socket.socket, destination: Destination, headers: Mapping[str, str], body: bytes
) -> HttpAnswer:
    if destination.tls:
        connected = _tls().wrap_socket(connected, server_hostname=destination.name)
    connection = HTTPConnection("unused")  # the socket is connected already, and Host is given
    connection.sock = _Bounded(connected)
    try:
        connection.request("POST", destination.target, body, {"Host": destination.host, **headers})
        answer = connection.getresponse()
        received = {name.lower(): value for name, value in answer.getheaders()}
        return HttpAnswer(answer.status, received, answer.read(ANSWER_BYTES))
    finally:
        connected.close()


class _Bounded:
    """A socket for http.client, from which only a limited number of bytes can be read.

    Otherwise a server could send `100 Continue` or chunk extensions at full speed, and http.client
    would parse all of them until the deadline.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected
        self.sendall = connected.sendall

    def close(self) -> None:
        """Close nothing: http.client closes the socket before it has read the body."""

    def makefile(self, _mode: str) -> BufferedReader:
        return BufferedReader(_BoundedReader(self._connected))


class _BoundedReader(RawIOBase):
    def __init__(self, connected: socket.socket) -> None:
        self._connected, self._left = connected, _RECEIVED_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        number = self._connected.recv_into(buffer)
        self._left -= number
        if self._left < 0:
            raise ValueError("The answer is too long.")
        return number


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _word(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError):
        return "tls"
    return "connection" if isinstance(error, OSError) else "protocol"


def _shut_down(watched: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        watched.shutdown(socket.SHUT_RDWR)
