"""gunicorn's gevent worker, with bounds on what a client may keep waiting: `worker_class` in gunicorn.conf.py.

A request's header must arrive within BODY_SECONDS, in all and not for each read, and so must its body. A connection
that waits for its client (for a header, a body, the next request, or to be rid of an answer) holds none of the places
for requests. When the process is full of connections, the one that has waited longest is closed for each new one: any
number of sockets that send nothing, or little, leave room for those who ask something.

Imported by gunicorn before a worker is patched, so it imports nothing of the service: its settings come with the
application that it loads.
"""

import resource
import socket
import time
from collections.abc import Iterable, Iterator
from io import RawIOBase
from typing import Any, Literal, Self

import gevent
from gevent.lock import Semaphore
from gunicorn.workers.ggevent import GeventWorker

from app.http.unread import Unread

_REQUESTS = 256  # at once, in each worker; the pools towards AWS and the cache are as wide
_SPARE = 64  # connections below the limit at which room is made: those that are told to end take a moment
_OTHER_FILES = 512  # that a process opens beside its clients' connections, at most
_ANSWER_SECONDS = 30  # for a client to take an answer that does not fit into its socket
_UNTAKEN = 128 * 1024  # bytes of answers that the system keeps for a client; it doubles that, and would go to 4 MiB
_DROPPED = 2 * 1024 * 1024  # of what a client sends after its answer, so that it can read that
_STEP = 64 * 1024
_PIECES = 4096  # of a body in chunks, as they arrive: each costs some microseconds, though it is one byte


class Worker(Unread, GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections: int = _room_for(self.cfg.worker_connections)
        self._connections = 0
        self._waiting: dict[Any, BaseException | None] = {}  # by greenlet, the longest first: how to end its wait
        self._asked_before: set[Any] = set()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self._app: Any = self.wsgi  # type: ignore[has-type]  # gunicorn sets it there
        self._seconds = self._app.extensions["deputy"].config.body_seconds
        self._largest = self._app.config["MAX_CONTENT_LENGTH"]
        self.places = Semaphore(_REQUESTS)
        self.wsgi = self._serve

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """One connection, from its beginning to its end."""
        self._connections += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNTAKEN)
        try:
            super().handle(listener, client, addr)
        finally:
            self._connections -= 1
            self._asked_before.discard(gevent.getcurrent())

    def timeout_ctx(self) -> "Wait":
        """How gunicorn waits for the next request: for its whole header, the pause before it included."""
        kept = gevent.getcurrent() in self._asked_before
        return Wait(self, self.cfg.keepalive if kept else self._seconds, silent=True)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        body = req.body = Body(self, req, self._seconds, self._largest)
        current = gevent.getcurrent()
        self._asked_before.add(current)
        sock.settimeout(_ANSWER_SECONDS)
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError as error:  # the client does not take its answer
            raise StopIteration from error
        except StopIteration:  # the connection ends here, but its client may still be sending
            self._waiting.pop(current, None)
            body.drop()
            raise
        finally:
            self._waiting.pop(current, None)
            sock.setblocking(True)
        if not body.drop():
            raise StopIteration
        if req.unreader.buf.tell():  # the next request is there already: others' come first
            gevent.sleep(0)

    def _serve(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        with self.places:
            answer: Iterable[bytes] = self._app(environ, start_response)
        self.begin_wait(None)  # for its client to take the answer
        return answer

    def begin_wait(self, end: BaseException | None) -> None:
        self._waiting[gevent.getcurrent()] = end
        if self._is_full():
            gevent.get_hub().loop.run_callback(self._let_one_go)

    def end_wait(self) -> None:
        self._waiting.pop(gevent.getcurrent(), None)

    def _is_full(self) -> bool:
        return self._connections > self.worker_connections - _SPARE

    def _let_one_go(self) -> None:
        """Runs in the hub, so nothing comes between the look and the throw."""
        if self._waiting and self._is_full():
            longest = next(iter(self._waiting))
            longest.throw(self._waiting.pop(longest) or TimeoutError("too many connections"))


class Wait(gevent.Timeout):
    """A wait for the client of the connection at hand, which ends in time, or when the process is full."""

    def __init__(self, worker: Worker, seconds: float, *, silent: bool) -> None:
        super().__init__(seconds, False if silent else None)  # type: ignore[arg-type]  # as gevent documents it
        self._worker = worker

    def __enter__(self) -> Self:
        self._worker.begin_wait(self)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> Literal[True] | None:  # noqa: PYI036
        self._worker.end_wait()
        return super().__exit__(*raised)


class Body(RawIOBase):
    """A request's body, which must have arrived `seconds` after its header; reading it later raises TimeoutError."""

    def __init__(self, worker: Worker, req: Any, seconds: float, largest: int) -> None:
        self._worker = worker
        self._req = req
        self._inner = req.body
        self._ends = time.monotonic() + seconds
        self._largest = largest
        self._taken = 0
        if chunks := getattr(self._inner.reader, "parser", None):
            self._inner.reader.parser = _few(chunks)
        if self._left() > largest:
            req.force_close()  # said in the answer's header

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """For the application, which holds a place and gives it up meanwhile."""
        if self._left() == 0:
            return 0
        self._worker.places.release()
        try:
            data = self._next(len(into))
        finally:
            self._worker.places.acquire()
        into[: len(data)] = data
        return len(data)

    def drop(self) -> bool:
        """Read and forget what is left, within limits. Whether another request may follow on this connection."""
        try:
            for _ in range(_DROPPED // _STEP):
                if self._left() == 0 or not self._next(_STEP):
                    return not self._inner.failed and self._taken <= self._largest
        except Exception:  # noqa: BLE001  late, cut, or malformed: there is nobody to tell any more
            return False
        return False

    def _left(self) -> int:
        """How many bytes are to come; more than none for chunks, which don't say."""
        left: int = getattr(self._inner.reader, "length", 1)
        return left

    def _next(self, size: int) -> bytes:
        wait = Wait(self._worker, max(0.0, self._ends - time.monotonic()), silent=False)
        try:
            with wait:
                data: bytes = self._inner.read(size)
        except gevent.Timeout as over:
            self._inner.failed = True  # where a next request would begin is not known
            self._req.force_close()
            if over is not wait:
                raise
            raise TimeoutError("the body did not come in time") from None
        self._taken += len(data)
        if self._taken >= self._largest:
            self._req.force_close()
        return data


def _few(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Nothing else is served between two pieces that are there already."""
    for count, piece in enumerate(chunks, start=1):
        if count > _PIECES:
            raise ValueError("a body in too many chunks")
        yield piece


def _room_for(connections: int) -> int:
    """So many connections, or as many as the system allows a process to hold open beside its other files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(_SPARE * 2, min(connections, soft - _OTHER_FILES))
    return connections
