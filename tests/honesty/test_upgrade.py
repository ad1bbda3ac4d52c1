"""An upgrade without a pause, and back: two releases on one database, under load, and no request fails.

The release before is the newest commit with an older schema, where git has it (no shallow clone, no archive). The release
after is made from this checkout: the same code with a migration that expands every table.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from app.access.api_keys import generate_key
from dev.stack import ROOT
from tests.honesty.deployment import Answer, Client, Deployment, Load, ProvenConnection
from tests.honesty.front import Aws
from tests.support import releases
from tests.support.databases import empty_database, new_database
from tests.support.waiting import until

NO_HISTORY = "git has no commit with an older schema here (git fetch --unshallow)"
HANDS = 3  # clients of each release
MANY = 12  # requests in each phase, two of each kind
PAUSE = 0.2  # seconds between two of a client's: most of the time is that of processes which start
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
    def load(self, *on: Deployment) -> Iterator[Load]:
        """Of each kind, on each of them; every request is served."""
        clients = [Client(one.port, self.older._admin_key) for one in on for _ in range(HANDS)]
        with contextlib.ExitStack() as closing:
            for client in clients:
                closing.callback(client.close)
            with Load(clients, self.ask, pause=PAUSE) as load:
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


def issuances(load: Load) -> list[Answer]:
    return [answer for answer in load.answers if answer.json and "AccessKeyId" in answer.json]


def deployed(folder: Path, url: str, aws: Aws, root: Path, key: str | None = None) -> Deployment:
    """With one web process, as those of the two releases are beside each other."""
    folder.mkdir()
    return Deployment(
        folder, url, aws, workers=1, root=root, admin_key=key, SECRET_KEYS="a-key-of-both-releases-0123456789-abcdefgh"
    )


@contextlib.contextmanager
def serving(older: Deployment, newer: Deployment) -> Iterator[Pair]:
    """The older one serves, on its own schema."""
    with older:
        found = Pair(older, newer, older.aws)
        found.place = older.place()
        yield found


@pytest.fixture
def before(front: Aws, tmp_path: Path) -> Iterator[Pair]:
    """The release before, and this one."""
    root = releases.before(tmp_path / "code")
    if root is None:
        pytest.skip(NO_HISTORY)
    key = generate_key()
    with empty_database("postgresql", tmp_path) as url:
        older = deployed(tmp_path / "old", url, front, root, key)
        older.command("migrate")
        older.command("keys", "bootstrap", DEPUTY_BOOTSTRAP_KEY=key)
        with serving(older, deployed(tmp_path / "new", url, front, ROOT, key)) as pair:
            yield pair


@pytest.fixture
def after(front: Aws, tmp_path: Path) -> Iterator[Pair]:
    """This release, and one after it."""
    root = releases.after(tmp_path / "code")
    with new_database("postgresql") as url:
        older, newer = deployed(tmp_path / "old", url, front, ROOT), deployed(tmp_path / "new", url, front, root)
        with serving(older, newer) as pair:
            yield pair


def test_no_request_fails_while_a_release_is_replaced_and_when_it_comes_back(before: Pair, tmp_path: Path):
    issued: list[tuple[str, str]] = []

    def served_by(*on: Deployment, meanwhile=lambda: None) -> None:
        with before.load(*on) as load:
            meanwhile()
        issued.extend(answer.issued for answer in issuances(load))

    older, newer = before.older, before.newer
    served_by(older, meanwhile=lambda: newer.command("migrate"))
    with newer:
        served_by(older, newer)
        served_by(newer)
        with before.deployment(older, tmp_path / "back") as back:
            served_by(newer, back)
            served_by(back)
        assert len(issued) > MANY
        assert set(issued) <= set(newer.issued()), "each is in the audit log, whichever release issued it"


def test_no_request_fails_while_the_next_migration_waits_for_a_lock_nor_on_its_schema(after: Pair, tmp_path: Path):
    """pg_dump holds such a lock on each table until it ends, and all that comes later would wait behind the migration.

    Issuing would give up first, with a 503 after 1.8 s.
    """
    older = after.older
    with psycopg.connect(older.database_url.replace("+psycopg", "")) as backup, after.load(older) as load:
        backup.execute("LOCK TABLE tenants, audit_events, configuration, connections IN ACCESS SHARE MODE")
        migrating = threading.Thread(target=after.newer.command, args=("migrate",))
        migrating.start()
        until(lambda: waits(older), "the migration wants a lock")
        until(lambda: not waits(older), "it lets the requests go first")
        until(lambda: waits(older), "it tries again")
        assert migrating.is_alive()
        backup.rollback()
        migrating.join(240)
        assert not migrating.is_alive()
    with after.deployment(older, tmp_path / "back") as back, after.load(older, back) as load:
        for one in (older, back):
            ready = one.admin.must("GET", "/readyz")["checks"]
            assert next(check["status"] for check in ready if check["name"] == "migrations") == "warning"
    assert {answer.issued for answer in issuances(load)} <= set(older.issued())


def waits(service: Deployment) -> bool:
    return bool(service.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"))
