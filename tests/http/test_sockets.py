"""Which connections the web process closes, and when; and plain requests, whose answers are one
packet each.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar
from ssl import PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER
from types import SimpleNamespace

import gevent.socket
import gevent.ssl
import pytest
from gevent.event import Event
from gevent.lock import Semaphore
from gevent.pool import Pool
from gevent.socket import socketpair
from gunicorn.config import Config
from gunicorn.http.unreader import SocketUnreader

from app.http.plain_requests import PlainReader, format_answer
from app.http.sockets import Body, BoundedRequest, Wait, WebProcess
from tests.support.certificates import self_signed

SIZE = 1024


class FullProcess(WebProcess):
    """With room for three connections beside those that end, and without gunicorn around it."""

    def __init__(self):
        self._waiting, self._open, self._asked_before = {}, set(), set()
        self.worker_connections = 64 + 3

    def connect(self, serve):
        """A connection, with all that `handle` does for it."""

        def handled():
            self._open.add(gevent.getcurrent())
            try:
                return serve()
            finally:
                self._open.discard(gevent.getcurrent())

        return gevent.spawn(handled)


def test_a_new_connection_is_not_closed_in_the_place_of_those_that_are_being_answered():
    process, answered = FullProcess(), Event()

    def sends_no_body():
        try:
            with Wait(process, 30, silent=False):
                gevent.sleep(30)
        except Wait:
            answered.wait()  # as its refusal takes a moment
        return "closed"

    def asks():
        with Wait(process, 30, silent=True):
            gevent.sleep(0.01)  # until its header is there
            return "served"
        return "closed"

    idle = [process.connect(sends_no_body) for _ in range(6)]
    gevent.sleep(0)
    assert [process.connect(asks).get(timeout=10) for _ in range(10)] == ["served"] * 10
    answered.set()
    gevent.joinall(idle[:4], timeout=10)
    assert [one.value for one in idle] == ["closed"] * 4 + [None] * 2, (
        "those that waited longest, and no more than needed"
    )
    gevent.killall(idle)


def test_a_wait_ends_after_its_time_and_not_before():
    process = FullProcess()

    def waits(seconds):
        with Wait(process, seconds, silent=True):
            gevent.sleep(30)
        return "closed"

    late, early = process.connect(lambda: waits(-1)), process.connect(lambda: waits(30))
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(process._end_late_waits)
    assert late.get(timeout=10) == "closed"
    assert not early.ready()
    gevent.kill(early)


def test_a_wait_goes_on_after_one_within_it():
    """Or a connection of which gunicorn has looked for the end of a chunked body would never be
    closed.
    """
    process = FullProcess()

    def waits():
        with Wait(process, -1, silent=True):
            with Wait(process, 30, silent=False):
                pass
            gevent.sleep(30)
        return "closed"

    connection = process.connect(waits)
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(process._end_late_waits)
    assert connection.get(timeout=10) == "closed"


def test_what_a_request_notes_in_its_context_is_not_the_next_requests():
    process, noted = FullProcess(), ContextVar("noted", default="nothing")
    process.slots = Semaphore(1)
    process._app = lambda environ, _: [noted.get().encode(), noted.set(environ["id"])][:1]
    served = process.connect(
        lambda: [process._serve({"id": name, "wsgi.input": None}, None) for name in ("one", "two")]
    )
    assert served.get(timeout=10) == [[b"nothing"], [b"nothing"]]


def test_a_connection_that_was_told_to_end_and_does_not_take_its_answer_makes_room():
    process = FullProcess()

    def takes_no_answer():
        with pytest.raises(Wait), Wait(process, 30, silent=False):
            gevent.sleep(30)
        process.begin_wait(None)
        with pytest.raises(TimeoutError, match="too many connections"):
            gevent.sleep(30)
        return "gone"

    stuck = [process.connect(takes_no_answer) for _ in range(20)]
    gevent.sleep(0.01)
    gevent.sleep(0.01)
    here = [one for one in stuck if not one.ready()]
    assert len(here) <= 3, "no more than there is room for"
    gevent.killall(here)
    assert {one.value for one in stuck if one not in here} == {"gone"}


def test_several_connections_are_accepted_each_time_that_the_process_looks():
    """Accept several connections at a time: with one, a new connection waits for seconds."""
    process, accepted = FullProcess(), []

    def handle(*_):
        accepted.append(True)
        time.sleep(0.01)  # longer than the test sleeps, so the process looks once

    process.handle = handle
    with contextlib.ExitStack() as closing:
        listener = closing.enter_context(gevent.socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(20)
        for _ in range(10):
            closing.enter_context(socket.create_connection(listener.getsockname()))
        server = process.server_class(listener, application=process._serve, spawn=Pool(20))
        server.start()
        gevent.sleep(0.001)
        assert len(accepted) == 10
        server.stop()


def test_the_listener_speaks_tls_when_gunicorn_has_a_certificate(tmp_path):
    certificate, key = self_signed(tmp_path)
    ours, theirs = (
        gevent.ssl.SSLContext(role) for role in (PROTOCOL_TLS_SERVER, PROTOCOL_TLS_CLIENT)
    )
    ours.load_cert_chain(certificate, key)
    theirs.load_verify_locations(certificate)
    process = FullProcess()
    process.handle = lambda _listener, client, _address: client.sendall(b"hello")
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        gunicorns = {"application": process._serve, "log": None, "ssl_context": ours}
        server = process.server_class(listener, spawn=Pool(1), **gunicorns)
        server.start()
        client = gevent.socket.create_connection(listener.getsockname(), timeout=10)
        with theirs.wrap_socket(client, server_hostname="localhost") as secured:
            assert secured.recv(SIZE) == b"hello"
        server.stop()


@pytest.mark.parametrize("client_sends", ["nothing", "more", "the end"])
def test_a_request_whose_client_has_gone_does_not_run_when_its_turn_comes(client_sends):
    process = FullProcess()
    process.slots, process.body_seconds, process.body_bytes = Semaphore(0), 1, 1000
    with contextlib.ExitStack() as closing:
        ours, client = (closing.enter_context(end) for end in socketpair())
        request = SimpleNamespace(
            body=SimpleNamespace(reader=SimpleNamespace(length=0)),
            unreader=SimpleNamespace(sock=ours),
            force_close=lambda: closed.append(True),
        )
        closed, turns = [], []
        if client_sends == "more":
            client.send(b"GET / HTTP/1.1")

        def waits():
            with Body(process, request).waiting():
                if client_sends == "the end":
                    client.close()
            turns.append(True)

        waiting = gevent.spawn(waits)
        waiting.join(timeout=10)
        gone = client_sends == "the end"
        assert (turns, closed) == (([], [True]) if gone else ([True], []))
        assert isinstance(waiting.exception, TimeoutError) == gone


class Echo:
    """An endpoint for plain requests: it answers with their body, or hands them on when that is
    "Flask".
    """

    target = "/echo"

    def answer(self, request, _peer, _waiting):
        if request.body == b"Flask":
            return {"deputy.reason": "x"}
        return format_answer("1" * 32, request.body, "http://127.0.0.1")


class PlainProcess(FullProcess):
    def __init__(self):
        super().__init__()
        self._endpoint, self._reader = Echo(), PlainReader(Echo.target)
        self.keepalive_seconds, self.slots = 30, Semaphore(1)
        self.alive, self.nr, self.max_requests = True, 0, 100

    def serve(self, sock):
        """Answer plain requests as gunicorn has it done, in its wait for a request."""

        def serve():
            with Wait(self, 30, silent=True):
                return self.answer_plain(sock, ("127.0.0.1", 5))
            return "closed"

        return self.connect(serve)


@pytest.fixture
def process_ends() -> Iterator[tuple[gevent.socket.socket, gevent.socket.socket]]:
    ours, theirs = socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def plain(body):
    return (
        "POST /echo HTTP/1.1\r\nHost: h\r\nAuthorization: x\r\nContent-Length:"
        f" {len(body)}\r\n\r\n{body}".encode()
    )


def test_each_plain_request_is_answered_in_one_packet_until_one_is_not(process_ends):
    (ours, client), process = process_ends, PlainProcess()
    serving = process.serve(ours)
    for body in ("one", "two"):
        client.send(plain(body))
        header, _, answered = client.recv(SIZE).partition(b"\r\n\r\n")
        assert (header.splitlines()[0], answered) == (b"HTTP/1.1 200 OK", body.encode())
    client.send(plain("Flask"))
    assert serving.get(timeout=10) == (plain("Flask"), {"deputy.reason": "x"})
    assert (process.nr, process.slots.counter) == (2, 1)


def test_a_plain_request_is_left_to_gunicorn_at_the_end_and_without_a_free_slot(process_ends):
    ours, client = process_ends
    for change in ({"alive": False}, {"max_requests": 1}, {"slots": Semaphore(0)}):
        process = PlainProcess()
        vars(process).update(change)
        client.send(plain("one"))
        assert process.serve(ours).get(timeout=10) == (plain("one"), {}), change
        assert process.nr == 0


def test_a_plain_request_that_must_make_room_is_closed_with_its_answer(process_ends, monkeypatch):
    """Or it would count again at its next wait, and cost the next connection its answer."""
    (ours, client), process = process_ends, PlainProcess()
    monkeypatch.setattr(BoundedRequest, "process", process)

    def answer(_request, _peer, waiting):
        with pytest.raises(TimeoutError), waiting():
            gevent.sleep(30)
        return {"deputy.failure": "x"}

    def reads():
        with Wait(process, 30, silent=True):
            return BoundedRequest(Config(), SocketUnreader(ours), ("127.0.0.1", 5))

    def waits():
        with Wait(process, 30, silent=True):
            gevent.sleep(30)

    process._endpoint = SimpleNamespace(answer=answer)
    reading = process.connect(reads)
    client.send(plain("one"))
    gevent.sleep(0.01)
    idle = [process.connect(waits) for _ in range(3)]
    request = reading.get(timeout=10)
    assert (request.environ, request.should_close()) == ({"deputy.failure": "x"}, True)
    gevent.killall(idle)


def test_a_client_that_does_not_take_its_answer_is_closed_after_its_time(process_ends, monkeypatch):
    (ours, client), process = process_ends, PlainProcess()
    monkeypatch.setattr("app.http.sockets._ANSWER_SECONDS", -1)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * SIZE)
    serving = process.serve(ours)
    with contextlib.suppress(BlockingIOError):  # both buffers are full
        while True:
            client.sendmsg([plain("x" * SIZE)], (), socket.MSG_DONTWAIT)
            gevent.sleep(0)
    with gevent.Timeout(10):
        while not serving.ready():
            gevent.get_hub().loop.run_callback(process._end_late_waits)
            gevent.sleep(0.01)
    assert serving.value == "closed"


def test_a_plain_request_begins_the_wait_for_the_next_one(process_ends):
    (ours, client), process = process_ends, PlainProcess()
    process.keepalive_seconds = -1
    serving = process.serve(ours)
    gevent.sleep(0)
    process._end_late_waits()
    assert not serving.ready(), "its first request has time"
    client.send(plain("one"))
    client.recv(SIZE)
    gevent.get_hub().loop.run_callback(process._end_late_waits)
    assert serving.get(timeout=10) == "closed"
