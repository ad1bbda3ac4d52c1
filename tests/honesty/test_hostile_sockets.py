"""Sockets that send little, late or never, or take no answer: others are served beside them, and
they end in time.
"""

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.honesty.deployment import Client, Deployment, ProvenConnection
from tests.support.databases import new_database
from tests.support.waiting import until

MANY = 600  # more than both web processes together serve at once
SECONDS = 3  # BODY_SECONDS here: a busy machine hears of a new connection late
FEW = 100  # connections that each web process takes, where it can be full
KIB, MIB = 1024, 1024 * 1024


@pytest.fixture(scope="module")
def service(front, tmp_path_factory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("sockets")
    with new_database() as url:
        flags = ("--worker-connections", str(FEW + 64))
        with Deployment(folder, url, front, flags=flags, BODY_SECONDS=str(SECONDS)) as deployed:
            yield deployed


@pytest.fixture
def roomy(deployment) -> Deployment:
    """With as many connections as it has by itself, and a body has long to come."""
    deployment.admin.close()
    return deployment


@pytest.fixture(scope="module")
def victim(service) -> ProvenConnection:
    return busy(service)


def header(method, path, *lines):
    fields = ["Host: deputy", "Content-Type: application/json", *lines]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode()


def bearer(key):
    return f"Authorization: Bearer {key}"


@contextlib.contextmanager
def sockets(port, count, sends=b""):
    with contextlib.ExitStack() as closing:
        opened = []
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            closing.enter_context(opened[-1])
            opened[-1].sendall(sends)
        yield opened


def rest(one):
    """All that still comes, until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while more := one.recv(64 * KIB):
            found += more
    return found


def closed(opened):
    """How many of these the other side has closed."""
    count = 0
    for one in opened:
        readable, _, _ = select.select([one], [], [], 0)
        with contextlib.suppress(ConnectionResetError):
            if readable and one.recv(1, socket.MSG_PEEK):
                continue
        count += bool(readable)
    return count


def assert_issues(service, victim, times=10):
    """Each on a connection of its own, as a new worker."""
    for turn in range(times):
        with contextlib.closing(Client(service.port)) as client:
            answer = victim.ask(client, turn)
            assert answer.status == 200, answer  # or its client had given up after PATIENCE


def busy(service):
    """Return a connection that each process has issued for: few unknown keys are read at once."""
    place = service.place()
    assert_issues(service, place)
    return place


def refusal(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["code"]


def test_many_sockets_with_a_good_key_and_no_body_hold_nobody_up(service, victim):
    hostile = service.place()
    for path, key in (("/v1/api-keys", service.admin.key), (hostile.credentials, hostile.key)):
        sends = header("POST", path, bearer(key), "Content-Length: 100")
        with sockets(service.port, MANY, sends):
            assert_issues(service, victim)


def test_a_connection_that_waits_for_a_body_takes_no_place_from_a_request(roomy):
    """There is room for all the connections, and for fewer requests; and no body is late yet."""
    victim = busy(roomy)
    sends = header("POST", "/v1/api-keys", bearer(roomy.admin.key), "Content-Length: 100")
    with sockets(roomy.port, MANY, sends):
        assert_issues(roomy, victim)


def test_many_sockets_that_ask_nothing_hold_nobody_up_and_end_in_time(service, victim):
    half_a_header = b"GET /healthz HTTP/1.1\r\nHost: dep"
    with (
        sockets(service.port, MANY // 2) as silent,
        sockets(service.port, MANY // 2, half_a_header) as begun,
    ):
        assert_issues(service, victim)
        until(lambda: closed([*silent, *begun]) == MANY, "all of them are closed", SECONDS + 10)
        assert {rest(one) for one in (*silent, *begun)} == {b""}


def test_many_idle_connections_that_were_served_hold_nobody_up(service, victim):
    with sockets(service.port, MANY, header("GET", "/healthz")) as opened:
        for one in opened:
            with contextlib.suppress(ConnectionResetError):
                while b'"ok"' not in (one.recv(KIB) or b'"ok"'):
                    pass
        assert_issues(service, victim)
        until(lambda: closed(opened) >= MANY - 2 * FEW, "room is made")


def test_many_connections_that_take_no_answer_hold_nobody_up(service, victim):
    # More than both sockets' buffers hold
    asks = header("GET", "/onboard/static/pico.min.css") * 100
    with sockets(service.port, 3 * FEW) as opened:
        for one in opened:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.send(asks)
        assert_issues(service, victim)


def test_stops_that_wait_for_one_another_hold_nobody_up_and_no_other_key_is_refused(
    service, victim
):
    """Each waits for a place of its key, or is held because it stops nothing."""
    tenant = service.place().tenant_id
    wanted = {"name": "stop", "scopes": ["keys:write"], "tenant_id": tenant}
    owner = service.admin.must("POST", "/v1/api-keys", wanted, expect=201)
    client = Client(service.port, owner["key"])
    thief, spare = (client.must("POST", "/v1/api-keys", wanted, expect=201) for _ in range(2))
    absent = header("DELETE", f"/v1/api-keys/{uuid4()}", bearer(thief["key"]))
    with sockets(service.port, MANY, absent) as opened, contextlib.closing(client):
        waiting = lambda: MANY - len(select.select(opened, [], [], 0)[0])  # noqa: E731
        until(lambda: waiting() <= 2 * (FEW + 64), "room is made")
        client.close()  # it was idle, so it was closed
        began = time.monotonic()
        client.must("DELETE", f"/v1/api-keys/{thief['id']}", expect=204)
        client.must("DELETE", f"/v1/api-keys/{spare['id']}", expect=204)
        assert time.monotonic() - began < 5
        assert_issues(service, victim)
        assert refusal(rest(opened[0])) in {(404, "not_found"), (429, "rate_limited")}


def test_the_connection_that_waited_longest_makes_room_and_the_newest_stays(service):
    with sockets(service.port, 2 * FEW) as early, sockets(service.port, 2 * FEW) as late:
        until(lambda: closed(early) >= FEW, "room is made")
        assert closed(late) < closed(early)


def drop_of(length, framing):
    """Return a piece of a body; of a long one, several reads come in time."""
    drop = b" " * (1 if length == 100 else 10 * KIB)
    return b"%x\r\n%b\r\n" % (len(drop), drop) if "chunked" in framing else drop


def test_what_drips_is_refused_after_its_time_in_all(service, victim):
    issue, tenants = (victim.credentials, victim.key), ("/v1/tenants", service.admin.key)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:

        def opened(sends):
            return stack.enter_context(sockets(service.port, 1, sends))[0]

        half_a_header = opened(b"GET /healthz HTTP/1.1\r\nX: ")
        drops = {half_a_header: b"x"}
        for (path, key), length in ((issue, 100), (tenants, 100), (tenants, 250 * KIB)):
            for framing in (f"Content-Length: {length}", "Transfer-Encoding: chunked"):
                drip = opened(header("POST", path, bearer(key), framing))
                drops[drip] = drop_of(length, framing)
        dripping = set(drops)
        while dripping:
            ended, _, _ = select.select(dripping, [], [], 0.2)
            dripping -= set(ended)
            assert time.monotonic() < began + SECONDS + 10
            assert not ended or time.monotonic() > began + SECONDS - 0.5
            for one in dripping:
                with contextlib.suppress(ConnectionError):
                    one.sendall(drops[one])
        answers = {one: rest(one) for one in drops}
    assert answers.pop(half_a_header) == b""
    for answer in answers.values():
        assert refusal(answer) == (400, "malformed_request")
        assert b"\r\nConnection: close\r\n" in answer
        assert b"in time" in answer


def test_who_may_not_ask_is_told_so_before_a_body(roomy):
    """The deadline is far, so an answer that waited for the body would be late."""
    place, token = roomy.place(), "x" * 43
    unknown = f"dpk_{'0' * 16}_{'x' * 43}"
    worker = place.key
    wanted = {"name": "no worker", "scopes": ["keys:write"]}
    other = roomy.admin.must("POST", "/v1/api-keys", wanted, expect=201)["key"]
    for path, lines, expected in (
        ("/v1/api-keys", [], (401, "unauthenticated")),
        ("/v1/api-keys", [bearer(unknown)], (401, "unauthenticated")),
        ("/v1/api-keys", [bearer(worker)], (403, "forbidden")),
        (place.credentials, [bearer(unknown)], (401, "unauthenticated")),
        (place.credentials, [bearer(other)], (403, "forbidden")),
        (place.credentials, [bearer(roomy.admin.key.swapcase())], (401, "unauthenticated")),
        ("/v1/nothing", [], (404, "not_found")),
        (f"/onboard/{token}/connections", [], 404),
        (f"/onboard/{token}/connections/{place.connection_id}/verify", [], 404),
    ):
        with sockets(roomy.port, 1, header("POST", path, *lines, "Content-Length: 100")) as (one,):
            began = time.monotonic()
            answer = one.recv(64 * KIB)
            assert time.monotonic() - began < 15, path
            one.shutdown(socket.SHUT_WR)  # or the other side would wait for the body
            answer += rest(one)
            found = refusal(answer) if isinstance(expected, tuple) else int(answer.split()[1])
            assert found == expected, answer


def test_after_an_answer_without_its_body_the_body_is_dropped_and_the_next_request_is_served(roomy):
    ask = header("POST", "/v1/api-keys", "Content-Length: 5000") + b"x" * 5000
    ask += header("GET", "/healthz")
    with sockets(roomy.port, 1, ask) as (one,):
        found = b""
        while b'"ok"' not in found:
            more = one.recv(64 * KIB)
            assert more, found
            found += more
        assert found.startswith(b"HTTP/1.1 401 ")


def whole(size):
    return [f"Content-Length: {size}"], b" " * size


def in_chunks(size):
    piece = b"%x\r\n%b\r\n" % (64 * KIB, b" " * (64 * KIB))
    return ["Transfer-Encoding: chunked"], piece * (size // (64 * KIB)) + b"0\r\n\r\n"


def unread(one, port):
    """How many bytes of those that were sent to this port have not been read there yet. None
    when it is closed.
    """
    ours, theirs, found = f":{one.getsockname()[1]:04X}", f":{port:04X}", 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues = line.split()[:5]
        to_send, to_read = (int(size, 16) for size in queues.split(":"))
        if local.endswith(ours) and remote.endswith(theirs):
            found += to_send
        elif local.endswith(theirs) and remote.endswith(ours):
            found += to_read
    return found


@pytest.mark.parametrize(
    ("form", "size"), [(whole, 2 * MIB), (in_chunks, 256 * KIB + 64 * KIB), (in_chunks, 2 * MIB)]
)
def test_a_body_that_is_too_large_gets_an_answer_that_its_client_can_read(service, form, size):
    """A client sends all of it before it reads, and must not find the connection cut."""
    framing, body = form(size)
    sends = header("POST", "/v1/tenants", bearer(service.admin.key), *framing)
    with sockets(service.port, 1, sends) as (one,):
        one.sendall(body[: 64 * KIB])
        if form is whole:  # it is answered by its header alone, and the client has not looked yet
            assert select.select([one], [], [], 20)[0]
        for start in range(64 * KIB, len(body), 256 * KIB):
            one.sendall(body[start : start + 256 * KIB])
            until(lambda: unread(one, service.port) == 0)  # a cut is there by the next
        found = rest(one)
    assert refusal(found) == (413, "payload_too_large")
    assert b"\r\nConnection: close\r\n" in found


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("key", "framing", "piece", "most"),
    [
        ("good", f"Content-Length: {100 * MIB}", b" " * MIB, 50 * MIB),
        # One byte in each chunk: 2 MiB of them would hold the process for many seconds.
        ("good", CHUNKED, b"1\r\n \r\n" * 10_000, 10 * MIB),
        (None, CHUNKED, b"1\r\n \r\n" * 10_000, 10 * MIB),
    ],
    ids=["large", "very many chunks", "very many chunks and no key"],
)
def test_a_body_that_is_too_large_is_not_read_to_its_end(service, key, framing, piece, most):
    lines = [bearer(service.admin.key), framing] if key else [framing]
    with sockets(service.port, 1, header("POST", "/v1/tenants", *lines)) as (one,):
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * MIB:
                sent += one.send(piece)
        assert sent < most, "what the sockets' buffers hold comes on top"


def test_a_body_of_many_chunks_is_read(service):
    """256 of any size, and one more for each 256 bytes. One that comes in two parts is two."""
    head = header("POST", "/v1/tenants", bearer(service.admin.key), CHUNKED)
    body, end = b'{"name": "in chunks"}'.ljust(200), b"0\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    spaces = b"100\r\n%b\r\n" % (b" " * 256)
    for more in (b"", spaces * 800):
        with sockets(service.port, 1, head + chunks + more + end) as (one,):
            assert one.recv(64 * KIB).startswith(b"HTTP/1.1 201 ")
    for more in (b"1\r\n \r\n" * 60, spaces * 10 + b"1\r\n \r\n" * 90):
        with sockets(service.port, 1, head + chunks + more + end) as (one,):
            assert refusal(rest(one)) == (400, "malformed_request")
