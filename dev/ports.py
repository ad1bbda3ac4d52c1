"""Ports of this machine."""

import contextlib
import errno
import random
import socket

from dev.run_settings import StackError


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens now.

    It lies below those of outgoing connections, one of which could take it in between.
    """
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311  no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def ensure_free(port: int, other: str) -> None:
    """Raise StackError for a taken port. `other`: how to choose another one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            reason = f"can't be used ({error.strerror})"
            if error.errno == errno.EADDRINUSE:
                reason = "is taken"
            raise StackError(f"Port {port} {reason}; choose another: {other}") from error
