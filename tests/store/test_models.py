"""What the database itself refuses, tried row by row on both engines, and the states that a
connection can take.
"""

import dataclasses
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import delete, insert, literal_column, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from app.errors import ConflictError, SuspendedError
from app.ids import Grant, RoleArn, new_external_id, new_id
from app.store.database import SYSTEM, Database
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
from app.store.models.approval import ApprovalSubject
from app.store.models.proof_schedule import Interval
from app.store.models.states import after_proof
from app.store.models.suspension import Suspension

WHY = Suspension("operator", bound=False, reason="x")
NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
HOUR = Interval(3600, 3600)


class Rows:
    """Writes rows without any of the code that guards them, each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def run(self, statement) -> None:
        with self.database.write(SYSTEM) as db:
            db.execute(statement)

    def tenant(self, **fields) -> uuid.UUID:
        # As the ORM stores them: an empty one would be found by commands.
        names = {"name": "Acme", "name_folded": "acme"}
        values = {
            "id": new_id(),
            **names,
            "status": TenantStatus.ACTIVE,
            "created_at": NOW,
        } | fields
        self.run(insert(Tenant.__table__).values(**values))
        return values["id"]

    def external_id(self, tenant_id, **fields) -> uuid.UUID:
        values = {
            "id": new_id(),
            "tenant_id": tenant_id,
            "value": new_external_id(),
            "state": ExternalIdState.CURRENT,
            "created_at": NOW,
        } | fields
        self.run(insert(ExternalIdRow.__table__).values(**values))
        return values["id"]

    def connection(self, tenant_id, external_id_id, **fields) -> uuid.UUID:
        values = {
            "id": new_id(),
            "tenant_id": tenant_id,
            "external_id_id": external_id_id,
            "role_arn": f"arn:aws:iam::444455556666:role/deputy-{uuid.uuid4().hex}",
            "account_id": "444455556666",
            "permission_set": "inventory",
            "status": ConnectionStatus.PENDING,
            "version": 1,
            "created_at": NOW,
        } | fields
        self.run(insert(Connection.__table__).values(**values))
        return values["id"]

    def whole(self, **fields) -> tuple[uuid.UUID, uuid.UUID, uuid.UUID]:
        """A tenant with an External ID and a connection."""
        tenant = self.tenant()
        external_id = self.external_id(tenant)
        return tenant, external_id, self.connection(tenant, external_id, **fields)

    def proof(self, tenant_id, connection_id, **fields) -> uuid.UUID:
        values = {
            "id": new_id(),
            "tenant_id": tenant_id,
            "connection_id": connection_id,
            "verdict": Verdict.PROVEN,
            "checks": [],
            "trigger": Trigger.REQUESTED,
            "first_at": NOW,
            "checked_at": NOW,
        } | fields
        self.run(insert(Proof.__table__).values(**values))
        return values["id"]

    def approval(self, tenant_id, connection_id, **fields) -> uuid.UUID:
        values = {
            "id": new_id(),
            "tenant_id": tenant_id,
            "connection_id": connection_id,
            "subject": ApprovalSubject.PERMISSION_SET,
            "permission_set": "bucket-sync",
            "reason": "tests",
            "asked_by": "operator",
            "asked_at": NOW,
        } | fields
        self.run(insert(Approval.__table__).values(**values))
        return values["id"]

    def event(self, **fields) -> uuid.UUID:
        values = {
            "id": new_id(),
            "at": NOW,
            "action": "tests.wrote",
            "outcome": "ok",
            "actor_kind": "operator",
            "actor_name": "tests",
            "details": {},
        } | fields
        self.run(insert(AuditEvent.__table__).values(**values))
        return values["id"]


@pytest.fixture
def rows(database) -> Rows:
    return Rows(database)


@contextmanager
def refused(match: str | None = None):
    """By the database, for a constraint and not because it is away."""
    with pytest.raises(DBAPIError, match=match) as caught:
        yield
    assert not isinstance(caught.value, OperationalError)


# --- invariant 3 (docs/architecture.md has the list): a role and the tenant's own External ID ---


def test_a_role_is_not_paired_with_another_tenants_external_id(rows):
    acme, globex = rows.tenant(), rows.tenant()
    theirs = rows.external_id(globex)
    rows.external_id(acme)
    with refused():
        rows.connection(acme, theirs)
    rows.connection(globex, theirs)


def test_a_connection_needs_an_external_id_and_a_tenant(rows):
    tenant = rows.tenant()
    with refused():
        rows.connection(tenant, new_id())
    with refused():
        rows.connection(tenant, None)
    with refused():
        rows.connection(None, rows.external_id(tenant))


@pytest.mark.parametrize(("add", "model"), [(Rows.proof, Proof), (Rows.approval, Approval)])
def test_a_proof_and_an_approval_belong_to_a_connection_of_the_same_tenant(rows, add, model):
    tenant, _, connection = rows.whole()
    with refused():
        add(rows, rows.tenant(), connection)
    added = add(rows, tenant, connection)
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


def test_a_tenant_has_one_current_and_one_next_and_as_many_retired_ones_as_it_takes(rows):
    tenant, others = (
        rows.tenant(),
        [ExternalIdState.RETIRED, ExternalIdState.RETIRED, ExternalIdState.RETIRING],
    )
    upcoming = rows.external_id(tenant, state=ExternalIdState.NEXT)
    for state in (ExternalIdState.CURRENT, *others):
        rows.external_id(tenant, state=state)
    for state in (ExternalIdState.CURRENT, ExternalIdState.NEXT):
        with refused():
            rows.external_id(tenant, state=state)
        rows.external_id(rows.tenant(), state=state)
    table = ExternalIdRow.__table__
    with refused():
        rows.run(update(table).where(table.c.id == upcoming).values(state=ExternalIdState.CURRENT))
    rows.run(
        update(table)
        .where(table.c.id == upcoming)
        .values(state=ExternalIdState.RETIRED, retired_at=NOW)
    )


# --- tenants and connections ---


def test_a_tenant_has_a_role_once(rows):
    tenant, external_id, connection = rows.whole(
        role_arn="arn:aws:iam::444455556666:role/deputy-once"
    )
    again = partial(
        rows.connection, tenant, external_id, role_arn="arn:aws:iam::444455556666:role/deputy-once"
    )
    with refused():
        again()
    this = update(Connection.__table__).where(Connection.__table__.c.id == connection)
    rows.run(this.values(status=ConnectionStatus.DELETED))
    with refused():  # the tombstone holds the place
        again()
    # Another tenant's is another matter
    rows.whole(role_arn="arn:aws:iam::444455556666:role/deputy-once")


def test_verified_is_proven(rows):
    proven = {"role_unique_id": "AROAONE", "verified_at": NOW}
    _, _, connection = rows.whole(status=ConnectionStatus.VERIFIED, **proven)
    for missing in ({"role_unique_id": None}, {"verified_at": None}):
        with refused():
            rows.whole(status=ConnectionStatus.VERIFIED, **(proven | missing))
        with refused():
            rows.run(
                update(Connection.__table__)
                .where(Connection.__table__.c.id == connection)
                .values(**missing)
            )


def test_verified_does_not_wait_for_an_approval(rows):
    proven = {"role_unique_id": "AROAONE", "verified_at": NOW}
    tenant, _, connection = rows.whole(**proven)
    this = update(Connection.__table__).where(Connection.__table__.c.id == connection)
    rows.run(this.values(approval_id=rows.approval(tenant, connection)))
    with refused():
        rows.run(this.values(status=ConnectionStatus.VERIFIED))
    rows.run(this.values(status=ConnectionStatus.VERIFIED, approval_id=None))


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (Tenant.__table__, "status"),
        (ExternalIdRow.__table__, "state"),
        (Connection.__table__, "status"),
        (Connection.__table__, "due_for"),
        (Proof.__table__, "verdict"),
        (Proof.__table__, "trigger"),
        (Approval.__table__, "subject"),
        (Approval.__table__, "decision"),
    ],
    ids=str,
)
def test_a_state_is_one_of_the_known_words(rows, table, column):
    tenant, _, connection = rows.whole()
    rows.proof(tenant, connection)
    rows.approval(tenant, connection)
    mine = table.c.id == tenant if table is Tenant.__table__ else table.c.tenant_id == tenant
    for word in ("", "Verified", "active "):
        with refused():
            rows.run(update(table).where(mine).values({column: literal_column(f"'{word}'")}))


def test_the_database_keeps_a_reference_unique_among_live_tenants(rows):
    reference = uuid.uuid4().hex
    first = rows.tenant(reference=reference)
    with refused():
        rows.tenant(reference=reference)
    with refused():  # suspended is not gone
        rows.tenant(reference=reference, status=TenantStatus.SUSPENDED)
    rows.run(
        update(Tenant.__table__)
        .where(Tenant.__table__.c.id == first)
        .values(deleted_at=NOW, status=TenantStatus.DELETED)
    )
    rows.tenant(reference=reference)
    with refused():
        rows.run(
            update(Tenant.__table__).where(Tenant.__table__.c.id == first).values(deleted_at=None)
        )
    for _ in range(2):
        rows.tenant(reference=None)


def test_a_keys_lookup_is_unique_and_its_tenant_exists(rows):
    def key(**fields):
        values = {
            "id": new_id(),
            "digest": b"x",
            "name": "k",
            "scope_bits": 1,
            "created_at": NOW,
        } | fields
        rows.run(insert(ApiKey.__table__).values(**values))

    lookup = uuid.uuid4().hex[:16]
    key(lookup=lookup)
    with refused():
        key(lookup=lookup)
    with refused():
        key(lookup=uuid.uuid4().hex[:16], tenant_id=new_id())


# --- the audit log ---


@pytest.mark.parametrize(
    ("table", "changes", "words"),
    [
        (
            AuditEvent.__table__,
            {"outcome": "failed", "details": {"x": 1}, "tenant_id": None},
            "append-only",
        ),
        (
            ExternalIdRow.__table__,
            {"value": "dpy-x", "tenant_id": None},
            "never changed or reassigned|kept for ever",
        ),
    ],
    ids=["audit_events", "external_ids"],
)
def test_audit_events_and_external_ids_are_never_changed_or_lost(rows, table, changes, words):
    """Nor by what fires no trigger for a row: TRUNCATE, and SQLite's INSERT OR REPLACE, which
    deletes the row in its way.
    """
    tenant = rows.tenant()
    row = (
        rows.external_id(tenant)
        if table is ExternalIdRow.__table__
        else rows.event(connection_id=new_id())
    )
    this = table.c.id == row
    other = {"tenant_id": rows.tenant()} if table is ExternalIdRow.__table__ else {}
    for column, value in (changes | other).items():
        with refused(words):
            rows.run(update(table).where(this).values({column: value}))
    with refused(words):
        rows.run(delete(table).where(this))
    if rows.database.engine.dialect.name == "postgresql":
        statement = text(f"TRUNCATE {table.name} CASCADE")
    else:
        names = [column.name for column in table.columns]
        copy = select(*table.columns).where(this)
        statement = insert(table).prefix_with("OR REPLACE").from_select(names, copy)
    with rows.database.engine.connect() as connection, refused():  # always closed without a commit
        connection.execute(statement)
    if table is ExternalIdRow.__table__:
        with refused():
            rows.run(delete(Tenant.__table__).where(Tenant.__table__.c.id == tenant))


# --- a connection's states (design.md, 4) ---

S, V = ConnectionStatus, Verdict


def connection(status: ConnectionStatus, **fields) -> Connection:
    values = {"role_unique_id": "AROAONE", "version": 7, "due_at": NOW} | fields
    return Connection(id=new_id(), status=status, **values)


def proof(verdict: Verdict) -> Proof:
    return Proof(id=new_id(), verdict=verdict, checked_at=NOW, checks=[])


# test_states.py has where each verdict moves them
MOVED = [S.PENDING, S.VERIFIED, S.BROKEN, S.ENDED, S.INSECURE]


@pytest.mark.parametrize("before", MOVED, ids=lambda status: status.value)
def test_a_verdict_moves_a_connection_and_only_a_proof_pins_the_role_and_the_time(before):
    for verdict in Verdict:
        it, found = connection(before, role_unique_id="AROAOLD", verified_at=None), proof(verdict)
        after = after_proof(before, verdict, ended=False, approved=True)
        it.apply_verdict(found, "AROAOLD" if verdict is V.PROVEN else None, HOUR)
        assert (it.status, it.proof_id, it.role_unique_id) == (after, found.id, "AROAOLD"), verdict
        assert it.verified_at == (NOW if verdict is V.PROVEN else None), verdict
        # What an issuance relies on has changed when the state has, and only then: a confirming
        # proof is no change.
        assert it.version == (7 if after is before else 8), verdict


@pytest.mark.parametrize(("later", "ends"), [(0, True), (-1, True), (1, False)])
def test_past_its_end_a_refusal_ends_a_connection_and_a_proof_forgets_the_end(later, ends):
    until = NOW + timedelta(seconds=later)
    for verdict, status in ((V.UNASSUMABLE, S.ENDED if ends else S.BROKEN), (V.PROVEN, S.VERIFIED)):
        it = connection(S.VERIFIED, access_until=until)
        it.apply_verdict(proof(verdict), "AROAONE" if verdict is V.PROVEN else None, HOUR)
        assert it.status is status
        assert (it.access_until is None) is (ends and verdict is V.PROVEN)


def test_only_an_end_that_has_come_is_said():
    """A stack may say another time before a proof finds what its role does."""
    past, future = (datetime.fromtimestamp(seconds, UTC) for seconds in (0, 9_999_999_999))
    for status, until, ended in (
        (S.ENDED, past, True),
        (S.ENDED, future, False),
        (S.ENDED, None, False),
        (S.BROKEN, past, False),
    ):
        assert (connection(status, access_until=until).ended_at is not None) is ended


def due_with(
    until: datetime, status: ConnectionStatus = S.VERIFIED, verdict: Verdict = V.PROVEN
) -> datetime:
    it = connection(status, due_since=NOW - timedelta(days=1), access_until=until)
    it.apply_verdict(proof(verdict), "AROAONE", HOUR)
    assert (it.status, it.due_at is None) == (status, False)
    return it.due_at


def test_a_proof_is_due_just_after_an_end_that_comes_before_its_turn():
    assert due_with(NOW + timedelta(minutes=1)) == NOW + timedelta(seconds=90)
    assert due_with(NOW - timedelta(seconds=9), S.ENDED, V.UNASSUMABLE) == NOW + timedelta(
        seconds=21
    )
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # as people write "never"
    later = [due_with(until) for until in (last, NOW + timedelta(days=1))]
    later += [due_with(NOW - timedelta(days=1), S.ENDED, V.UNASSUMABLE)]
    assert all(timedelta(minutes=15) <= due - NOW <= timedelta(minutes=80) for due in later)


def test_a_proof_of_another_role_under_the_same_arn_is_a_change():
    it = connection(S.VERIFIED, role_unique_id="AROAOLD")
    it.apply_verdict(proof(V.PROVEN), "AROANEW", HOUR)
    assert (it.status, it.version, it.role_unique_id) == (S.VERIFIED, 8, "AROANEW")


@pytest.mark.parametrize("before", MOVED, ids=lambda status: status.value)
def test_any_state_can_be_suspended_and_comes_back_unproven_or_be_deleted(before):
    it = connection(before)
    with pytest.raises(ConflictError):
        it.resume()
    it.ensure_not_suspended()
    it.suspend(WHY)
    assert (it.status, it.version) == (S.SUSPENDED, 8)
    with pytest.raises(SuspendedError):
        it.ensure_not_suspended()
    with pytest.raises(ConflictError):
        it.suspend(WHY)
    it.resume()
    assert (it.status, it.version) == (S.PENDING, 9)
    for deleted in (connection(before), connection(S.SUSPENDED)):
        deleted.delete(NOW, bound=True)
        assert (deleted.status, deleted.version, deleted.deleted_at, deleted.due_at) == (
            S.DELETED,
            8,
            NOW,
            None,
        )


def test_nothing_is_due_for_a_suspended_connection_until_it_is_resumed():
    it = connection(S.PENDING)
    it.suspend(WHY)
    it.make_due(NOW, Trigger.REGISTERED)
    it.approve(NOW)
    assert (it.status, it.due_at) == (S.SUSPENDED, None)
    it.resume()
    assert it.due_at is not None


def test_a_recreated_role_is_pending_and_due_and_unpinned():
    it = connection(S.VERIFIED, due_at=None)
    it.role_was_recreated()
    assert (it.status, it.version, it.role_unique_id) == (S.PENDING, 8, None)
    assert it.due_at is not None


# --- the grant ---


def test_a_grant_comes_from_one_row(rows):
    _, external_id, connection_id = rows.whole()
    with rows.database.read() as db:
        it = db.get(Connection, connection_id)
        own = db.get(ExternalIdRow, external_id)
        assert it.grant == Grant(RoleArn.parse(it.role_arn), own.value)
        assert it.external_id == own.value
    with pytest.raises(dataclasses.FrozenInstanceError):
        it.grant.external_id = "x"


def test_a_row_whose_role_is_none_gives_no_grant(rows):
    """The column is text; should one ever hold something else, it stops here."""
    _, _, connection_id = rows.whole(role_arn=f"arn:aws:iam::444455556666:user/{uuid.uuid4().hex}")
    with rows.database.read() as db:
        it = db.get(Connection, connection_id)
        with pytest.raises(ValueError, match="IAM role"):
            _ = it.grant
