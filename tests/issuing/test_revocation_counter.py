"""The revocation counter: increased by each change that takes away, in the same transaction, and by
none that adds.
"""

import secrets
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import sqlalchemy

from app.audit import Event
from app.errors import ConflictError, NotFoundError, SuspendedError
from app.identity.scopes import ALL_SCOPES
from app.identity.tenancy import owned
from app.ids import new_external_id, new_id
from app.proofs.calls_and_verdict import ProofFinding
from app.rotation.switch import PlanFinding, plan_rotation
from app.services import Services
from app.store.database import SYSTEM
from app.store.models import ApiKey, ExternalIdRow, ExternalIdState, Trigger, Verdict
from app.store.revocation import MOST_REVOKED_ROWS
from tests.attacks.evidence import case
from tests.conftest import OPERATOR
from tests.support.cast import path_of
from tests.support.rows import ADMIN, TenantRows, at_once, place, tenant_row

pytestmark = pytest.mark.usefixtures("impatient")

REASON = {"reason": "an incident"}


@pytest.fixture
def services(app) -> Services:
    return app.extensions["deputy"]


@pytest.fixture
def tenant_rows(services) -> TenantRows:
    return place(services)


def changed_since(by_hand, counter):
    """The rows that are named for the moves after this revocation counter, of which none may be
    without one.
    """
    # A test that sets the revocation counter back by hand leaves rows of later ones
    latest = by_hand.counter
    found = by_hand.rows(
        "SELECT revocation_counter, row_id FROM revoked_rows"  # noqa: S608
        f" WHERE revocation_counter > {counter} AND revocation_counter <= {latest}"
    )
    assert {at for at, _ in found} == set(range(counter + 1, latest + 1))
    return {uuid.UUID(str(row_id)) for _, row_id in found}


# --- what adds ---


def test_nothing_that_adds_increments_the_revocation_counter(world, customer, faults, by_hand):
    """Or a million proofs that confirm would make every request read everything again."""
    before, admin = by_hand.counter, world.admin
    tenant = world.tenant()
    path = f"/v1/tenants/{tenant['id']}"
    worker = world.worker(tenant)
    connection = world.connect(tenant, world.role(tenant, customer))
    admin("POST", path_of(connection, "/verify"))
    admin("PATCH", path, {"name": "Acme & Sons", "reference": f"r-{tenant['id']}"})
    worker("POST", path_of(connection, "/credentials"))
    worker.refused("GET", "/v1/tenants", expect=403, code="forbidden")
    faults.add("deny", role_arn=connection["role_arn"], times=1)
    other_session = {"duration_seconds": 900}
    worker.refused(
        "POST", path_of(connection, "/credentials"), other_session, expect=409, code="role_refused"
    )
    assert by_hand.counter == before
    pending = world.connect(tenant, f"{connection['role_arn']}-absent", status="pending")
    for act in (("POST", "/suspend", REASON, 200), ("DELETE", "", {}, 204)):
        admin(act[0], path_of(pending, act[1]), act[2], expect=act[3])
    # Clears the tombstone of the one before
    world.connect(tenant, pending["role_arn"], status="pending")
    assert by_hand.counter == before, "a connection that could not issue has nothing to lose"
    admin("POST", f"{path}/suspend", REASON)
    before = by_hand.counter
    admin("POST", f"{path}/resume", REASON)
    assert by_hand.counter == before
    admin("POST", path_of(connection, "/suspend"), REASON)
    before = by_hand.counter
    assert admin("POST", path_of(connection, "/resume"), REASON)["status"] == "verified"
    assert by_hand.counter == before


# --- by hand ---

TENANT, CONNECTION = "UPDATE tenants SET ", "UPDATE connections SET "
BY_HAND = {
    "a key's end": "DELETE FROM api_keys WHERE id = :key",
    "a tenant's status": TENANT + "status = 'suspended' WHERE id = :tenant",
    "a tenant's end": TENANT + "deleted_at = '2020-01-01 00:00:00' WHERE id = :tenant",
    "a connection's status": CONNECTION + "status = 'insecure' WHERE id = :connection",
    "a connection's pin": CONNECTION + "role_unique_id = 'AROAANOTHER' WHERE id = :connection",
    "a connection's role": CONNECTION + "role_arn = role_arn || '-x' WHERE id = :connection",
    "a connection's version": CONNECTION + "version = version + 1 WHERE id = :connection",
    "a connection's permission set": CONNECTION + "permission_set = 'other' WHERE id = :connection",
    "a role's set by its tag": CONNECTION + "tagged_set = 'other' WHERE id = :connection",
    "a role's set by its stack": CONNECTION + "stack_set = 'other' WHERE id = :connection",
    "a connection's id": CONNECTION + "id = :fresh WHERE id = :connection",
    "a connection's External ID, as in a rotation": (
        CONNECTION + "external_id_id = :rotated WHERE id = :connection"
    ),
    "a connection's tenant": (
        CONNECTION + "tenant_id = :other, external_id_id = :others WHERE id = :connection"
    ),
    "a connection's end": "DELETE FROM connections WHERE id = :connection",
}


def values(services, here, statement):
    """Return the values for the names in the statement."""
    ids = {
        "key": here.key_id,
        "tenant": here.tenant_id,
        "connection": here.connection_id,
        "fresh": new_id(),  # lists in other tests have the newest first
    }
    if ":other" in statement:
        ids["other"] = tenant_row(services.db)
        others = sqlalchemy.select(ExternalIdRow.id).filter_by(tenant_id=ids["other"])
        with services.db.read() as db:
            ids["others"] = db.scalars(others).one()
    if ":rotated" in statement:
        state = ExternalIdState.NEXT
        row = ExternalIdRow(tenant_id=here.tenant_id, value=new_external_id(), state=state)
        with services.db.write(SYSTEM) as db:
            db.add(row)
        ids["rotated"] = row.id
    ids |= {"digest": secrets.token_bytes(32), "digits": secrets.token_hex(8)}
    return {name: value for name, value in ids.items() if f":{name}" in statement}


def change(services, rows, by_hand, statement):
    by_hand(statement, **values(services, rows, statement))


def test_taking_away_by_hand_increments_the_revocation_counter_too(services, by_hand):
    for what, statement in BY_HAND.items():
        with case(what):
            rows, before = place(services), by_hand.counter
            change(services, rows, by_hand, statement)
            assert by_hand.counter == before + 1
            changed = next(
                name
                for name in ("key", "tenant", "connection")
                if statement.endswith(f"id = :{name}")
            )
            assert changed_since(by_hand, before) == {getattr(rows, f"{changed}_id")}


# What changes nothing for a process that has the key in memory. A new column of the table has to be
# put into one of the two, and into the trigger if memory decides by it.
HARMLESS = {
    "name": "name = 'another'",
    "made_by": "made_by = :fresh",
    "replaced_by": "replaced_by = :fresh",
    "created_at": "created_at = '2020-01-01 00:00:00'",
    "last_used_at": "last_used_at = '2020-01-01 00:00:00'",
}
DECISIVE = {
    "id": "id = :fresh",
    "lookup": "lookup = :digits",
    "digest": "digest = :digest",
    "scope_bits": "scope_bits = 1",
    "may_give_bits": "may_give_bits = 1",
    "tenant_id": "tenant_id = :other",
    "permission_sets": "permission_sets = '[]'",
    "expires_at": "expires_at = '2020-01-01 00:00:00'",
    "revoked_at": "revoked_at = '2020-01-01 00:00:00'",
}


def test_only_a_keys_columns_that_revoke_increment_the_revocation_counter(services, by_hand):
    for column in ApiKey.__table__.columns:
        with case(column.name):
            rows, before, assignment = (
                place(services),
                by_hand.counter,
                (HARMLESS | DECISIVE)[column.name],
            )
            change(services, rows, by_hand, f"UPDATE api_keys SET {assignment} WHERE id = :key")  # noqa: S608
            assert by_hand.counter == before + (column.name in DECISIVE)


def test_a_replacement_increments_the_revocation_counter_once_however_many_keys_are_inherited(
    services, by_hand
):
    """For the old key, whose end it sets."""
    old, text = services.api_keys.create_key(OPERATOR, name="x", scopes=ALL_SCOPES)
    caller = services.api_keys.authenticate(text)
    for _ in range(3):
        services.api_keys.create_key(caller, name="x", scopes=ALL_SCOPES)
    before = by_hand.counter
    services.api_keys.replace_key(OPERATOR, old.id)
    assert by_hand.counter == before + 1


def test_an_external_id_that_retires_later_does_not_increment_the_revocation_counter(
    tenant_rows, by_hand
):
    before, tenant_id = by_hand.counter, tenant_rows.tenant_id.hex
    by_hand(f"UPDATE external_ids SET state = 'retiring' WHERE tenant_id = '{tenant_id}'")  # noqa: S608
    assert by_hand.counter == before


@pytest.mark.parametrize(
    "act", ["UPDATE connections SET version = version + 1", "DELETE FROM connections"]
)
def test_many_rows_at_once_increment_the_revocation_counter_too(services, by_hand, act):
    """Once for a transaction."""
    here = place(services, connections=5)
    before = by_hand.counter
    where = f"WHERE tenant_id = '{here.tenant_id.hex}'"
    by_hand(
        f"{act} {where}",
        f"UPDATE api_keys SET scope_bits = 1 {where}",  # noqa: S608
        f"DELETE FROM api_keys {where}",  # noqa: S608
    )
    assert by_hand.counter == before + 1


@pytest.mark.parametrize("table", ["api_keys", "connections CASCADE"])
def test_truncating_a_table_increments_the_revocation_counter(by_hand, table):
    """Looked at inside the transaction, which is then given up: the tables are other tests' too."""
    with by_hand.engine.connect() as connection:

        def run(statement):
            return connection.execute(sqlalchemy.text(statement))

        before = run("SELECT revocation_counter FROM configuration").scalar_one()
        run(f"TRUNCATE {table}")
        run("SET CONSTRAINTS ALL IMMEDIATE")
        moved = run("SELECT revocation_counter FROM configuration").scalar_one() - before
        told = run(
            "SELECT count(DISTINCT revocation_counter) FROM revoked_rows"  # noqa: S608
            f" WHERE revocation_counter > {before}"
        ).scalar_one()
        assert moved > told, "nobody can know from which rows something was taken"
        connection.rollback()


def test_what_the_last_thousand_revocations_moved_for_is_kept(services, by_hand):
    """Moves by hand are as good as others here, and quick."""
    here = place(services, connections=3)
    take = "UPDATE connections SET version = version + 1 WHERE id = '{}'"
    oldest, kept, latest = (take.format(one.hex) for one in here.connection_ids)
    by_hand(oldest)
    by_hand(kept)
    before = by_hand.counter
    by_hand("UPDATE configuration SET revocation_counter = revocation_counter + 999")
    by_hand(latest)
    kept_rows = by_hand.rows(
        "SELECT revocation_counter FROM revoked_rows"  # noqa: S608
        f" WHERE revocation_counter < {before + 1000} AND revocation_counter >= {before - 1}"
    )
    assert set(kept_rows) == {(before,)}, (
        "a test that sets the revocation counter back leaves further rows of it"
    )


def test_a_transaction_names_no_more_rows_than_processes_read(own_database):
    """Or a key with hundreds of thousands of keys in its family could not be revoked in time."""
    revoke = "UPDATE api_keys SET revoked_at = now()"

    def write(*statements):
        with own_database.write(SYSTEM) as db:
            for statement in statements:
                db.execute(sqlalchemy.text(statement))

    def named():
        with own_database.read() as db:
            counters = (
                "SELECT revocation_counter FROM configuration",
                "SELECT count(*) FROM revoked_rows",
            )
            return tuple(db.scalar(sqlalchemy.text(one)) for one in counters)

    columns = "(id, name, lookup, digest, scope_bits, created_at)"
    write(
        f"INSERT INTO api_keys {columns} SELECT gen_random_uuid(), 'x', n, '', 1, now()"  # noqa: S608
        f" FROM generate_series(1, {MOST_REVOKED_ROWS + 1}) AS n"
    )
    counter, _ = named()
    write(
        "SAVEPOINT s",
        "SET CONSTRAINTS ALL IMMEDIATE",
        revoke,
        "ROLLBACK TO s",
        "UPDATE api_keys SET expires_at = now() WHERE lookup = '2'",  # counts once
        f"{revoke} WHERE lookup <> '1'",
        f"{revoke} WHERE lookup = '1'",
    )
    assert named() == (counter + 1, MOST_REVOKED_ROWS)
    write("UPDATE api_keys SET revoked_at = NULL WHERE lookup = '1'")
    assert named() == (counter + 2, MOST_REVOKED_ROWS + 1)


# --- transactions ---


def test_the_revocation_counter_and_its_change_are_seen_together(services, tenant_rows, by_hand):
    """Both become visible at the commit."""
    before = by_hand.counter
    with services.db.write(SYSTEM) as db:
        db.execute(sqlalchemy.text(f"DELETE FROM api_keys WHERE id = '{tenant_rows.key_id.hex}'"))  # noqa: S608
        assert by_hand.counter == before
        assert services.api_keys.authenticate(tenant_rows.key, None)
    assert by_hand.counter == before + 1


SAVEPOINTS = {
    "changed inside, given up": (["SAVEPOINT s", "{key}", "ROLLBACK TO s"], False),
    "changed before, given up after": (
        ["{key}", "SAVEPOINT s", "{connection}", "ROLLBACK TO s"],
        True,
    ),
    "given up, then changed": (["SAVEPOINT s", "{key}", "ROLLBACK TO s", "{connection}"], True),
    "checked early, given up": (
        ["SAVEPOINT s", "{now}", "{key}", "ROLLBACK TO s", "{connection}"],
        True,
    ),
}


@pytest.mark.parametrize("what", SAVEPOINTS)
def test_savepoints_do_not_lose_a_move(tenant_rows, by_hand, what):
    statements, moves = SAVEPOINTS[what]
    filled = [
        statement.format(
            key=f"UPDATE api_keys SET scope_bits = 1 WHERE id = '{tenant_rows.key_id.hex}'",  # noqa: S608
            connection=(
                f"UPDATE connections SET version = 9 WHERE id = '{tenant_rows.connection_id.hex}'"  # noqa: S608
            ),
            now="SET CONSTRAINTS ALL IMMEDIATE",
        )
        for statement in statements
    ]
    before = by_hand.counter
    by_hand(*filled)
    assert (by_hand.counter > before) is moves


# --- at once ---


def taken(act):
    """What somebody else has taken away already is no news."""
    with suppress(NotFoundError, ConflictError, SuspendedError):
        act()


def judge(services, here, number):
    """A proof's verdict: the only change that takes away and adds a row."""
    path = (here.tenant_id, here.connection_ids[number])
    with services.db.read() as db:
        plan = plan_rotation(db, owned(db, ADMIN, *path))
    answers = PlanFinding(plan, ProofFinding(Verdict.INSECURE, ()), plan.own[0])
    services.verification._store(ADMIN, answers, Trigger.REQUESTED)


AGAINST = {
    "suspend": lambda services, here, number: services.connections.suspend(
        ADMIN, here.tenant_id, here.connection_ids[number], reason="x"
    ),
    "delete": lambda services, here, number: services.connections.delete(
        ADMIN, here.tenant_id, here.connection_ids[number]
    ),
    "revoke": lambda services, here, _: services.api_keys.revoke_key(OPERATOR, here.key_id),
    "judge": judge,
}


@pytest.mark.parametrize("what", AGAINST)
def test_two_revocations_at_once_do_not_deadlock(services, what):
    """A tenant's offboarding, which locks everything of its, and somebody who has begun at the
    other end.
    """
    for _ in range(2):
        here = place(services, connections=4)
        jobs = [
            lambda here=here: taken(lambda: services.tenants.delete(ADMIN, here.tenant_id)),
            *(
                lambda here=here, n=n: taken(lambda: AGAINST[what](services, here, n))
                for n in range(4)
            ),
        ]
        assert at_once(jobs) == [None] * 5


def test_revocations_of_two_tenants_at_once_share_only_the_revocation_counter(services, by_hand):
    """Each locks rows of its own, and the revocation counter's last of all."""
    places = [place(services, connections=3) for _ in range(4)]
    before = by_hand.counter
    by_statement = "UPDATE api_keys SET scope_bits = 1 WHERE id = '{}'"
    jobs = [
        *(
            lambda here=here: services.tenants.suspend(ADMIN, here.tenant_id, reason="x")
            for here in places
        ),
        *(
            lambda here=here: services.connections.delete(
                ADMIN, here.tenant_id, here.connection_ids[1]
            )
            for here in places
        ),
        *(lambda here=here: by_hand(by_statement.format(here.key_id.hex)) for here in places),
    ]
    with ThreadPoolExecutor(12) as pool:
        for running in [pool.submit(job) for job in jobs]:
            running.result(timeout=20)
    assert by_hand.counter == before + 12


def test_issuing_does_not_wait_for_an_open_revocation(services, tenant_rows, by_hand):
    """The revocation counter's row is locked at the commit only: a long transaction of somebody's
    holds nobody up.
    """
    counter = by_hand.counter
    with services.db.write(SYSTEM) as db:
        db.execute(sqlalchemy.text(f"DELETE FROM api_keys WHERE id = '{tenant_rows.key_id.hex}'"))  # noqa: S608
        assert services.audit.append(
            Event(OPERATOR.actor, "tests.wrote", {}, valid_at_counter=counter), patience=5
        )
