"""One POST to a server that may be hostile, over real sockets."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from app.outbound import door
from app.outbound.addresses import Destination, resolve
from app.outbound.door import AttemptError
from tests.support.certificates import self_signed
from tests.support.waiting import until

OWN = [ip_network("127.0.0.0/8")]
Behaviour = Callable[[socket.socket], None]


def post(destination: Destination, seconds: float = 15.0) -> door.HttpAnswer:
    return door.post(destination, {}, b"", seconds)


@pytest.fixture
def destination_of() -> Iterator[Callable[[Behaviour], Destination]]:
    """Start a server that does this with each connection, and return its destination."""
    listeners: list[socket.socket] = []

    def serve(behaviour: Behaviour) -> Destination:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connected, _ = listener.accept()
                    with connected, suppress(OSError):
                        behaviour(connected)

        threading.Thread(target=accept, daemon=True).start()
        return resolve(f"http://127.0.0.1:{listener.getsockname()[1]}/hook", OWN)

    yield serve
    for listener in listeners:
        listener.close()


def answering(text: bytes) -> Behaviour:
    def answer(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(text)

    return answer


def dripping(beginning: bytes) -> Behaviour:
    def drip(connected: socket.socket) -> None:
        connected.sendall(beginning)
        while True:
            connected.sendall(b"x")
            time.sleep(0.05)

    return drip


def test_a_request_and_its_answer(destination_of):
    received = []

    def answer(connected: socket.socket) -> None:
        text = b""
        while not text.endswith(b"{}"):
            text += connected.recv(65536)
        received.append(text)
        connected.sendall(b"HTTP/1.1 201 Created\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nok")

    destination = destination_of(answer)
    answered = door.post(destination, {"webhook-id": "1"}, b"{}", 15)
    assert (answered.status, answered.headers["retry-after"], answered.body) == (201, "7", b"ok")
    head, body = received[0].split(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /hook HTTP/1.1"
    assert {f"Host: {destination.host}", "webhook-id: 1", "Content-Length: 2"} < set(lines)
    assert body == b"{}"


def test_the_body_of_an_answer_without_a_length_is_read(destination_of):
    text = b"HTTP/1.0 200 OK\r\n\r\nok"
    assert post(destination_of(answering(text))).body == b"ok"


def test_a_redirect_is_an_answer_and_nothing_more(destination_of):
    other: list[bytes] = []
    target = destination_of(lambda connected: other.append(connected.recv(65536)))
    location = f"Location: http://127.0.0.1:{target.port}/\r\n".encode()
    text = b"HTTP/1.1 307 Temporary Redirect\r\n" + location + b"Content-Length: 0\r\n\r\n"
    assert post(destination_of(answering(text))).status == 307
    assert not other


def test_no_more_than_64_kib_of_an_answer_are_read(destination_of):
    sent = []

    def flood(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            sent.append(connected.send(bytes(65536)))

    assert len(post(destination_of(flood)).body) == 64 * 1024
    assert sum(sent) < 16 * 1024**2


@pytest.mark.parametrize(
    ("beginning", "again"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="100 Continue"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;x\r\nx\r\n", id="chunks"
        ),
    ],
)
def test_an_answer_that_only_costs_time_is_cut_off(destination_of, beginning, again):
    def flood(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(beginning)
        while True:
            connected.sendall(again * 1000)

    with pytest.raises(door.AttemptError, match="protocol"):
        post(destination_of(flood))


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"", id="the status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", id="a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="a chunk's size"),
    ],
)
def test_a_server_that_drips_ends_at_the_deadline(destination_of, beginning):
    began = time.monotonic()
    with pytest.raises(AttemptError, match=r"^timeout$"):
        post(destination_of(dripping(beginning)), seconds=0.5)
    assert 0.4 < time.monotonic() - began < 2


def test_a_handshake_that_drips_ends_at_the_deadline(destination_of):
    # A TLS record that announces 16 KiB, and then comes byte by byte
    destination = destination_of(dripping(b"\x16\x03\x03\x40\x00"))._replace(tls=True)
    began = time.monotonic()
    with pytest.raises(AttemptError, match=r"^timeout$"):
        post(destination, seconds=0.5)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("behaviour", "word"),
    [
        (lambda connected: connected.close(), "connection"),
        (answering(b"not HTTP\r\n\r\n"), "protocol"),
        (answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000), "protocol"),
        (answering(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"), "protocol"),
        (answering(b"HTTP/1.1 99999 OK\r\n\r\n"), "protocol"),
    ],
)
def test_no_answer_has_a_word(destination_of, behaviour, word):
    with pytest.raises(AttemptError, match=f"^{word}$"):
        post(destination_of(behaviour))


def test_an_ipv6_literal_is_a_host_too(destination_of):
    text = b"HTTP/1.1 204 No Content\r\n\r\n"
    destination = destination_of(answering(text))._replace(name="2606:4700::abcd")
    assert post(destination).status == 204


def test_an_address_that_does_not_answer_is_followed_by_the_next_one(destination_of):
    """A name may have an IPv6 address that leads nowhere."""
    destination = destination_of(answering(b"HTTP/1.1 204 No Content\r\n\r\n"))
    both = destination._replace(addresses=("::1", *destination.addresses))
    assert post(both).status == 204


def test_an_address_that_is_silent_leaves_time_for_the_next_one(destination_of, monkeypatch):
    destination = destination_of(answering(b"HTTP/1.1 204 No Content\r\n\r\n"))
    create = socket.create_connection

    def connect(address: tuple[str, int], seconds: float) -> socket.socket:
        if address[0] == "192.0.2.1":
            time.sleep(seconds)
            raise TimeoutError
        return create(address, seconds)

    monkeypatch.setattr(socket, "create_connection", connect)
    both = destination._replace(addresses=("192.0.2.1", *destination.addresses))
    assert post(both, seconds=1).status == 204


def test_an_answer_may_take_longer_than_an_address_has_to_connect(destination_of):
    def answer(connected: socket.socket) -> None:
        time.sleep(0.6)
        answering(b"HTTP/1.1 204 No Content\r\n\r\n")(connected)

    destination = destination_of(answer)
    four = destination._replace(addresses=destination.addresses * 4)
    assert post(four, seconds=2).status == 204


def test_the_timer_has_ended_before_its_descriptor_is_closed(destination_of, monkeypatch):
    """Another socket may get the descriptor's number, and would be shut down."""
    began, descriptors = threading.Event(), []

    def shut_down_late(watched: socket.socket) -> None:
        began.set()
        time.sleep(0.2)
        descriptors.append(watched.fileno())

    monkeypatch.setattr(door, "_shut_down", shut_down_late)
    monkeypatch.setattr(door, "_exchange", lambda *_: began.wait(60))
    with pytest.raises(AttemptError, match=r"^timeout$"):
        post(destination_of(answering(b"")), seconds=0.1)
    until(lambda: descriptors)
    assert descriptors != [-1]


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(AttemptError, match=r"^connection$"):
        post(resolve(f"http://127.0.0.1:{port}/", OWN))


def test_the_certificate_is_checked_for_the_name(tmp_path: Path, monkeypatch):
    import ssl  # noqa: PLC0415
    from http.server import BaseHTTPRequestHandler, HTTPServer  # noqa: PLC0415

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        destination = resolve(
            f"https://localhost:{receiver.server_port}/", [*OWN, ip_network("::1")]
        )
        destination = destination._replace(addresses=("127.0.0.1",))
        with pytest.raises(AttemptError, match=r"^tls$"):
            post(destination)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        door._tls.cache_clear()
        try:
            assert post(destination).status == 204
            with pytest.raises(AttemptError, match=r"^tls$"):
                post(destination._replace(name="hooks.example.com"))
        finally:
            door._tls.cache_clear()
            receiver.shutdown()
