"""Services with webhooks, a receiver on this machine, and a background worker step by step."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network

import pytest
import time_machine

from app.clock import now
from app.identity.scopes import Scope
from app.services import Services
from app.webhooks.delivery import THREADS
from tests.support.cast import OPERATOR
from tests.support.own_services import own_services

LOCAL = (ip_network("127.0.0.0/8"),)


class Receiver:
    """It answers 204, or what `answers` has for the path: a status, or (status, headers, body).

    `got` has what it got and answered with 2xx: the headers and the body.
    """

    def __init__(self):
        self.answers, self.got, self.tried = {}, [], []
        self.arrived = []  # path, tenant's id and time of each request
        self.refused = {}  # the answers to the events of tenants, by their ids
        self.hangs, self._closed = set(), threading.Event()  # paths that do not answer
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                tenant_id = json.loads(body)["data"].get("tenant_id")
                receiver.arrived.append((self.path, tenant_id, time.monotonic()))
                if self.path in receiver.hangs:
                    receiver._closed.wait(60)
                answer = receiver.answers.get(self.path, 204)
                answer = receiver.refused.get(tenant_id, answer)
                status, headers, text = answer if isinstance(answer, tuple) else (answer, {}, b"")
                receiver.tried.append(self.path)
                if 200 <= status < 300:
                    receiver.got.append((self.path, dict(self.headers), body))
                with suppress(OSError):
                    self.send_response(status)
                    for name, value in ({"Content-Length": str(len(text))} | headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # with its 5, connections are refused

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path="/hook"):
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    @property
    def events(self):
        return [json.loads(body) for _, _, body in self.got]

    def types(self, path=None):
        return [json.loads(body)["type"] for at, _, body in self.got if path in (None, at)]

    def close(self):
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def services(request) -> Iterator[Services]:
    with own_services(webhook_allowed_networks=LOCAL) as made:
        yield made


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(now(), tick=False) as traveller:
        yield traveller


def endpoint_of(services, receiver, path="/hook", types=("*",), **more):
    """A new endpoint and its secret."""
    return services.endpoints.create(OPERATOR, url=receiver.url(path), types=list(types), **more)


def key_principal(services, tenant_id=None):
    """The principal of a new key for endpoints, the vendor's or a tenant's."""
    scopes = frozenset({Scope.WEBHOOKS_WRITE})
    _, text = services.api_keys.create_key(OPERATOR, name="x", scopes=scopes, tenant_id=tenant_id)
    return services.api_keys.authenticate(text)


def deliver(services, *, steps=50):
    """Attempt what is due now, as a background worker does; the outcomes of all attempts."""
    outcomes, all_outcomes = [], []
    for _ in range(steps):
        claims = services.deliveries.advance(outcomes, THREADS)
        if not claims:
            break
        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = list(pool.map(services.deliveries.attempt, claims))
        all_outcomes += outcomes
    return all_outcomes
