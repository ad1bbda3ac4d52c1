"""What the server can't read, or does not want to: a problem like every other, with a request id
that the log has.
"""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from gunicorn.http.errors import LimitRequestLine
from werkzeug import Response

from app.http.sockets import WebProcess
from tests.honesty.deployment import Deployment
from tests.support.waiting import until

TOKEN = "dpTokenOfALink" + "x" * 29


@pytest.fixture
def service(deployment) -> Deployment:
    return deployment


def answer_to(service, sent):
    """Everything until the server closes the connection: status, headers, body."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(sent)
        found = b""
        while more := connection.recv(65_536):
            found += more
    head, _, body = found.partition(b"\r\n\r\n")
    first, *lines = head.decode().splitlines()
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def fields(count, size):
    return b"".join(b"X-%d: %b\r\n" % (number, b"x" * (size - 8)) for number in range(count))


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (
            b"GET /v1/tenants?reference=" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            414,
            "uri_too_long",
        ),
        (f"GET /onboard/{TOKEN}?{'x' * 9_000} HTTP/1.1\r\n\r\n".encode(), 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + fields(99, 8_000) + b"\r\n", 431, "headers_too_large"),
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\n" + b"Content-Type: a/b\r\n" * 2 + b"\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "malformed_request"),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else str(value),
)
def test_an_unread_request_is_refused_with_a_problem_whose_request_id_is_in_the_log(
    service, sent, status, code
):
    found, headers, body = answer_to(service, sent)
    assert found == status
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Content-Length"] == str(len(body))
    assert headers["Connection"] == "close"
    assert headers["Cache-Control"] == "no-store"
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
    assert "browser" not in problem["detail"]  # werkzeug's own words
    assert problem["request_id"] == headers["X-Request-Id"]
    assert headers["X-Deputy-Code"] == code
    until(lambda: problem["request_id"] in service.said, "the log has it")
    assert TOKEN not in service.said


def test_a_proxy_may_hand_on_a_certificate_of_16_kb(service):
    sent = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + fields(2, 16_000) + b"\r\n"
    assert answer_to(service, sent)[0] == 200


def test_what_the_client_still_sends_is_taken_before_the_connection_is_closed():
    """Or the system resets it, and the client may lose the answer."""
    refuser = WebProcess.__new__(WebProcess)
    refuser._app = Response("refused")
    server, client = socket.socketpair(type=socket.SOCK_SEQPACKET)  # each piece is read by itself
    client.settimeout(20)
    with server, client, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(lambda: [client.sendall(b"x" * 1000) for _ in range(100)])
        sending.add_done_callback(lambda _: client.shutdown(socket.SHUT_WR))
        refuser.handle_error(None, server, ("127.0.0.1", 1), LimitRequestLine(5000, 4094))
        assert client.recv(1000).endswith(b"refused")
        server.setblocking(False)
        assert server.recv(1) == b""
