"""Plain requests, as the deployed service answers them: gunicorn's bytes, without gunicorn and
Flask.
"""

import re
import socket

import pytest

from tests.honesty.deployment import ProvenConnection

KIB = 1024
# A request with this field is gunicorn's to read. The answer is the same.
UNUSUAL = "TE: trailers\r\n"


@pytest.fixture(scope="module")
def victim(deployment) -> ProvenConnection:
    deployment.admin.close()
    return deployment.place()


def ask(client, victim, method, path, body="", *, more=""):
    """Send a request in one piece, and return the whole answer without what differs each time."""
    head = head_of(victim, method, path) + more
    if body:
        head += f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}\r\n{body}".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or answer[-1:] != b"}":
        more_bytes = client.recv(64 * KIB)
        assert more_bytes, answer
        answer += more_bytes
    answer = re.sub(rb"\r\nDate: [^\r]+ GMT\r\n", b"\r\nDate: -\r\n", answer)
    return re.sub(rb"\r\nX-Request-Id: [0-9a-f]{32}\r\n", b"\r\nX-Request-Id: -\r\n", answer)


def head_of(victim, method="POST", path=None):
    """A request line and the fields that each request has."""
    line = f"{method} {path or victim.credentials} HTTP/1.1\r\nHost: deputy\r\n"
    return f"{line}Authorization: Bearer {victim.key}\r\n"


def answered_by_flask(service):
    """Return the number of requests that Flask has answered."""
    samples = service.metrics().items()
    return sum(count for name, count in samples if name.startswith("deputy_request_seconds_count"))


@pytest.mark.parametrize("shape", ["credentials", "container-credentials", "with a body"])
def test_the_answer_is_byte_for_byte_that_of_gunicorn_and_flask(deployment, victim, shape):
    asked = {
        "credentials": ("POST", victim.credentials),
        "container-credentials": ("GET", victim.container_credentials),
        "with a body": ("POST", victim.credentials, '{"reason": "a report"}'),
    }[shape]
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as client:
        ask(client, victim, *asked)  # from now on this process knows the key and the session
        before = answered_by_flask(deployment)
        plain = [ask(client, victim, *asked) for _ in range(3)]
        assert answered_by_flask(deployment) == before
        gunicorns = ask(client, victim, *asked, more=UNUSUAL)
        assert answered_by_flask(deployment) == before + 1
        assert [*plain, ask(client, victim, *asked)] == [gunicorns] * 4, (
            "and it may change with each request"
        )
    assert gunicorns.startswith(b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\n")
    assert b"\r\nStrict-Transport-Security: max-age=31536000\r\n" in gunicorns


def test_a_request_behind_a_plain_one_is_served_too(deployment, victim):
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as client:
        ask(client, victim, "POST", victim.credentials)
        client.sendall(f"{head_of(victim)}\r\n".encode() * 3)
        answer = b""
        while answer.count(b"HTTP/1.1 200 OK") < 3 or answer[-1:] != b"}":
            piece = client.recv(64 * KIB)
            assert piece, answer
            answer += piece


def test_a_connection_goes_on_after_a_body_in_chunks(deployment, victim):
    """gunicorn looks for the end of the body while it waits for the next request."""
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as client:
        for _ in range(3):
            fields = "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
            chunks = "2\r\n{}\r\n0\r\n\r\n"
            client.sendall(f"{head_of(victim)}{fields}\r\n{chunks}".encode())
            answer = client.recv(64 * KIB)
            while answer[-1:] != b"}":
                answer += client.recv(64 * KIB)
            assert answer.startswith(b"HTTP/1.1 200 OK"), answer
            assert answer.count(b"HTTP/1.1") == 1
            assert ask(client, victim, "POST", victim.credentials).startswith(b"HTTP/1.1 200 OK")
