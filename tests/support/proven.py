"""A verified connection without its proof: the rows that one real proof left, under other ids and
at another time.

A proof takes most of what a small test takes, and few tests are about it.
connections/test_proven_rows.py compares the two ways, column by column.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Table, insert, select

from app.clock import now
from app.connections.kit_names import kit_role_name
from app.ids import new_id
from app.limits.limits import ATTEMPTS
from app.onboarding.kit_trust_policy import trust_policy
from app.store.database import SYSTEM
from app.store.models import AuditEvent, Connection, ExternalIdRow, Proof, Tenant, WebhookEvent
from tests.support.rows import ADMIN

Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A connection that was really proven: what its rows speak of, and the rows, its own first."""

    texts: tuple[str, ...]
    rows: list[tuple[Table, Row]]


_models = WeakKeyDictionary()


def connection(world, tenant, customer):
    """The tenant's, to the kit's role in the customer's account. The first of each process is
    really proven.
    """
    services = world.admin.app.extensions["deputy"]
    model = _models.get(services.db)
    if model is None:
        made = world.connect(tenant, world.role(tenant, customer))
        _models[services.db] = _read(services.db, UUID(made["id"]))
        return made
    tenant_id = UUID(tenant["id"])
    external_id = _external_id(services.db, tenant_id)
    trust = trust_policy(services.config.aws.broker, external_id.value)
    role = customer.make_role(kit_role_name(services.config.aws.role_prefix, tenant_id), trust)
    texts = (role["Arn"], role["RoleId"], customer.account, external_id.value)
    connection_id = _copy(services, model, external_id, texts)
    return world.admin("GET", f"/v1/tenants/{tenant_id}/connections/{connection_id}")


def _read(database, connection_id):
    rows = []
    with database.read() as db:
        events = select(AuditEvent.id).where(AuditEvent.connection_id == connection_id)
        for column, values in (
            (Connection.id, [connection_id]),
            (Proof.connection_id, [connection_id]),
            (AuditEvent.connection_id, [connection_id]),
            (WebhookEvent.id, events),
        ):
            table = column.class_.__table__
            found = db.execute(select(table).where(column.in_(values)).order_by(table.c.id))
            rows += [(table, dict(row)) for row in found.mappings()]
        one = db.get_one(Connection, connection_id)
        return Model(
            (one.role_arn, one.role_unique_id or "", one.account_id, one.external_id), rows
        )


def _external_id(database, tenant_id):
    """The only one of a tenant to which nothing has happened that a proof would heed."""
    with database.read() as db:
        tenant = db.get_one(Tenant, tenant_id)
        assert (tenant.status.value, tenant.declares_accounts) == ("active", False)
        return db.scalars(select(ExternalIdRow).where(ExternalIdRow.tenant_id == tenant_id)).one()


def _copy(services, model, external_id, texts):
    """As if a connection that the texts speak of had been proven just now; its id."""
    services.quotas.acquire(ADMIN, external_id.tenant_id, ATTEMPTS)
    [(_, was), *_] = model.rows
    ids = {old: new_id() for old in sorted(row["id"] for _, row in model.rows)}
    ids |= {was["tenant_id"]: external_id.tenant_id, was["external_id_id"]: external_id.id}
    requests = {row["request_id"]: new_id().hex for _, row in model.rows if row.get("request_id")}
    swap = _Swap(
        ids, dict(zip(model.texts, texts, strict=True)) | requests, now() - was["created_at"]
    )
    with services.db.write(SYSTEM) as db:
        for table, row in model.rows:
            db.execute(insert(table).values({name: swap(value) for name, value in row.items()}))
    return ids[was["id"]]


@dataclass(frozen=True)
class _Swap:
    """The new value for one of the model's. Times stay as far apart as they were."""

    ids: dict[UUID, UUID]
    texts: dict[str, str]
    later: Any

    def __call__(self, value):
        match value:
            case enum.Enum():
                return value
            case UUID():
                return self.ids.get(value, value)
            case datetime():
                return value + self.later
            case str():
                for old, new in self.texts.items():
                    value = value.replace(old, new)
            case dict():
                return {name: self(item) for name, item in value.items()}
            case list():
                return [self(item) for item in value]
        return value
