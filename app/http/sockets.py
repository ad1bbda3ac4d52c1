"""The web process: gunicorn's gevent worker with bounds on slow clients (`worker_class` in gunicorn.conf.py).

A request's whole header must arrive within BODY_SECONDS, and so must its body. A connection that waits for its client
(for a header, a body or the next request, or until an answer is taken) holds no slot for requests. When the process has
too many connections, each new one closes the one that has waited longest, so sockets that send little or nothing leave
room for real requests.

gunicorn imports this module before it patches the standard library, so it imports nothing of the service. The settings
come with the application.
"""

import resource
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from io import RawIOBase
from typing import Any, Literal, Self

import gevent
from gevent.lock import Semaphore
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.ggevent import GeventWorker

from app.http.unreadable import UnreadableRequests

_REQUESTS = 256  # at once in this process; the pools towards AWS and the cache have the same size
_SPARE = 64  # closing starts at this distance from the limit, because closing takes a moment
_OTHER_FILES = 512  # the most files that a process opens beside its connections
_ANSWER_SECONDS = 30  # for a client to take an answer that exceeds the socket's buffer
_UNTAKEN = 128 * 1024  # the socket's buffer for answers, in bytes; Linux doubles it, and by default grows it to 4 MiB
_DROPPED = 2 * 1024 * 1024  # bytes read from a client after its answer, which it may read only after sending
_STEP = 64 * 1024
# For which the hub's thread goes on when another one wants the interpreter. By default 5 ms: so long a thread that holds
# the lock for writing to SQLite would wait after each statement.
_SWITCH_SECONDS = 0.0005
_PIECES = 4096  # chunks of a body; even a chunk of one byte costs some microseconds
_HEADER = (32 + 8) * 1024  # 32 KiB of a header, and the read of 8 KiB in which it ends


class BoundedRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn limits the number of fields and the size of each. All together, 1.6 MB, would cost 0.1 s of a process,
    and more from a client that sends it in small pieces: gunicorn searches the whole again for each.
    """

    max_buffer_headers = property(lambda _: _HEADER, lambda *_: None)  # gunicorn sets the product; trailers have it too


RequestParser.mesg_class = BoundedRequest


class WebProcess(UnreadableRequests, GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections: int = _room_for(self.cfg.worker_connections)
        self._connections = 0
        # By greenlet, the longest wait first: the exception that ends it.
        self._waiting: dict[Any, BaseException | None] = {}
        # Told to end, while their last answer is made. If they counted, a new connection would be closed in their place.
        # One that waits again counts again: its client may not take that answer.
        self._ending: set[Any] = set()
        self._asked_before: set[Any] = set()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._app: Any = self.wsgi  # type: ignore[has-type]  # gunicorn sets it there
        self._seconds = self._app.extensions["deputy"].config.body_seconds
        self._largest = self._app.config["MAX_CONTENT_LENGTH"]
        self.slots = Semaphore(_REQUESTS)
        self.wsgi = self._serve

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        self._connections += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNTAKEN)
        try:
            super().handle(listener, client, addr)
        finally:
            self._connections -= 1
            self._ending.discard(gevent.getcurrent())
            self._asked_before.discard(gevent.getcurrent())

    def timeout_ctx(self) -> "Wait":
        """Gunicorn's wait for the next request: the pause before it, and its whole header."""
        kept = gevent.getcurrent() in self._asked_before
        return Wait(self, self.cfg.keepalive if kept else self._seconds, silent=True)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        body = req.body = Body(self, req, self._seconds, self._largest)
        current = gevent.getcurrent()
        self._asked_before.add(current)
        sock.settimeout(_ANSWER_SECONDS)
        answer = AnswerSocket(sock)
        try:
            try:
                super().handle_request(listener_name, req, answer, addr)
            finally:
                answer.flush()
        except TimeoutError as error:  # the client does not take its answer
            raise StopIteration from error
        except StopIteration:  # gunicorn closes the connection, but the client may still be sending
            self._waiting.pop(current, None)
            body.drop()
            raise
        finally:
            self._waiting.pop(current, None)
            sock.setblocking(True)
        if not body.drop():
            raise StopIteration
        if req.unreader.buf.tell():  # the next request has arrived, but other connections come first
            gevent.sleep(0)

    def _serve(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["deputy.slots"] = self.slots  # which a request gives up while it waits (app/concurrency/places.py)
        with self.slots:
            answer: Iterable[bytes] = self._app(environ, start_response)
        self.begin_wait(None)  # for its client to take the answer
        return answer

    def begin_wait(self, end: BaseException | None) -> None:
        current = gevent.getcurrent()
        self._ending.discard(current)
        self._waiting[current] = end
        if self._is_full():
            gevent.get_hub().loop.run_callback(self._close_one)

    def end_wait(self) -> None:
        self._waiting.pop(gevent.getcurrent(), None)

    def _is_full(self) -> bool:
        return self._connections - len(self._ending) > self.worker_connections - _SPARE

    def _close_one(self) -> None:
        """Close the connection that has waited longest. In the hub, so no greenlet runs between check and throw."""
        if self._waiting and self._is_full():
            longest = next(iter(self._waiting))
            self._ending.add(longest)
            longest.throw(self._waiting.pop(longest) or TimeoutError("too many connections"))


class AnswerSocket:
    """The socket that gunicorn writes one answer to. It sends the header together with the first piece of the body.

    gunicorn sends them one after the other: twice the system calls and packets. Any other use of the socket sends what
    is held back first.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._header: bytes | None = None
        self._begun = False

    def sendall(self, data: bytes) -> None:
        if self._begun:
            self.flush(data)
        else:
            self._begun, self._header = True, data

    def flush(self, more: bytes = b"") -> None:
        """Send what is held back, and then `more`."""
        data, self._header = (self._header or b"") + more, None
        if data and (sent := self._sock.send(data)) < len(data):
            self._sock.sendall(data[sent:])

    def __getattr__(self, name: str) -> Any:
        self.flush()
        return getattr(self._sock, name)


class Wait(gevent.Timeout):
    """A wait for the client of the current connection. It ends after `seconds`, or when the process is full."""

    def __init__(self, process: WebProcess, seconds: float, *, silent: bool) -> None:
        super().__init__(seconds, False if silent else None)  # type: ignore[arg-type]  # as gevent documents it
        self._process = process

    def __enter__(self) -> Self:
        self._process.begin_wait(self)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> Literal[True] | None:  # noqa: PYI036
        self._process.end_wait()
        return super().__exit__(*raised)


class Body(RawIOBase):
    """A request's body, which must arrive within `seconds` of its header. Reading it later raises TimeoutError."""

    def __init__(self, process: WebProcess, req: Any, seconds: float, largest: int) -> None:
        self._process = process
        self._req = req
        self._inner = req.body
        self._ends = time.monotonic() + seconds
        self._largest = largest
        self._taken = 0
        if chunks := getattr(self._inner.reader, "parser", None):
            self._inner.reader.parser = _few(chunks)
        if self._left() > largest:
            req.force_close()  # the answer's header says so

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """Read for the application, and give up its slot for requests while it waits."""
        if self._left() == 0:
            return 0
        self._process.slots.release()
        try:
            data = self._next(len(into))
        finally:
            self._process.slots.acquire()
        into[: len(data)] = data
        return len(data)

    def drop(self) -> bool:
        """Read and drop what is left, within limits. Returns whether the connection can take another request."""
        if self._inner.failed:  # its time is over, or the process is full
            return False
        try:
            for _ in range(_DROPPED // _STEP):
                if self._left() == 0 or not self._next(_STEP):
                    return not self._inner.failed and self._taken <= self._largest
        except Exception:  # noqa: BLE001  late, cut or malformed; the answer has been sent
            return False
        return False

    def _left(self) -> int:
        """How many bytes are to come; 1 for chunks, whose number is unknown."""
        left: int = getattr(self._inner.reader, "length", 1)
        return left

    def _next(self, size: int) -> bytes:
        wait = Wait(self._process, max(0.0, self._ends - time.monotonic()), silent=False)
        try:
            with wait:
                data: bytes = self._inner.read(size)
        except gevent.Timeout as over:
            self._inner.failed = True  # the beginning of the next request is unknown
            self._req.force_close()
            if over is not wait:
                raise
            raise TimeoutError("the body did not come in time") from None
        self._taken += len(data)
        if self._taken >= self._largest:
            self._req.force_close()
        return data


def _few(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Bound the chunks: no other request is served between two chunks that have arrived."""
    for count, piece in enumerate(chunks, start=1):
        if count > _PIECES:
            raise ValueError("a body in too many chunks")
        yield piece


def _room_for(connections: int) -> int:
    """`connections`, or as many as the system's limit of open files allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(_SPARE * 2, min(connections, soft - _OTHER_FILES))
    return connections
