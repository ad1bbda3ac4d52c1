"""An upgrade without a pause, and back: two releases on one database, under load, and no request fails.

The release before is the newest commit with an older schema. Where git does not have it (a shallow clone, an archive),
this checkout is the older one, and the newer one is made from it: the same code with a migration that expands every table.
That pair is also tried where git has both.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from app.access.api_keys import generate_key
from dev.stack import ROOT
from tests.honesty.deployment import Answer, Client, Deployment, Load, ProvenConnection
from tests.honesty.front import Aws
from tests.support import releases
from tests.support.databases import empty_database
from tests.support.waiting import until

NO_HISTORY = "git has no commit with an older schema here (git fetch --unshallow)"
HANDS = 3  # clients of each release
MANY = 24  # requests in each phase
PAUSE = 0.05  # seconds between two of a client's: most of the time is that of processes which start
_accounts = itertools.count(700000000000)


@dataclass
class Pair:
    """The older and the newer release, with one database and one admin key."""

    older: Deployment
    newer: Deployment
    aws: Aws
    place: ProvenConnection | None = None

    def deployment(self, of: Deployment, folder: Path) -> Deployment:
        """Further processes of that release."""
        return deployed(folder, self.older.database_url, self.aws, of.root, of._admin_key)

    @contextlib.contextmanager
    def load(self, *on: Deployment, ask: Callable[[Client, int], Answer] | None = None) -> Iterator[Load]:
        """Of each kind, or what `ask` asks, on each of them; every request is served."""
        clients = [Client(one.port, self.older._admin_key) for one in on for _ in range(HANDS)]
        with contextlib.ExitStack() as closing:
            for client in clients:
                closing.callback(client.close)
            with Load(clients, ask or self.ask, pause=PAUSE) as load:
                yield load
                load.go_on(MANY * len(on))
        assert load.lost == 0
        assert load.statuses.keys() <= {200, 201, 204}, load.statuses

    def ask(self, client: Client, turn: int) -> Answer:
        kinds = (self.issue, self.issue_in_the_other_shape, self.onboard, self.issue, self.rotate, self.make_a_key)
        return kinds[turn % len(kinds)](client)

    def issue(self, client: Client) -> Answer:
        assert self.place
        return served(self.place.ask(client))

    def issue_in_the_other_shape(self, client: Client) -> Answer:
        assert self.place
        return served(self.place.ask(client, 1))

    def onboard(self, client: Client) -> Answer:
        """A tenant, its page's link, and a role that is proven and issues."""
        tenant = served(client.ask("POST", "/v1/tenants", {"name": "Globex"})).json
        path = f"/v1/tenants/{tenant['id']}"
        served(client.ask("POST", f"{path}/onboarding-links", {}))
        role = f"arn:aws:iam::{next(_accounts):012d}:role/deputy-new"
        self.aws.register(role, tenant["external_id"])
        made = served(client.ask("POST", f"{path}/connections", {"role_arn": role})).json
        assert made["status"] == "verified", made
        return served(client.ask("POST", f"{path}/connections/{made['id']}/credentials"))

    def rotate(self, client: Client) -> Answer:
        """Begun, read and abandoned; then suspended and deleted, which moves the epoch."""
        tenant = served(client.ask("POST", "/v1/tenants", {"name": "Initech"})).json
        path = f"/v1/tenants/{tenant['id']}"
        served(client.ask("POST", f"{path}/external-id/rotation", {"reason": "an upgrade"}))
        served(client.ask("GET", f"{path}/external-id/rotation"))
        served(client.ask("DELETE", f"{path}/external-id/rotation"))
        served(client.ask("POST", f"{path}/suspend", {"reason": "an upgrade"}))
        return served(client.ask("DELETE", path))

    def make_a_key(self, client: Client) -> Answer:
        made = served(client.ask("POST", "/v1/api-keys", {"name": "x", "scopes": ["credentials:issue"]})).json
        return served(client.ask("DELETE", f"/v1/api-keys/{made['id']}"))


def served(answer: Answer) -> Answer:
    assert answer.status in {200, 201, 204}, answer
    return answer


def deployed(folder: Path, url: str, aws: Aws, root: Path, key: str) -> Deployment:
    folder.mkdir()
    return Deployment(
        folder,
        url,
        aws,
        root=root,
        admin_key=key,
        BOOTSTRAP_KEY=key,
        SECRET_KEYS="a-key-of-both-releases-0123456789-abcdefgh",
    )


@pytest.fixture(params=["the release before", "the release after"])
def pair(request, front: Aws, tmp_path: Path) -> Iterator[Pair]:
    """The older one serves, on its own schema."""
    roots = (
        (releases.before(tmp_path / "code"), ROOT)
        if request.param.endswith("before")
        else (ROOT, releases.after(tmp_path / "code"))
    )
    if roots[0] is None:
        pytest.skip(NO_HISTORY)
    key = generate_key()
    with empty_database("postgresql", tmp_path) as url:
        older, newer = (
            deployed(tmp_path / name, url, front, root, key) for name, root in zip(("old", "new"), roots, strict=True)
        )
        older.command("migrate")
        older.command("keys", "bootstrap")
        with older:
            found = Pair(older, newer, front)
            found.place = older.place()
            yield found


def test_no_request_fails_while_a_release_is_replaced_and_when_it_comes_back(pair: Pair, tmp_path: Path):
    issued: list[tuple[str, str]] = []

    def served_by(*on: Deployment, meanwhile=lambda: None) -> None:
        with pair.load(*on) as load:
            meanwhile()
        issued.extend(answer.issued for answer in load.answers if answer.json and "AccessKeyId" in answer.json)

    served_by(pair.older, meanwhile=lambda: pair.newer.command("migrate"))
    if pair.older.root == ROOT:
        ready = pair.older.admin.must("GET", "/readyz")["checks"]
        assert next(check["status"] for check in ready if check["name"] == "migrations") == "warning"
    with pair.newer:
        served_by(pair.older, pair.newer)
        served_by(pair.newer)
        with pair.deployment(pair.older, tmp_path / "back") as back:
            served_by(pair.newer, back)
            served_by(back)
        assert len(issued) > MANY
        assert set(issued) <= set(pair.newer.issued()), "each is in the audit log, whichever release issued it"


@pytest.mark.parametrize("pair", ["the release after"], indirect=True)
def test_a_migration_that_waits_for_a_lock_does_not_make_requests_fail(pair: Pair):
    """pg_dump holds such a lock on each table until it ends, and all that comes later would wait behind the migration.

    Issuing gives up first: SDKs wait two seconds.
    """
    url, place = pair.older.database_url.replace("+psycopg", ""), pair.place
    assert place
    with (
        psycopg.connect(url, autocommit=False) as backup,
        pair.load(pair.older, ask=lambda client, turn: served(place.ask(client, turn))) as load,
    ):
        backup.execute("LOCK TABLE tenants, audit_events, configuration, connections IN ACCESS SHARE MODE")
        migrating = threading.Thread(target=pair.newer.command, args=("migrate",))
        migrating.start()
        until(lambda: waits(pair.older), "the migration wants a lock")
        time.sleep(4)
        assert migrating.is_alive()
        backup.rollback()
        migrating.join(240)
        assert not migrating.is_alive()
    assert max(answer.seconds for answer in load.answers) < 3


def waits(service: Deployment) -> bool:
    return bool(service.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"))
