"""Tenants, roles, connections and keys, created and proven through the API, as in production."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from bench.client import BenchError, Client
from bench.servers import Deputy, InstantSts

_HANDS = 8
Given = TypeVar("Given")
Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class KeyedConnection:
    """One proven connection, and a key that may ask for its credentials."""

    tenant_id: str
    connection_id: str
    role_arn: str
    key: str

    @property
    def connection(self) -> str:
        return f"/v1/tenants/{self.tenant_id}/connections/{self.connection_id}"

    @property
    def credentials(self) -> str:
        return f"{self.connection}/credentials"


def issuing_key(admin: Client, name: str) -> tuple[str, str]:
    """Return (id, text) of a key that can only ask for credentials."""
    created = admin.must(
        "POST", "/v1/api-keys", {"name": name, "scopes": ["credentials:issue"]}, expect=201
    )
    return created["id"], created["key"]


def onboard(
    deputy: Deputy, sts: InstantSts, tenants: int, connections: int, keys: int = 50
) -> list[KeyedConnection]:
    """Create tenants, each with `connections` proven connections and one of `keys` keys."""
    admin = deputy.admin()
    texts = [issuing_key(admin, f"worker {number}")[1] for number in range(keys)]
    admin.close()

    def populate(client: Client, number: int) -> list[KeyedConnection]:
        tenant = client.must("POST", "/v1/tenants", {"name": f"Customer {number}"}, expect=201)
        arns = [role_arn(tenant["id"], place) for place in range(connections)]
        sts.register(dict.fromkeys(arns, tenant["external_id"]))
        return [connect(client, tenant["id"], arn, texts[number % keys]) for arn in arns]

    return [*itertools.chain(*spread(populate, range(tenants), deputy.admin))]


def role_arn(tenant_id: str, place: int) -> str:
    """Return a role of this tenant alone. Each Deputy has its own tenants, but all use one STS."""
    return f"arn:aws:iam::{200_000_000_000 + place}:role/deputy-{tenant_id}-{place}"


def connect(client: Client, tenant_id: str, arn: str, key: str) -> KeyedConnection:
    connection = client.must(
        "POST", f"/v1/tenants/{tenant_id}/connections", {"role_arn": arn}, expect=201
    )
    if connection["status"] != "verified":
        raise BenchError(f"A good role was not proven: {connection}")
    return KeyedConnection(tenant_id, connection["id"], arn, key)


def spread(
    work: Callable[[Client, Given], Output], given: Iterable[Given], client: Callable[[], Client]
) -> list[Output]:
    """Call `work` for each item in threads with a client each. Return the results in order.

    The first error cancels the rest.
    """
    own = threading.local()

    def run(item: Given) -> Output:
        return work(own.client, item)

    with contextlib.ExitStack() as clients:

        def begin() -> None:
            own.client = clients.enter_context(contextlib.closing(client()))

        hands = clients.enter_context(ThreadPoolExecutor(_HANDS, initializer=begin))
        under_way = [hands.submit(run, item) for item in given]
        try:
            return [future.result() for future in under_way]
        finally:
            hands.shutdown(cancel_futures=True)
