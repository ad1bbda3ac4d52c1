"""What the database itself refuses, tried row by row on both engines, and the states that a
connection can take.
"""

import dataclasses
import itertools
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Enum, delete, insert, literal_column, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from app.errors import ConflictError, SuspendedError
from app.ids import Grant, RoleArn, new_external_id, new_id
from app.store.database import SYSTEM
from app.store.models import (
    ApiKey,
    Approval,
    AuditEvent,
    Connection,
    ConnectionStatus,
    ExternalIdRow,
    ExternalIdState,
    Proof,
    Tenant,
    TenantStatus,
    Trigger,
    Verdict,
)
from app.store.models.connection_status import after_proof
from app.store.models.tenant import Suspension

WHY = Suspension("operator", bound=False, reason="x")
NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
S, V = ConnectionStatus, Verdict


class Rows:
    """Writes rows without any of the code that guards them, each in a transaction of its own."""

    def __init__(self, database):
        self.database = database

    def run(self, statement):
        with self.database.write(SYSTEM) as db:
            return db.execute(statement)

    def change(self, model, row_id, **values):
        table = model.__table__
        self.run(update(table).where(table.c.id == row_id).values(**values))

    def add(self, model, **values):
        return self.run(insert(model.__table__).values(**values)).inserted_primary_key[0]

    def tenant(self, **fields):
        # As the ORM stores them: an empty one would be found by commands.
        return self.add(Tenant, **{"name": "Acme", "name_folded": "acme"} | fields)

    def external_id(self, tenant_id, **fields):
        values = {"value": new_external_id(), "state": ExternalIdState.CURRENT} | fields
        return self.add(ExternalIdRow, tenant_id=tenant_id, **values)

    def connection(self, tenant_id, external_id_id, **fields):
        values = {
            "role_arn": f"arn:aws:iam::444455556666:role/deputy-{uuid.uuid4().hex}",
            "account_id": "444455556666",
            "permission_set": "inventory",
        } | fields
        return self.add(Connection, tenant_id=tenant_id, external_id_id=external_id_id, **values)

    def whole(self, **fields):
        """A tenant with an External ID and a connection."""
        tenant = self.tenant()
        external_id = self.external_id(tenant)
        return tenant, external_id, self.connection(tenant, external_id, **fields)

    def add_about(self, model, tenant_id, connection_id):
        """A proof or an approval."""
        values = {"permission_set": "bucket-sync", "reason": "tests", "asked_by": "operator"}
        if model is Proof:
            values = {"verdict": V.PROVEN, "trigger": Trigger.REQUESTED, "checks": []}
            values |= {"first_at": NOW, "checked_at": NOW}
        return self.add(model, tenant_id=tenant_id, connection_id=connection_id, **values)


@pytest.fixture
def rows(database):
    return Rows(database)


@contextmanager
def refused(match=None):
    """By the database, for a constraint and not because it is away."""
    with pytest.raises(DBAPIError, match=match) as caught:
        yield
    assert not isinstance(caught.value, OperationalError)


# --- invariant 3 (docs/architecture.md has the list): a role and the tenant's own External ID ---


def test_a_role_is_paired_with_an_external_id_of_its_own_tenant(rows):
    acme, globex = rows.tenant(), rows.tenant()
    theirs = rows.external_id(globex)
    rows.external_id(acme)
    for tenant, external_id in ((acme, theirs), (acme, new_id()), (acme, None), (None, theirs)):
        with refused():
            rows.connection(tenant, external_id)
    rows.connection(globex, theirs)


@pytest.mark.parametrize("model", [Proof, Approval])
def test_a_proof_and_an_approval_belong_to_a_connection_of_the_same_tenant(rows, model):
    tenant, _, connection = rows.whole()
    with refused():
        rows.add_about(model, rows.tenant(), connection)
    added = rows.add_about(model, tenant, connection)
    rows.run(delete(Connection.__table__).where(Connection.__table__.c.id == connection))
    with rows.database.read() as db:
        assert db.get(model, added) is None


# --- invariant 4: External IDs ---


def test_an_external_id_is_unique_over_all_time(rows):
    """Also when the first one is retired: retired rows count. The services answer an
    IntegrityError with a conflict.
    """
    for first in ExternalIdState:
        value = new_external_id()
        rows.external_id(rows.tenant(), value=value, state=first)
        for again in ExternalIdState:
            with pytest.raises(IntegrityError):
                rows.external_id(rows.tenant(), value=value, state=again)


def test_a_retired_external_id_stays_retired(rows):
    for state in {*ExternalIdState} - {ExternalIdState.RETIRED}:
        row = rows.external_id(rows.tenant(), state=ExternalIdState.RETIRED)
        with refused("a retired External ID stays retired"):
            rows.change(ExternalIdRow, row, state=state)


def test_a_tenant_has_one_current_and_one_next_and_as_many_retired_ones_as_it_takes(rows):
    states, tenant = ExternalIdState, rows.tenant()
    upcoming = rows.external_id(tenant, state=states.NEXT)
    for state in (states.CURRENT, states.RETIRED, states.RETIRED, states.RETIRING):
        rows.external_id(tenant, state=state)
    for state in (states.CURRENT, states.NEXT):
        with refused():
            rows.external_id(tenant, state=state)
        rows.external_id(rows.tenant(), state=state)
    with refused():
        rows.change(ExternalIdRow, upcoming, state=states.CURRENT)
    rows.change(ExternalIdRow, upcoming, state=states.RETIRED, retired_at=NOW)


# --- tenants and connections ---


def test_a_tenant_has_a_role_once(rows):
    role = {"role_arn": "arn:aws:iam::444455556666:role/deputy-once"}
    tenant, external_id, connection = rows.whole(**role)
    with refused():
        rows.connection(tenant, external_id, **role)
    rows.change(Connection, connection, status=S.DELETED)
    with refused():  # the tombstone holds the place
        rows.connection(tenant, external_id, **role)
    rows.whole(**role)  # another tenant's is another matter


def test_verified_is_proven_and_does_not_wait_for_an_approval(rows):
    proven = {"role_unique_id": "AROAONE", "verified_at": NOW}
    tenant, _, connection = rows.whole(status=S.VERIFIED, **proven)
    waiting = {"approval_id": rows.add_about(Approval, tenant, connection)}
    for wrong in ({"role_unique_id": None}, {"verified_at": None}, waiting):
        with refused():
            rows.whole(status=S.VERIFIED, **(proven | wrong))
        with refused():
            rows.change(Connection, connection, **wrong)
    rows.change(Connection, connection, status=S.PENDING, **waiting)


@pytest.mark.parametrize("model", [Tenant, ExternalIdRow, Connection, Proof, Approval])
def test_a_state_is_a_word_of_its_enumeration(rows, model):
    tenant, _, connection = rows.whole()
    for about in (Proof, Approval):
        rows.add_about(about, tenant, connection)
    table = model.__table__
    mine = table.c.id == tenant if model is Tenant else table.c.tenant_id == tenant
    states = [column for column in table.c if isinstance(column.type, Enum)]
    assert states
    for column, word in itertools.product(states, ("''", "'Verified'")):
        with refused():
            rows.run(update(table).where(mine).values({column: literal_column(word)}))


def test_the_database_keeps_a_reference_unique_among_live_tenants(rows):
    reference = {"reference": uuid.uuid4().hex}
    first = rows.tenant(**reference)
    for status in (TenantStatus.ACTIVE, TenantStatus.SUSPENDED):
        with refused():
            rows.tenant(status=status, **reference)
    rows.change(Tenant, first, deleted_at=NOW, status=TenantStatus.DELETED)
    rows.tenant(**reference)
    with refused():
        rows.change(Tenant, first, deleted_at=None)
    for _ in range(2):
        rows.tenant(reference=None)


def test_a_keys_lookup_is_unique_and_its_tenant_exists(rows):
    lookup = uuid.uuid4().hex[:16]
    key = {"digest": b"x", "name": "k", "scope_bits": 1}
    rows.add(ApiKey, lookup=lookup, **key)
    for wrong in ({"lookup": lookup}, {"lookup": uuid.uuid4().hex[:16], "tenant_id": new_id()}):
        with refused():
            rows.add(ApiKey, **key, **wrong)


# --- the audit log ---


@pytest.mark.parametrize("model", [AuditEvent, ExternalIdRow])
def test_audit_events_and_external_ids_are_never_changed_or_lost(rows, model):
    """Nor by TRUNCATE, which fires no trigger for a row."""
    tenant, table = rows.tenant(), model.__table__
    if model is AuditEvent:
        words, changes = "append-only", {"outcome": "failed", "details": {"x": 1}}
        event = {"action": "tests.wrote", "outcome": "ok", "actor_kind": "operator"}
        row = rows.add(AuditEvent, actor_name="tests", details={}, tenant_id=tenant, **event)
    else:
        words, changes = "never changed or reassigned|kept for ever", {"value": "dpy-x"}
        row = rows.external_id(tenant)
    for change in (*changes.items(), ("tenant_id", None), ("tenant_id", rows.tenant())):
        with refused(words):
            rows.change(model, row, **dict([change]))
    this = table.c.id == row
    with refused(words):
        rows.run(delete(table).where(this))
    statement = text(f"TRUNCATE {table.name} CASCADE")
    with rows.database.engine.connect() as connection, refused():  # always closed without a commit
        connection.execute(statement)
    if model is ExternalIdRow:
        with refused():
            rows.run(delete(Tenant.__table__).where(Tenant.__table__.c.id == tenant))


# --- a connection's states (design.md, 4) ---


def connection(status, **fields):
    values = {"role_unique_id": "AROAONE", "version": 7, "due_at": NOW} | fields
    return Connection(id=new_id(), status=status, **values)


def proven(connection, verdict, role_unique_id="AROAONE"):
    """A proof of the connection with this verdict, which is applied to it."""
    proof = Proof(id=new_id(), verdict=verdict, checked_at=NOW, checks=[])
    connection.apply_verdict(proof, role_unique_id if verdict is V.PROVEN else None)
    return proof


# test_connection_status.py has where each verdict moves them
MOVED = [S.PENDING, S.VERIFIED, S.BROKEN, S.ENDED, S.INSECURE]


def test_a_verdict_moves_a_connection_and_only_a_proof_pins_the_role_and_the_time():
    for before, verdict in itertools.product(MOVED, Verdict):
        it = connection(before, role_unique_id="AROAOLD", verified_at=None)
        proof = proven(it, verdict, "AROAOLD")
        after = after_proof(before, verdict, ended=False, approved=True)
        assert (it.status, it.proof_id, it.role_unique_id) == (after, proof.id, "AROAOLD"), verdict
        assert it.verified_at == (NOW if verdict is V.PROVEN else None), verdict
        # What an issuance relies on has changed when the state has, and only then: a confirming
        # proof is no change.
        assert it.version == (7 if after is before else 8), verdict


@pytest.mark.parametrize(("later", "ends"), [(0, True), (1, False)])
def test_past_its_end_a_refusal_ends_a_connection_and_a_proof_does_not(later, ends):
    until = NOW + timedelta(seconds=later)
    for verdict, status in ((V.UNASSUMABLE, S.ENDED if ends else S.BROKEN), (V.PROVEN, S.VERIFIED)):
        it = connection(S.VERIFIED, access_until=until)
        proven(it, verdict)
        assert it.status is status


def test_only_an_end_that_has_come_is_said():
    """A stack may say another time before a proof finds what its role does."""
    past, future = (datetime.fromtimestamp(seconds, UTC) for seconds in (0, 9_999_999_999))
    for status, until, ended in (
        (S.ENDED, past, past),
        (S.ENDED, future, None),
        (S.ENDED, None, None),
        (S.BROKEN, past, None),
    ):
        assert connection(status, access_until=until).ended_at == ended


def test_a_proof_of_another_role_under_the_same_arn_is_a_change():
    it = connection(S.VERIFIED, role_unique_id="AROAOLD")
    proven(it, V.PROVEN, "AROANEW")
    assert (it.status, it.version, it.role_unique_id) == (S.VERIFIED, 8, "AROANEW")


@pytest.mark.parametrize("before", MOVED, ids=lambda status: status.value)
def test_any_state_can_be_suspended_and_comes_back_unproven_or_be_deleted(before):
    it = connection(before)
    with pytest.raises(ConflictError):
        it.resume()
    it.ensure_not_suspended()
    it.suspend(WHY)
    it.make_due(NOW, Trigger.REGISTERED)
    it.approve(NOW)
    assert (it.status, it.version, it.due_at) == (S.SUSPENDED, 8, None), "nothing is due for it"
    with pytest.raises(SuspendedError):
        it.ensure_not_suspended()
    it.resume()
    assert (it.status, it.version, it.due_at is None) == (S.PENDING, 9, False)
    for gone in (connection(before), connection(S.SUSPENDED)):
        gone.delete(NOW, bound=True)
        assert (gone.status, gone.version, gone.deleted_at, gone.due_at) == (
            S.DELETED,
            8,
            NOW,
            None,
        )


def test_a_recreated_role_is_pending_and_due_and_unpinned():
    it = connection(S.VERIFIED, due_at=None)
    it.role_was_recreated()
    assert (it.status, it.version, it.role_unique_id) == (S.PENDING, 8, None)
    assert it.due_at is not None


# --- the grant ---


def test_a_grant_comes_from_one_row_whose_role_is_a_role(rows):
    """The column is text; should one ever hold something else, it stops here."""
    _, external_id, connection_id = rows.whole()
    *_, user_id = rows.whole(role_arn=f"arn:aws:iam::444455556666:user/{uuid.uuid4().hex}")
    with rows.database.read() as db:
        it = db.get(Connection, connection_id)
        own = db.get(ExternalIdRow, external_id)
        assert it.grant == Grant(RoleArn.parse(it.role_arn), own.value, it.tenant_id)
        assert it.external_id == own.value
        with pytest.raises(dataclasses.FrozenInstanceError):
            it.grant.external_id = "x"
        with pytest.raises(ValueError, match="IAM role"):
            _ = db.get(Connection, user_id).grant
