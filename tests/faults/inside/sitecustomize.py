"""Python loads this in each process of a Deputy that tests/faults starts: its clock and its DNS do
as two files say.

`ahead`: by how many seconds the clock is ahead. `dns`, while it is there: for how many seconds DNS
keeps silent before it fails. The name `aws.test` is this machine.
"""

import _socket
import datetime as dt
import os
import threading
import time
from pathlib import Path

import time_machine

_folder = Path(os.environ["TEST_FAULTS"])
_sleep = time.sleep  # gevent replaces it
_resolve = _socket.getaddrinfo


def _lookup(host, *rest, **named):
    if host != "aws.test":
        return _resolve(host, *rest, **named)
    try:
        silent = float((_folder / "dns").read_text())
    except FileNotFoundError:
        return _resolve("127.0.0.1", *rest, **named)
    _sleep(silent)
    raise _socket.gaierror(_socket.EAI_AGAIN, "Temporary failure in name resolution")


def _follow():
    seen = 0.0
    while True:
        _sleep(0.05)
        wanted = float((_folder / "ahead").read_text())
        if wanted != seen:
            _clock.shift(wanted - seen)
            seen = wanted


def _begin():
    threading.Thread(target=_follow, daemon=True).start()


_socket.getaddrinfo = _lookup  # type: ignore[assignment]
_clock = time_machine.travel(dt.datetime.now(dt.UTC)).start()
os.register_at_fork(after_in_child=_begin)  # gunicorn's web processes are forked
_begin()
