"""How the web process writes an answer: each message here is one packet, so it shows what leaves together."""

import socket
from collections.abc import Iterator

import pytest

from app.http.sockets import AnswerSocket

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
