"""How the web process writes an answer (each message here is one packet), and which connection it closes when it is full."""

import socket
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.event import Event

from app.http.sockets import AnswerSocket, Wait, WebProcess

SIZE = 1024


@pytest.fixture
def ends() -> Iterator[tuple[AnswerSocket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(10)
    with ours, theirs:
        yield AnswerSocket(ours), theirs


def test_the_header_leaves_with_the_first_piece_of_the_body(ends):
    answer, client = ends
    for piece in (b"header ", b"body", b"more"):
        answer.sendall(piece)
    assert [client.recv(SIZE), client.recv(SIZE)] == [b"header body", b"more"]


def test_an_answer_without_a_body_leaves_when_it_ends(ends):
    answer, client = ends
    answer.sendall(b"header")
    answer.flush()
    assert client.recv(SIZE) == b"header"


def test_what_is_held_back_leaves_before_any_other_use_of_the_socket(ends):
    answer, client = ends
    answer.sendall(b"header")
    answer.send(b"file")  # as sendfile does, which writes to the socket itself
    assert [client.recv(SIZE), client.recv(SIZE)] == [b"header", b"file"]


class FullProcess(WebProcess):
    """With room for three connections beside those that end, and without gunicorn around it."""

    def __init__(self) -> None:
        self._connections, self._waiting, self._ending, self._asked_before = 0, {}, set(), set()
        self.worker_connections = 64 + 3

    def connect(self, serve: Callable[[], str]) -> gevent.Greenlet:
        """A connection, with all that `handle` does for it."""

        def handled() -> str:
            self._connections += 1
            try:
                return serve()
            finally:
                self._connections -= 1
                self._ending.discard(gevent.getcurrent())

        return gevent.spawn(handled)


def test_a_new_connection_is_not_closed_in_the_place_of_those_that_are_being_answered():
    process, answered = FullProcess(), Event()

    def sends_no_body() -> str:
        try:
            with Wait(process, 30, silent=False):
                gevent.sleep(30)
        except gevent.Timeout:
            answered.wait()  # as its refusal takes a moment
        return "closed"

    def asks() -> str:
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


def test_a_connection_that_was_told_to_end_and_does_not_take_its_answer_makes_room():
    process = FullProcess()

    def takes_no_answer() -> str:
        with pytest.raises(gevent.Timeout), Wait(process, 30, silent=False):
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
