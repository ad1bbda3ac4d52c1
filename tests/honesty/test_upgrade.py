"""An upgrade without a pause, and back: two releases on one database, under load, and no request
fails.

The newer release is this checkout with one more migration, which expands every table.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from dev.stack import ROOT
from tests.honesty import releases
from tests.honesty.deployment import Client, Deployment, Load, ProvenConnection
from tests.honesty.front import Aws
from tests.support.databases import new_database
from tests.support.waiting import until

HANDS = 2  # clients of each release
MANY = 6  # requests in each phase, one of each kind
PAUSE = 0.2  # seconds between two of a client's: most of the time is that of processes which start
_accounts = itertools.count(700000000000)


@dataclass
class Pair:
    """The older and the newer release, with one database and one admin key."""

    older: Deployment
    newer: Deployment
    aws: Aws
    place: ProvenConnection

    def deployment(self, of, folder):
        """Further processes of that release."""
        return deployed(folder, self.older.database_url, self.aws, of.root, of._admin_key)

    @contextlib.contextmanager
    def load(self, *on):
        """Of each kind, on each of them; every request is served."""
        clients = [Client(one.port, self.older._admin_key) for one in on for _ in range(HANDS)]
        with Load(clients, self.ask, pause=PAUSE) as load:
            yield load
            load.go_on(MANY * len(on))
        assert load.lost == 0
        assert load.statuses.keys() <= {200, 201, 204}, load.statuses

    def ask(self, client, turn):
        kinds = {2: self.onboard, 4: self.rotate, 5: self.make_a_key}
        if turn % 6 in kinds:
            return kinds[turn % 6](client)
        return served(self.place.ask(client, turn))

    def onboard(self, client):
        """A tenant, its page's link, and a role that is proven and issues."""
        tenant = served(client.ask("POST", "/v1/tenants", {"name": "Globex"})).json
        path = f"/v1/tenants/{tenant['id']}"
        served(client.ask("POST", f"{path}/onboarding-links", {}))
        role = f"arn:aws:iam::{next(_accounts):012d}:role/deputy-new"
        self.aws.register(role, tenant["external_id"])
        made = served(client.ask("POST", f"{path}/connections", {"role_arn": role})).json
        assert made["status"] == "verified", made
        return served(client.ask("POST", f"{path}/connections/{made['id']}/credentials"))

    def rotate(self, client):
        """Begun, read and abandoned; then suspended and deleted, which increments the revocation
        counter.
        """
        tenant = served(client.ask("POST", "/v1/tenants", {"name": "Initech"})).json
        path = f"/v1/tenants/{tenant['id']}"
        served(client.ask("POST", f"{path}/external-id/rotation", {"reason": "an upgrade"}))
        served(client.ask("GET", f"{path}/external-id/rotation"))
        served(client.ask("DELETE", f"{path}/external-id/rotation"))
        served(client.ask("POST", f"{path}/suspend", {"reason": "an upgrade"}))
        return served(client.ask("DELETE", path))

    def make_a_key(self, client):
        wanted = {"name": "x", "scopes": ["credentials:issue"]}
        made = served(client.ask("POST", "/v1/api-keys", wanted)).json
        return served(client.ask("DELETE", f"/v1/api-keys/{made['id']}"))


def served(answer):
    assert answer.status in {200, 201, 204}, answer
    return answer


def issuances(load):
    return [answer for answer in load.answers if answer.json and "AccessKeyId" in answer.json]


def deployed(folder, url, aws, root, key=None):
    """With one web process, as those of the two releases are beside each other."""
    folder.mkdir()
    return Deployment(
        folder,
        url,
        aws,
        workers=1,
        root=root,
        admin_key=key,
        SECRET_KEYS="a-key-of-both-releases-0123456789-abcdefgh",
    )


@pytest.fixture
def after(front, tmp_path) -> Iterator[Pair]:
    """This release, and one after it."""
    root = releases.after(tmp_path / "code")
    with new_database() as url:
        older = deployed(tmp_path / "old", url, front, ROOT)
        newer = deployed(tmp_path / "new", url, front, root)
        with older:  # it serves, on its own schema
            yield Pair(older, newer, front, older.place())


def test_no_request_fails_while_a_release_is_replaced_and_when_it_comes_back(after, tmp_path):
    """The migration waits for a lock meanwhile, as pg_dump holds one on each table until it ends.
    All later requests would wait behind the migration, and issuing would give up with a 503 after
    1.8 s.
    """
    older, newer = after.older, after.newer
    with (
        psycopg.connect(older.database_url.replace("+psycopg", "")) as backup,
        after.load(older) as load,
    ):
        backup.execute(
            "LOCK TABLE tenants, audit_events, configuration, connections IN ACCESS SHARE MODE"
        )
        migrating = threading.Thread(target=newer.command, args=("migrate",))
        migrating.start()
        until(lambda: waits(older), "the migration wants a lock")
        until(lambda: not waits(older), "it lets the requests go first")
        until(lambda: waits(older), "it tries again")
        assert migrating.is_alive()
        backup.rollback()
        migrating.join(240)
        assert not migrating.is_alive()
    issued = issuances(load)
    with newer, after.load(older, newer) as load:
        pass
    issued += issuances(load)
    with after.deployment(older, tmp_path / "back") as back, after.load(older, back) as load:
        for one in (older, back):
            ready = one.admin.must("GET", "/readyz")["checks"]
            statuses = {check["name"]: check["status"] for check in ready}
            assert statuses["migrations"] == "warning"
    issued += issuances(load)
    assert {answer.issued for answer in issued} <= set(older.issued())


def waits(service):
    return bool(
        service.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'")
    )
