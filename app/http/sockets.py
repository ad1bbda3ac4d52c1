"""The web process: gunicorn's gevent worker with bounds on slow clients.

It is `worker_class` in gunicorn.conf.py. A request's whole header must arrive within BODY_SECONDS,
and so must its body. A connection that waits for its client holds no slot for requests. It may wait
for a header, a body, the next request, or until its client has taken an answer. When the process
has too many connections, each new one closes the connection that has waited longest. So sockets
that send little or nothing leave room for real requests.

Plain requests (app/http/plain_requests.py) are answered before gunicorn reads them, within the same
bounds.

The application answers also those requests that gunicorn can't read (app/http/unreadable.py).

gunicorn imports this module before it patches the standard library. So this module imports only
modules of the service that import no others, and imports werkzeug lazily. It gets the settings and
the endpoint for plain requests from the loaded application.
"""

import resource
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from io import RawIOBase
from select import POLLRDHUP, poll
from typing import Any, Self

import gevent
from gevent.lock import Semaphore
from gevent.server import StreamServer
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.workers.ggevent import GeventWorker

from app.http.plain_requests import READ_BYTES, PlainReader, peer_of, setting_for_gunicorn
from app.http.unreadable import UnreadableRequests

_REQUESTS = 256  # concurrent requests of this process; AWS's and the cache's pools are as large
_LATE_SECONDS = 0.25  # seconds between two searches for waits that have timed out
_SPARE = 64  # closing starts at this distance from the limit, because closing takes a moment
_OTHER_FILES = 512  # the most files that a process opens beside its connections
_ANSWER_SECONDS = 30  # seconds for a client to take an answer that exceeds the socket's buffer
# Bytes of the socket's send buffer. Linux doubles them; by default it grows the buffer to 4 MiB.
_UNTAKEN = 128 * 1024
# Bytes to read after the answer, because a client may read it only after sending its whole request
_DROPPED = 2 * 1024 * 1024
_STEP = 64 * 1024
# Most chunks of a body, and for each of them more its least size in bytes. A chunk costs some
# microseconds, even with one byte.
_PIECES, _PIECE_BYTES = 256, 256
_HEADER = (32 + 8) * 1024  # bytes: a header of 32 KiB, and the read of 8 KiB in which it ends


class BoundedRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """A request whose whole header is limited in size.

    gunicorn limits only the number of fields and the size of each. All fields together may have
    1.6 MB, which costs the process 0.1 s. A client that sends them in small pieces costs more,
    because gunicorn searches the whole header again for each piece.
    """

    process: "WebProcess | None" = None  # the process that answers plain requests

    def parse(self, unreader: Any) -> Any:
        """Let the process answer plain requests, and read the first request that is not plain."""
        self.max_buffer_headers = _HEADER  # limits trailers too
        self.environ: dict[str, Any] = {}  # for a plain request that was not answered
        if self.process is not None and not unreader.buf.tell():
            data, self.environ = self.process.answer_plain(unreader.sock, self.peer_addr)
            unreader.unread(data)
            if self.process.is_closing():
                self.force_close()
        return super().parse(unreader)


# gunicorn has no setting for this class. Without it a plain request takes twice the instructions
# (bench/results/2026-11.md).
RequestParser.mesg_class = BoundedRequest


class _Listener(StreamServer):
    """gevent's server, which accepts several connections at a time.

    gunicorn's own server accepts one connection in each turn of the event loop. While hundreds of
    connections send requests without a pause, a new one would wait for seconds.
    """

    max_accept = 16

    def __init__(self, listener: Any, application: Any, spawn: Any, **given: Any) -> None:
        handle = partial(application.__self__.handle, listener)
        # gunicorn passes `ssl_context` for --certfile. Without it, gevent would speak plain HTTP.
        tls = {name: given[name] for name in given if name == "ssl_context"}
        super().__init__(listener, handle, spawn=spawn, **tls)


class WebProcess(UnreadableRequests, GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    server_class = _Listener

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections: int = _room_for(self.cfg.worker_connections)
        # The waits by greenlet, the longest first. A `Wait` is thrown into its greenlet to end it.
        self._waiting: dict[Any, Wait | None] = {}
        # The greenlets of connections that count against the limit. A connection that is being
        # closed does not count, although it may still prepare its last answer. Otherwise a new
        # connection would close others in its place. It counts again when it waits again, because
        # its client may not take that answer.
        self._open: set[Any] = set()
        self._asked_before: set[Any] = set()  # connections that have begun to wait for a request

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self._app: Any = self.wsgi  # type: ignore[has-type]  # gunicorn sets it there
        self.body_seconds: float = self._app.extensions["deputy"].config.service.body_seconds
        self.keepalive_seconds: float = self.cfg.keepalive
        self.body_bytes: int = self._app.config["MAX_CONTENT_LENGTH"]
        self.slots = Semaphore(_REQUESTS)
        self.wsgi = self._serve
        self._late = gevent.get_hub().loop.timer(_LATE_SECONDS, _LATE_SECONDS)
        self._late.start(self._end_late_waits)
        self._endpoint: Any = self._app.extensions["deputy.plain_requests"]
        self._reader = PlainReader(self._endpoint.target)
        if setting := setting_for_gunicorn(self.cfg):
            self.log.info(
                "gunicorn reads every request, which is slower, because of the setting %s", setting
            )
        else:
            BoundedRequest.process = self

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        current = gevent.getcurrent()
        self._open.add(current)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNTAKEN)
        try:
            super().handle(listener, client, addr)
        finally:
            self._open.discard(current)
            self._asked_before.discard(current)

    def timeout_ctx(self) -> "Wait":
        """Return the timeout of gunicorn's wait for the whole header of the next request."""
        current = gevent.getcurrent()
        seconds = self.keepalive_seconds if current in self._asked_before else self.body_seconds
        self._asked_before.add(current)
        return Wait(self, seconds, silent=True)

    def answer_plain(self, sock: Any, peer_address: Any) -> tuple[bytes, dict[str, Any]]:
        """Answer plain requests one after the other, until gunicorn must read a request.

        Call it during gunicorn's wait for the next request. Return the first bytes of the request
        that gunicorn must read, and what to add to its WSGI environ.
        """
        peer = peer_of(peer_address)
        wait: Any = self._waiting[gevent.getcurrent()]
        while True:
            data: bytes = sock.recv(READ_BYTES)
            request = self._reader.read(data)
            # A request that would have to wait for a slot does so after gunicorn has read it
            if (
                request is None
                or not self.alive
                or self.nr + 1 >= self.max_requests
                or not self.slots.acquire(blocking=False)
            ):
                return data, {}
            self.end_wait()
            try:
                answer = self._endpoint.answer(request, peer, self.without_slot)
            finally:
                self.slots.release()
            if isinstance(answer, dict):
                return data, answer
            self.nr += 1
            wait.begin_again(_ANSWER_SECONDS)
            # One system call, if the socket's buffer has room
            if (sent := sock.send(answer)) < len(answer):
                sock.sendall(answer[sent:])
            wait.begin_again(self.keepalive_seconds)

    @contextmanager
    def without_slot(self) -> Iterator[None]:
        """Release the slot of the current request while the `with` block waits.

        Raises TimeoutError into the block when the process is full, and this connection has waited
        longest.
        """
        self.slots.release()
        self.begin_wait(None)
        try:
            yield
        finally:
            self.end_wait()
            self.slots.acquire()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        body = req.body = Body(self, req)
        sock.settimeout(_ANSWER_SECONDS)
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError as error:  # the client does not take its answer
            raise StopIteration from error
        except StopIteration:  # gunicorn closes the connection, but the client may still be sending
            self.end_wait()
            body.drop()
            raise
        finally:
            self.end_wait()
            sock.setblocking(True)
        if not body.drop():
            raise StopIteration
        # The next request has arrived, but other connections come first
        if req.unreader.buf.tell():
            gevent.sleep(0)

    def _serve(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        environ.update(getattr(environ["wsgi.input"], "environ", {}))
        with self.slots:
            # In its own context, this request can't leave context variables to the next one
            answer: Iterable[bytes] = copy_context().run(self._app, environ, start_response)
        self.begin_wait(None)  # wait until the client has taken the answer
        return answer

    def begin_wait(self, end: "Wait | None") -> None:
        current = gevent.getcurrent()
        self._open.add(current)
        self._waiting[current] = end
        if self._is_full():
            gevent.get_hub().loop.run_callback(self._close_one)

    def end_wait(self) -> "Wait | None":
        """End the wait of the current connection, and return it."""
        return self._waiting.pop(gevent.getcurrent(), None)

    def _end_late_waits(self) -> None:
        """End the waits that have timed out. Runs in gevent's hub.

        There is one timer for all waits, because a timer for each would cost 30,000 instructions.
        """
        now = time.monotonic()
        for greenlet, wait in list(self._waiting.items()):
            # Throwing into one greenlet may end the wait of another
            if wait is not None and wait.ends <= now and self._waiting.get(greenlet) is wait:
                del self._waiting[greenlet]
                greenlet.throw(wait)

    def is_closing(self) -> bool:
        """Return whether the current connection was chosen to make room for a new one."""
        return gevent.getcurrent() not in self._open

    def _is_full(self) -> bool:
        return len(self._open) > self.worker_connections - _SPARE

    def _close_one(self) -> None:
        """Close the connection that has waited longest.

        It runs in the hub, so no greenlet runs between check and throw.
        """
        if self._waiting and self._is_full():
            longest = next(iter(self._waiting))
            self._open.discard(longest)
            longest.throw(self._waiting.pop(longest) or TimeoutError("too many connections"))


def _is_closed(sock: socket.socket) -> bool:
    """Return whether the client has closed its side of the connection."""
    poller = poll()
    poller.register(sock, POLLRDHUP)
    return bool(poller.poll(0))


class Wait(BaseException):
    """A wait for the client of the current connection.

    The wait itself is raised after `seconds`, or when the process is full. `silent`: the
    `with` block then ends without an error. A wait within another wait suspends the outer one. For
    example, gunicorn looks for the end of a chunked body during its wait for the next request.
    """

    _outer: "Wait | None" = None

    def __init__(self, process: WebProcess, seconds: float, *, silent: bool) -> None:
        super().__init__()
        self._process = process
        self._silent = silent
        self.ends = time.monotonic() + seconds

    def begin_again(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self._process.begin_wait(self)

    def __enter__(self) -> Self:
        self._outer = self._process.end_wait()
        self._process.begin_wait(self)
        return self

    def __exit__(self, _kind: object, raised: BaseException | None, _trace: object) -> bool:
        self._process.end_wait()
        if self._outer is not None:
            self._process.begin_wait(self._outer)
        return raised is self and self._silent


class Body(RawIOBase):
    """A request's body, which must arrive within BODY_SECONDS of its header.

    Reading it later raises TimeoutError.
    """

    def __init__(self, process: WebProcess, req: Any) -> None:
        self._process = process
        self._req = req
        self._inner = req.body
        # `req` has no environ with uWSGI's protocol. Requests give up their slot while they wait
        # (app/concurrency/places.py).
        self.environ: dict[str, Any] = getattr(req, "environ", {}) | {
            "deputy.without_slot": self.waiting
        }
        self._ends = time.monotonic() + process.body_seconds
        self._taken = 0
        self._is_complete = False  # True: gunicorn's search for the end must begin no wait
        if chunks := getattr(self._inner.reader, "parser", None):
            # gunicorn does not limit chunks, and many of them would starve other tenants
            self._inner.reader.parser = _few(chunks, process.body_bytes)
        if self._left() > process.body_bytes:
            req.force_close()  # the answer's header then says that the connection closes

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """Read for the application, and release the request's slot during the wait."""
        if self._left() == 0 or self._is_complete:
            return 0
        with self.without_slot():
            data = self._next(len(into))
        into[: len(data)] = data
        return len(data)

    @contextmanager
    def without_slot(self) -> Iterator[None]:
        """Release the request's slot as `WebProcess.without_slot` does.

        After a TimeoutError the connection closes with the answer.
        """
        try:
            with self._process.without_slot():
                yield
        except TimeoutError:
            self._req.force_close()
            raise

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Release the request's slot as `without_slot` does, while the request waits for others.

        Raises TimeoutError after the block when the client has closed the connection meanwhile:
        nobody waits for the answer any more.
        """
        with self.without_slot():
            yield
            if _is_closed(self._req.unreader.sock):
                raise TimeoutError("the client has closed the connection")

    def drop(self) -> bool:
        """Read and drop the rest of the body, within limits.

        Returns whether the connection can take another request.
        """
        if self._inner.failed:  # the body's time is over, or the process is full
            return False
        try:
            for _ in range(_DROPPED // _STEP):
                if self._left() == 0 or not self._next(_STEP):
                    return not self._inner.failed and self._taken <= self._process.body_bytes
        except Exception:  # noqa: BLE001  late, cut or malformed; the answer has been sent
            return False
        return False

    def _left(self) -> int:
        """Return how many bytes are still to come; 1 for a chunked body of unknown length."""
        left: int = getattr(self._inner.reader, "length", 1)
        return left

    def _next(self, size: int) -> bytes:
        wait = Wait(self._process, max(0.0, self._ends - time.monotonic()), silent=False)
        try:
            with wait:
                data: bytes = self._inner.read(size)
        except Wait:
            self._inner.failed = True  # where the next request begins is unknown
            self._req.force_close()
            raise TimeoutError("the body did not come in time") from None
        self._is_complete = not data
        self._taken += len(data)
        if self._taken >= self._process.body_bytes:
            self._req.force_close()
        return data


def _few(chunks: Iterator[bytes], body_bytes: int) -> Iterator[bytes]:
    """Yield the chunks, and raise ValueError after too many for their size.

    The process serves no other request between chunks that have already arrived. `body_bytes`: the
    largest body, beyond which the size allows no more chunks.
    """
    received = 0
    for count, piece in enumerate(chunks, start=1):
        received += len(piece)
        if count > _PIECES + min(received, body_bytes) // _PIECE_BYTES:
            raise ValueError("a body in too many chunks")
        yield piece


def _room_for(connections: int) -> int:
    """Raise the limit of open files for `connections`, and return how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(_SPARE * 2, soft - _OTHER_FILES)
    return connections
